import Primitives

/// One spelling for each JSON value, so that rows that we folded and rows that PostgreSQL's jsonb gave back have one
/// digest: no white space, object members sorted by the bytes of their names (of several with one name the last
/// stands, as jsonb has it), the shortest escapes (RFC 8259, section 7: only `"`, `\` and U+0000 to U+001F), numbers
/// as digits, or digits and exponent, without zeros that change nothing (`1.50` and `15e-1` are `15e-1`; `-0` is `0`).
public enum CanonicalJSON {
    /// Appends the canonical spelling of `json`, which must be valid.
    public static func append(_ json: UnsafeRawBufferPointer, to output: inout [UInt8]) {
        var writer = Writer(input: json, output: output)
        output = []
        writer.value()
        output = writer.output
    }

    private struct Writer {
        let input: UnsafeRawBufferPointer
        var output: [UInt8]
        var at = 0

        private mutating func skipSpace() {
            while at < input.count, [0x20, 0x09, 0x0A, 0x0D].contains(input[at]) { at += 1 }
        }

        private func peek() -> UInt8 {
            precondition(at < input.count, "JSON that was checked before ends too early")
            return input[at]
        }

        mutating func value() {
            skipSpace()
            switch peek() {
            case UInt8(ascii: "{"): object()
            case UInt8(ascii: "["): array()
            case UInt8(ascii: "\""): string()
            case UInt8(ascii: "t"), UInt8(ascii: "f"), UInt8(ascii: "n"): word()
            default: number()
            }
        }

        private mutating func word() {
            while at < input.count, (0x61...0x7A).contains(input[at]) {
                output.append(input[at])
                at += 1
            }
        }

        /// True when a list goes on behind a value, false when it ends.
        private mutating func goesOn() -> Bool {
            skipSpace()
            at += 1
            return input[at - 1] == UInt8(ascii: ",")
        }

        private mutating func array() {
            output.append(peek())
            at += 1
            skipSpace()
            if peek() == UInt8(ascii: "]") {
                at += 1
            } else {
                value()
                while goesOn() {
                    output.append(UInt8(ascii: ","))
                    value()
                }
            }
            output.append(UInt8(ascii: "]"))
        }

        private mutating func object() {
            output.append(peek())
            at += 1
            skipSpace()
            defer { output.append(UInt8(ascii: "}")) }
            guard peek() != UInt8(ascii: "}") else {
                at += 1
                return
            }
            // Members as they stand behind each other in the output, to be put in order when all are known.
            let begin = output.count
            var members: [(name: Range<Int>, whole: Range<Int>)] = []
            repeat {
                skipSpace()
                let start = output.count
                string()
                let name = start..<output.count
                skipSpace()
                at += 1  // :
                output.append(UInt8(ascii: ":"))
                value()
                members.append((name, start..<output.count))
            } while goesOn()
            sort(&members, from: begin)
        }

        private mutating func sort(_ members: inout [(name: Range<Int>, whole: Range<Int>)], from begin: Int) {
            let text = Array(output[begin...])
            func bytes(_ range: Range<Int>) -> ArraySlice<UInt8> {
                text[(range.lowerBound - begin)..<(range.upperBound - begin)]
            }
            // Quotes are left out: a name that is another's beginning comes first.
            func name(_ member: (name: Range<Int>, whole: Range<Int>)) -> ArraySlice<UInt8> {
                bytes(member.name).dropFirst().dropLast()
            }
            let order = members.indices.sorted { a, b in
                if name(members[a]).elementsEqual(name(members[b])) { return a < b }
                return name(members[a]).lexicographicallyPrecedes(name(members[b]))
            }
            output.removeSubrange(begin...)
            for (place, index) in order.enumerated() {
                let next = place + 1 < order.count ? members[order[place + 1]] : nil
                if let next, name(members[index]).elementsEqual(name(next)) { continue }
                if output.count > begin { output.append(UInt8(ascii: ",")) }
                output.append(contentsOf: bytes(members[index].whole))
            }
        }

        private mutating func string() {
            output.append(peek())
            at += 1
            while peek() != UInt8(ascii: "\"") {
                if input[at] == UInt8(ascii: "\\") {
                    escape()
                } else {
                    output.append(input[at])
                    at += 1
                }
            }
            output.append(UInt8(ascii: "\""))
            at += 1
        }

        private mutating func escape() {
            let letter = input[at + 1]
            at += 2
            switch letter {
            case UInt8(ascii: "b"): put(0x08)
            case UInt8(ascii: "f"): put(0x0C)
            case UInt8(ascii: "n"): put(0x0A)
            case UInt8(ascii: "r"): put(0x0D)
            case UInt8(ascii: "t"): put(0x09)
            case UInt8(ascii: "u"):
                var unit = hex()
                if (0xD800...0xDBFF).contains(unit), at + 6 <= input.count, input[at] == UInt8(ascii: "\\") {
                    at += 2
                    unit = 0x10000 + (unit - 0xD800) << 10 + (hex() - 0xDC00)
                }
                put(unit)
            default: put(UInt32(letter))
            }
        }

        private mutating func hex() -> UInt32 {
            defer { at += 4 }
            return input[at..<(at + 4)].reduce(0) { value, digit in
                value << 4 | UInt32(digit <= 0x39 ? digit - 0x30 : (digit | 0x20) - 0x61 + 10)
            }
        }

        /// One character of a string.
        private mutating func put(_ scalar: UInt32) {
            JSONString.appendEscaped(String(Unicode.Scalar(scalar) ?? "\u{FFFD}").utf8, to: &output)
        }

        private mutating func number() {
            let isNegative = peek() == UInt8(ascii: "-")
            if isNegative { at += 1 }
            var digits: [UInt8] = [], exponent = 0
            while at < input.count, (0x30...0x39).contains(input[at]) {
                digits.append(input[at])
                at += 1
            }
            if at < input.count, input[at] == UInt8(ascii: ".") {
                at += 1
                while at < input.count, (0x30...0x39).contains(input[at]) {
                    digits.append(input[at])
                    exponent -= 1
                    at += 1
                }
            }
            if at < input.count, input[at] | 0x20 == UInt8(ascii: "e") {
                at += 1
                let sign = input[at] == UInt8(ascii: "-") ? -1 : 1
                if input[at] == UInt8(ascii: "-") || input[at] == UInt8(ascii: "+") { at += 1 }
                var written = 0
                while at < input.count, (0x30...0x39).contains(input[at]) {
                    written = min(written * 10 + Int(input[at] - 0x30), 1 << 40)
                    at += 1
                }
                exponent += sign * written
            }
            while digits.count > 1, digits.last == 0x30 {
                digits.removeLast()
                exponent += 1
            }
            let significant = digits.drop { $0 == 0x30 }
            guard !significant.isEmpty else { return output.append(0x30) }
            if isNegative { output.append(UInt8(ascii: "-")) }
            output += significant
            // A large integer without an exponent, as long as it is one that people read.
            if exponent > 0, significant.count + exponent <= 19 {
                output += [UInt8](repeating: 0x30, count: exponent)
            } else if exponent != 0 {
                output += Array("e\(exponent)".utf8)
            }
        }
    }
}
