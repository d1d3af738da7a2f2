import EventModel
import Primitives

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

    /// A string with its quotes.
    mutating func string(_ text: String) { JSONString.append(text, to: &bytes) }

    mutating func hex(_ data: some Sequence<UInt8>) { Hex.append(data, to: &bytes) }

    mutating func clear() { bytes.removeAll(keepingCapacity: true) }
}
