/// Checks that bytes are JSON (RFC 8259), all of them, and copies them without the white space between tokens: one
/// line, every digit as it was. Nesting is limited to 512, as in decoding.
public struct CompactJSON {
    private let bytes: UnsafeRawBufferPointer
    private var index = 0
    private static let depthMax = 512

    /// Appends the compact form to `output`; false, with `output` as it was, when `bytes` are not JSON.
    public static func append(_ bytes: UnsafeRawBufferPointer, to output: inout [UInt8]) -> Bool {
        let before = output.count
        var scanner = CompactJSON(bytes: bytes)
        if scanner.value(&output, depth: 0), scanner.skipSpace() == nil, isUTF8(bytes) { return true }
        output.removeSubrange(before...)
        return false
    }

    public static func isUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.allSatisfy { $0 < 0x80 } || String(validating: bytes, as: UTF8.self) != nil
    }

    private init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The next byte that is not white space, nil at the end.
    private mutating func skipSpace() -> UInt8? {
        while index < bytes.count {
            let byte = bytes[index]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            index += 1
        }
        return nil
    }

    private mutating func value(_ output: inout [UInt8], depth: Int) -> Bool {
        guard depth <= Self.depthMax, let byte = skipSpace() else { return false }
        switch byte {
        case UInt8(ascii: "{"): return members(&output, close: UInt8(ascii: "}"), named: true, depth: depth)
        case UInt8(ascii: "["): return members(&output, close: UInt8(ascii: "]"), named: false, depth: depth)
        case UInt8(ascii: "\""): return string(&output)
        case UInt8(ascii: "t"): return word("true", &output)
        case UInt8(ascii: "f"): return word("false", &output)
        case UInt8(ascii: "n"): return word("null", &output)
        default: return number(&output)
        }
    }

    private mutating func members(_ output: inout [UInt8], close: UInt8, named: Bool, depth: Int) -> Bool {
        output.append(bytes[index])
        index += 1
        if skipSpace() == close {
            index += 1
            output.append(close)
            return true
        }
        while true {
            if named {
                guard skipSpace() == UInt8(ascii: "\""), string(&output), skipSpace() == UInt8(ascii: ":")
                else { return false }
                index += 1
                output.append(UInt8(ascii: ":"))
            }
            guard value(&output, depth: depth + 1), let next = skipSpace() else { return false }
            index += 1
            output.append(next)
            if next == close { return true }
            guard next == UInt8(ascii: ",") else { return false }
        }
    }

    private mutating func string(_ output: inout [UInt8]) -> Bool {
        let start = index
        index += 1
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                index += 1
                output.append(contentsOf: bytes[start..<index])
                return true
            case UInt8(ascii: "\\"):
                guard escape() else { return false }
            case 0..<0x20: return false
            default: index += 1
            }
        }
        return false
    }

    private mutating func escape() -> Bool {
        index += 1
        guard index < bytes.count else { return false }
        switch bytes[index] {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            index += 1
            return true
        case UInt8(ascii: "u"):
            guard bytes.count - index > 4, bytes[(index + 1)...(index + 4)].allSatisfy(Self.isHexDigit)
            else { return false }
            index += 5
            return true
        default: return false
        }
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }

    private mutating func word(_ word: StaticString, _ output: inout [UInt8]) -> Bool {
        let length = word.utf8CodeUnitCount
        guard bytes.count - index >= length else { return false }
        for offset in 0..<length where bytes[index + offset] != word.utf8Start[offset] { return false }
        output.append(contentsOf: bytes[index..<(index + length)])
        index += length
        return true
    }

    private mutating func digits() -> Int {
        let start = index
        while index < bytes.count, (0x30...0x39).contains(bytes[index]) { index += 1 }
        return index - start
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard index < bytes.count, bytes[index] == byte else { return false }
        index += 1
        return true
    }

    private mutating func number(_ output: inout [UInt8]) -> Bool {
        let start = index
        _ = take(UInt8(ascii: "-"))
        let leadingZero = index < bytes.count && bytes[index] == 0x30
        let whole = digits()
        guard whole > 0, !leadingZero || whole == 1 else { return false }
        if take(UInt8(ascii: ".")), digits() == 0 { return false }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard digits() > 0 else { return false }
        }
        output.append(contentsOf: bytes[start..<index])
        return true
    }
}
