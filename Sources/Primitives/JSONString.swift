/// JSON strings in the form of RFC 8785, 3.2.2.2: escapes only what RFC 8259, 7 requires. PostgreSQL's jsonb prints the
/// same.
public enum JSONString {
    /// With its quotes.
    public static func encode(_ text: String) -> String {
        var json: [UInt8] = []
        append(text, to: &json)
        return String(decoding: json, as: UTF8.self)
    }

    /// With its quotes.
    public static func append(_ text: String, to json: inout [UInt8]) {
        json.append(UInt8(ascii: "\""))
        appendEscaped(text.utf8, to: &json)
        json.append(UInt8(ascii: "\""))
    }

    /// Without quotes.
    /// - Parameter text: UTF-8.
    @inlinable
    public static func appendEscaped(_ text: some Sequence<UInt8>, to json: inout [UInt8]) {
        for byte in text { appendEscaped(byte, to: &json) }
    }

    @usableFromInline
    static func appendEscaped(_ byte: UInt8, to json: inout [UInt8]) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): escape(byte, &json)
        case 0x08: escape(UInt8(ascii: "b"), &json)
        case 0x09: escape(UInt8(ascii: "t"), &json)
        case 0x0A: escape(UInt8(ascii: "n"), &json)
        case 0x0C: escape(UInt8(ascii: "f"), &json)
        case 0x0D: escape(UInt8(ascii: "r"), &json)
        case 0..<0x20:
            json.append(contentsOf: "\\u00".utf8)
            Hex.append(CollectionOfOne(byte), to: &json)
        default: json.append(byte)
        }
    }

    private static func escape(_ letter: UInt8, _ json: inout [UInt8]) {
        json.append(UInt8(ascii: "\\"))
        json.append(letter)
    }
}
