/// Records on their way into the log: one growing buffer, reused from batch to batch.
/// What is appended as one batch becomes durable as one commit: wholly or not at all.
public struct RecordBatch: Sendable {
    public private(set) var bytes: [UInt8] = []
    public private(set) var count = 0

    /// The log refuses larger records: longest topic, properties and broker name with room for any payload we accept.
    public static let recordBytesMax = 8 << 20

    public init() {}

    @inlinable public var isEmpty: Bool { count == 0 }
    public var byteCount: Int { bytes.count }

    public mutating func reserve(byteCount: Int) { bytes.reserveCapacity(byteCount) }

    public mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        count = 0
    }

    /// Appends an MQTT message (or a rejection record). `payload` may be cut: then `originalPayloadLength` is what
    /// arrived.
    public mutating func append(
        kind: EventKind, verdict: Verdict, flags: RecordFlags, receivedAt: Timestamp, packetID: UInt16,
        broker: UnsafeRawBufferPointer, topic: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
        payload: UnsafeRawBufferPointer, originalPayloadLength: Int? = nil
    ) {
        precondition(broker.count <= 255 && topic.count <= 65_535, "broker or topic longer than a record can hold")
        let length = RecordView.headerBytes + broker.count + topic.count + properties.count + payload.count
        precondition(length <= Self.recordBytesMax, "record longer than \(Self.recordBytesMax) bytes")
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int, _ header: UnsafeMutableRawBufferPointer) {
            header.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
        }
        withUnsafeTemporaryAllocation(byteCount: RecordView.headerBytes, alignment: 8) { header in
            put(UInt32(length), 0, header)
            put(kind.rawValue, 4, header)
            put(verdict.rawValue, 5, header)
            put(flags.rawValue, 6, header)
            put(UInt8(broker.count), 7, header)
            put(receivedAt.microseconds, 8, header)
            put(packetID, 16, header)
            put(UInt16(topic.count), 18, header)
            put(UInt32(properties.count), 20, header)
            put(UInt32(payload.count), 24, header)
            put(UInt32(originalPayloadLength ?? payload.count), 28, header)
            bytes.append(contentsOf: header)
        }
        bytes.append(contentsOf: broker)
        bytes.append(contentsOf: topic)
        bytes.append(contentsOf: properties)
        bytes.append(contentsOf: payload)
        count += 1
    }

    /// Appends an event of our own: typed JSON under a schema name with its version (`campaign.created/1`).
    public mutating func append(
        kind: EventKind, schema: String, broker: String = "", receivedAt: Timestamp, json: [UInt8]
    ) {
        var broker = broker, schema = schema
        broker.withUTF8 { broker in
            schema.withUTF8 { schema in
                json.withUnsafeBytes { json in
                    append(
                        kind: kind, verdict: .accepted, flags: [], receivedAt: receivedAt, packetID: 0,
                        broker: UnsafeRawBufferPointer(broker), topic: UnsafeRawBufferPointer(schema),
                        properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: json)
                }
            }
        }
    }

    /// Appends all of another batch's records.
    public mutating func append(_ other: RecordBatch) {
        bytes.append(contentsOf: other.bytes)
        count += other.count
    }

    /// Raises every received-at that is below `floor`, or below one before it, so that time never decreases in the log.
    /// Those above `ceiling` are lowered to it first: a clock that was ahead has stamped them.
    /// Returns the first and last time. The batch must not be empty.
    public mutating func raiseTimes(
        to floor: Timestamp, ceiling: Timestamp? = nil
    ) -> (first: Timestamp, last: Timestamp) {
        precondition(count > 0, "an empty batch has no times")
        return bytes.withUnsafeMutableBytes { bytes in
            var offset = 0, last = floor, first: Timestamp?
            while offset < bytes.count {
                var time = Timestamp(microseconds: bytes.loadUnaligned(fromByteOffset: offset + 8, as: Int64.self))
                if let ceiling, time > ceiling {
                    time = ceiling
                    bytes.storeBytes(of: time.microseconds, toByteOffset: offset + 8, as: Int64.self)
                }
                if time < last {
                    bytes.storeBytes(of: last.microseconds, toByteOffset: offset + 8, as: Int64.self)
                } else {
                    last = time
                }
                if first == nil { first = last }
                offset += Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            }
            return (first ?? last, last)
        }
    }

    /// Calls `body` with each record. A view ends with the call.
    public func forEach(_ body: (RecordView) throws -> Void) rethrows {
        try bytes.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                try body(record)
                offset += record.length
            }
        }
    }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try bytes.withUnsafeBytes(body)
    }
}
