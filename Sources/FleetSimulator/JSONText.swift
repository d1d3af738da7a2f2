import EventModel

/// JSON written straight into bytes: no encoder, no intermediate strings, and the same bytes in every run.
struct JSONText {
    private(set) var bytes: [UInt8] = []

    init(capacity: Int = 224) { bytes.reserveCapacity(capacity) }

    /// Appends text as it is.
    mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }

    mutating func int(_ value: Int64) { bytes.append(contentsOf: String(value).utf8) }

    /// `hundredths` as a decimal number with two digits: -5 is `-0.05`.
    mutating func decimal(hundredths: Int64) {
        let size = hundredths.magnitude
        if hundredths < 0 { bytes.append(UInt8(ascii: "-")) }
        raw(String(size / 100))
        bytes.append(UInt8(ascii: "."))
        bytes.append(UInt8(ascii: "0") + UInt8(size / 10 % 10))
        bytes.append(UInt8(ascii: "0") + UInt8(size % 10))
    }

    /// A string with its quotes, escaped as RFC 8259, section 7, asks.
    mutating func string(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case 0..<0x20:
                raw("\\u00")
                bytes.append(Self.hexDigit(byte >> 4))
                bytes.append(Self.hexDigit(byte & 15))
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    mutating func hex(_ data: [UInt8]) {
        for byte in data {
            bytes.append(Self.hexDigit(byte >> 4))
            bytes.append(Self.hexDigit(byte & 15))
        }
    }

    mutating func clear() { bytes.removeAll(keepingCapacity: true) }

    private static func hexDigit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
    }
}
