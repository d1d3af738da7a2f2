/// One MQTT 5 property of a PUBLISH, as a record keeps it.
public enum RecordProperty {
    /// 1: the payload is UTF-8 (MQTT 5.0, 3.3.2.3.2).
    case payloadFormat(UInt8)
    /// Seconds.
    case messageExpiry(UInt32)
    case contentType(UnsafeRawBufferPointer)
    case responseTopic(UnsafeRawBufferPointer)
    case correlationData(UnsafeRawBufferPointer)
    case user(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)
}

/// Walks `RecordView.properties` (MQTT 5.0, 2.2.2.2): ends at the end, and at what is no property of a PUBLISH.
public struct RecordProperties: IteratorProtocol, Sequence {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    public mutating func next() -> RecordProperty? {
        guard let identifier = byte() else { return nil }
        switch identifier {
        case 0x01: return byte().map { .payloadFormat($0) }
        case 0x02:
            guard let high = number(), let low = number() else { return nil }
            return .messageExpiry(UInt32(high) << 16 | UInt32(low))
        case 0x03: return text().map { .contentType($0) }
        case 0x08: return text().map { .responseTopic($0) }
        case 0x09: return text().map { .correlationData($0) }
        case 0x26:
            guard let name = text(), let value = text() else { return nil }
            return .user(name: name, value: value)
        default: return nil
        }
    }

    private mutating func byte() -> UInt8? {
        guard offset < bytes.count else { return nil }
        defer { offset += 1 }
        return bytes[offset]
    }

    private mutating func number() -> UInt16? {
        guard let high = byte(), let low = byte() else { return nil }
        return UInt16(high) << 8 | UInt16(low)
    }

    private mutating func text() -> UnsafeRawBufferPointer? {
        guard let count = number(), bytes.count - offset >= Int(count) else { return nil }
        defer { offset += Int(count) }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + Int(count))])
    }

    /// The value of the first user property of this name.
    public static func user(_ name: StaticString, in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let wanted = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        for case .user(let name, let value) in RecordProperties(bytes) where name.elementsEqual(wanted) {
            return value
        }
        return nil
    }
}

/// User properties of what is published out of the log. What comes back with them is recognised by them.
public enum ReplayMark {
    /// The log's id, 32 hexadecimal digits.
    public static let log: StaticString = "refold-log"
    /// The position of the event, in decimal.
    public static let position: StaticString = "refold-position"
    /// When it was received, RFC 3339 in UTC.
    public static let receivedAt: StaticString = "refold-received-at"
    public static let all = [log, position, receivedAt]

    /// The position that a message claims to be of in the log with this id; nil when it claims none.
    public static func position(in properties: UnsafeRawBufferPointer, ofLog id: [UInt8]) -> Position? {
        guard let log = RecordProperties.user(log, in: properties), log.elementsEqual(id),
            let text = RecordProperties.user(position, in: properties)
        else { return nil }
        return UInt64(String(decoding: text, as: UTF8.self)).map { Position($0) }
    }
}
