/// One event where it lies, in the bytes of a decoded block: no copy, no allocation.
/// Valid only while the `EventBlock` that gave it is unchanged. Its bounds were checked when the block was walked.
///
/// The layout (little-endian, `schemas/log-format.md`):
///
///     0  u32 length of the whole record       16 u16 packet id
///     4  u8  kind                             18 u16 topic length
///     5  u8  verdict                          20 u32 properties length
///     6  u8  flags                            24 u32 payload length
///     7  u8  broker name length               28 u32 payload length as it arrived
///     8  i64 received-at, µs UTC              32 broker, topic, properties, payload
@frozen
public struct RecordView {
    @usableFromInline let base: UnsafeRawPointer

    public static let headerBytes = 32

    /// `base` must point at a record that `check` has accepted.
    @inlinable public init(unchecked base: UnsafeRawPointer) { self.base = base }

    /// The record's length when a whole, well-formed record begins at `offset`, else nil.
    @inlinable
    public static func check(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int? {
        guard offset >= 0, bytes.count - offset >= headerBytes, let start = bytes.baseAddress else { return nil }
        let record = RecordView(unchecked: start + offset)
        let length = record.length
        guard length <= bytes.count - offset else { return nil }
        let parts =
            headerBytes + record.brokerLength + record.topicLength + record.propertiesLength
            + record.payloadLength
        guard parts == length, EventKind(rawValue: record.rawKind) != nil, Verdict(rawValue: record.rawVerdict) != nil
        else { return nil }
        return length
    }

    @inlinable public var length: Int { Int(base.loadUnaligned(as: UInt32.self)) }
    @inlinable var rawKind: UInt8 { base.load(fromByteOffset: 4, as: UInt8.self) }
    @inlinable var rawVerdict: UInt8 { base.load(fromByteOffset: 5, as: UInt8.self) }
    @inlinable public var kind: EventKind { EventKind(rawValue: rawKind).unsafelyUnwrapped }
    @inlinable public var verdict: Verdict { Verdict(rawValue: rawVerdict).unsafelyUnwrapped }
    @inlinable public var flags: RecordFlags { RecordFlags(rawValue: base.load(fromByteOffset: 6, as: UInt8.self)) }
    @inlinable var brokerLength: Int { Int(base.load(fromByteOffset: 7, as: UInt8.self)) }
    @inlinable public var receivedAt: Timestamp {
        Timestamp(storedMicroseconds: base.loadUnaligned(fromByteOffset: 8, as: Int64.self))
    }
    @inlinable public var packetID: UInt16 { base.loadUnaligned(fromByteOffset: 16, as: UInt16.self) }
    @inlinable var topicLength: Int { Int(base.loadUnaligned(fromByteOffset: 18, as: UInt16.self)) }
    @inlinable var propertiesLength: Int { Int(base.loadUnaligned(fromByteOffset: 20, as: UInt32.self)) }
    @inlinable var payloadLength: Int { Int(base.loadUnaligned(fromByteOffset: 24, as: UInt32.self)) }
    /// What arrived, in bytes; more than `payload.count` only when `flags` contains `.truncated`.
    @inlinable public var originalPayloadLength: Int { Int(base.loadUnaligned(fromByteOffset: 28, as: UInt32.self)) }

    @inlinable func part(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + offset, count: count)
    }
    /// The name of the broker connection that it came over; empty for events of our own.
    @inlinable public var broker: UnsafeRawBufferPointer { part(Self.headerBytes, brokerLength) }
    /// The MQTT topic, or the schema name and version of an event of our own (`campaign.created/1`).
    @inlinable public var topic: UnsafeRawBufferPointer { part(Self.headerBytes + brokerLength, topicLength) }
    /// MQTT 5 properties in their wire form (MQTT 5.0, 2.2.2.2), without the length in front.
    @inlinable public var properties: UnsafeRawBufferPointer {
        part(Self.headerBytes + brokerLength + topicLength, propertiesLength)
    }
    @inlinable public var payload: UnsafeRawBufferPointer { part(length - payloadLength, payloadLength) }
    /// The whole record.
    @inlinable public var bytes: UnsafeRawBufferPointer { part(0, length) }

    public var topicString: String { String(decoding: topic, as: UTF8.self) }
    public var brokerString: String { String(decoding: broker, as: UTF8.self) }
}
