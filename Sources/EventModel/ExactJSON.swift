import Primitives

/// A JSON text (RFC 8259) in which nothing is lost: numbers stay as they were written, and an object keeps all
/// members in their order, also several with one name. Device data is compared and shown through it: a parser that
/// makes doubles of numbers refuses `1e309`, and takes 9007199254740993 for its neighbour.
public enum ExactJSON: Equatable, Sendable {
    case null
    case bool(Bool)
    /// As written.
    case number(String)
    case string(String)
    case array([ExactJSON])
    case object([Member])

    public struct Member: Equatable, Sendable {
        public var name: String
        public var value: ExactJSON
    }

    /// Deeper nesting is refused. Decoding allows 512 levels of a device's payload.
    public static let depthMax = 600

    /// Nil unless all of `bytes` is one JSON text in UTF-8, without half surrogate pairs.
    public init?(_ bytes: some Collection<UInt8>) {
        var parser = JSONParser(bytes: Array(bytes))
        guard let value = parser.text() else { return nil }
        self = value
    }

    public init?(_ text: String) { self.init(text.utf8) }

    /// The members of an object in which no name comes twice; else nil.
    public var uniqueMembers: [String: ExactJSON]? {
        guard case .object(let members) = self else { return nil }
        var found: [String: ExactJSON] = [:]
        for member in members where found.updateValue(member.value, forKey: member.name) != nil { return nil }
        return found
    }

    /// Of several members with one name the last counts, as in PostgreSQL's jsonb.
    public subscript(name: String) -> ExactJSON? {
        guard case .object(let members) = self else { return nil }
        return members.last { $0.name == name }?.value
    }

    public var string: String? { if case .string(let text) = self { text } else { nil } }
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var array: [ExactJSON]? { if case .array(let items) = self { items } else { nil } }
    /// A whole number written as digits alone.
    public var uint64: UInt64? { if case .number(let text) = self { UInt64(text) } else { nil } }
    public var int64: Int64? { if case .number(let text) = self { Int64(text) } else { nil } }
}

private struct JSONParser {
    let bytes: [UInt8]
    var at = 0
    var depth = 0

    mutating func text() -> ExactJSON? {
        guard let value = value() else { return nil }
        skipSpace()
        return at == bytes.count ? value : nil
    }

    private mutating func skipSpace() {
        while at < bytes.count, bytes[at] == 0x20 || bytes[at] == 0x0A || bytes[at] == 0x0D || bytes[at] == 0x09 {
            at += 1
        }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private mutating func value() -> ExactJSON? {
        skipSpace()
        guard at < bytes.count else { return nil }
        switch bytes[at] {
        case UInt8(ascii: "{"): return nested { $0.object() }
        case UInt8(ascii: "["): return nested { $0.array() }
        case UInt8(ascii: "\""): return string().map { .string($0) }
        case UInt8(ascii: "t"): return word("true", .bool(true))
        case UInt8(ascii: "f"): return word("false", .bool(false))
        case UInt8(ascii: "n"): return word("null", .null)
        default: return number()
        }
    }

    private mutating func nested(_ body: (inout JSONParser) -> ExactJSON?) -> ExactJSON? {
        guard depth < ExactJSON.depthMax else { return nil }
        depth += 1
        defer { depth -= 1 }
        at += 1
        return body(&self)
    }

    private mutating func word(_ word: String, _ value: ExactJSON) -> ExactJSON? {
        guard bytes[at...].starts(with: word.utf8) else { return nil }
        at += word.utf8.count
        return value
    }

    private mutating func array() -> ExactJSON? {
        var items: [ExactJSON] = []
        skipSpace()
        if take("]") { return .array([]) }
        repeat {
            guard let item = value() else { return nil }
            items.append(item)
            skipSpace()
        } while take(",")
        return take("]") ? .array(items) : nil
    }

    private mutating func object() -> ExactJSON? {
        var members: [ExactJSON.Member] = []
        skipSpace()
        if take("}") { return .object([]) }
        repeat {
            skipSpace()
            guard at < bytes.count, bytes[at] == UInt8(ascii: "\""), let name = string() else { return nil }
            skipSpace()
            guard take(":"), let value = value() else { return nil }
            members.append(ExactJSON.Member(name: name, value: value))
            skipSpace()
        } while take(",")
        return take("}") ? .object(members) : nil
    }

    private mutating func digits() -> Bool {
        let start = at
        while at < bytes.count, (0x30...0x39).contains(bytes[at]) { at += 1 }
        return at > start
    }

    private mutating func number() -> ExactJSON? {
        let start = at
        _ = take("-")
        if !take("0") { guard digits() else { return nil } }
        if take(".") { guard digits() else { return nil } }
        if take("e") || take("E") {
            if !take("+") { _ = take("-") }
            guard digits() else { return nil }
        }
        return .number(String(decoding: bytes[start..<at], as: UTF8.self))
    }

    private mutating func string() -> String? {
        at += 1
        var text: [UInt8] = []
        while true {
            let end = plainEnd()
            text += bytes[at..<end]
            at = end
            if take("\"") { return String(validating: text, as: UTF8.self) }
            guard take("\\"), let scalar = escape() else { return nil }
            text += String(scalar).utf8
        }
    }

    /// Where the run of bytes ends that are neither a quote, a backslash nor a control character.
    private func plainEnd() -> Int {
        bytes.withUnsafeBufferPointer { bytes in
            var end = at
            while end < bytes.count, bytes[end] != 0x22, bytes[end] != 0x5C, bytes[end] >= 0x20 { end += 1 }
            return end
        }
    }

    private mutating func escape() -> Unicode.Scalar? {
        guard at < bytes.count else { return nil }
        at += 1
        switch bytes[at - 1] {
        case UInt8(ascii: "b"): return "\u{08}"
        case UInt8(ascii: "f"): return "\u{0C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "u"):
            guard let unit = hex() else { return nil }
            guard (0xD800...0xDBFF).contains(unit) else { return Unicode.Scalar(unit) }
            guard take("\\"), take("u"), let low = hex(), (0xDC00...0xDFFF).contains(low) else { return nil }
            return Unicode.Scalar(0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00))
        default: return nil
        }
    }

    private mutating func hex() -> UInt32? {
        guard at + 4 <= bytes.count else { return nil }
        var value: UInt32 = 0
        for byte in bytes[at..<(at + 4)] {
            switch byte {
            case 0x30...0x39: value = value << 4 | UInt32(byte - 0x30)
            case 0x41...0x46, 0x61...0x66: value = value << 4 | UInt32((byte | 0x20) - 0x61 + 10)
            default: return nil
            }
        }
        at += 4
        return value
    }
}

extension ExactJSON {
    /// What PostgreSQL's `->>` gives for this value in a jsonb object: strings as they are, numbers as numeric prints
    /// them, the rest as jsonb prints it; nil for null.
    public var jsonbText: String? {
        switch self {
        case .null: nil
        case .string(let text): text
        default: jsonb
        }
    }

    /// As jsonb prints it: names sorted by length, then bytes; the last of several with one name; `, ` and `: `.
    private var jsonb: String {
        switch self {
        case .null: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .number(let text): return Self.plain(text)
        case .string(let text): return JSONString.encode(text)
        case .array(let items): return "[" + items.map(\.jsonb).joined(separator: ", ") + "]"
        case .object(let members):
            // Names are compared by their bytes: Swift's String takes canonically equivalent ones for equal.
            let named = members.enumerated().map { (name: Array($1.name.utf8), order: $0, value: $1) }
            let sorted = named.sorted { a, b in
                if a.name.count != b.name.count { return a.name.count < b.name.count }
                return a.name == b.name ? a.order < b.order : a.name.lexicographicallyPrecedes(b.name)
            }
            let kept = sorted.indices.filter { $0 + 1 == sorted.count || sorted[$0].name != sorted[$0 + 1].name }
            let texts = kept.map { JSONString.encode(sorted[$0].value.name) + ": " + sorted[$0].value.value.jsonb }
            return "{" + texts.joined(separator: ", ") + "}"
        }
    }

    /// A number without an exponent, as PostgreSQL's numeric prints it: all digits, the written scale kept.
    private static func plain(_ text: String) -> String {
        let isNegative = text.hasPrefix("-")
        let parts = text.drop { $0 == "-" }.lowercased().split(separator: "e")
        // Numbers beyond numeric are dead letters; this bound only keeps memory flat. It comes before any arithmetic:
        // an exponent may be any number, or none that an Int can hold.
        guard let exponent = parts.count > 1 ? Int(parts[1]) : 0, (-200_000...200_000).contains(exponent) else {
            return text
        }
        let mantissa = parts[0].split(separator: ".")
        let fraction = mantissa.count > 1 ? Array(mantissa[1].utf8) : []
        var digits = Array(mantissa[0].utf8) + fraction
        let scale = fraction.count - exponent
        if scale < 0 { digits += [UInt8](repeating: 0x30, count: -scale) }
        let decimals = max(0, scale)
        let missing = max(0, decimals + 1 - digits.count)
        digits.insert(contentsOf: [UInt8](repeating: 0x30, count: missing), at: 0)
        let whole = digits.dropLast(decimals).drop { $0 == 0x30 }
        let isZero = digits.allSatisfy { $0 == 0x30 }
        let body =
            (whole.isEmpty ? "0" : String(decoding: whole, as: UTF8.self))
            + (decimals > 0 ? "." + String(decoding: digits.suffix(decimals), as: UTF8.self) : "")
        return isNegative && !isZero ? "-" + body : body
    }
}
