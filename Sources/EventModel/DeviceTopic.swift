/// What a device's topic is about: the part of it behind `tenant/{t}/device/{d}/`.
@frozen
public enum TopicClass: UInt8, Sendable, CaseIterable {
    case telemetry, heartbeat, shadowReported, commandAck, otaStatus, connection
    /// `…/ota`: commands to the device. Nobody but us publishes there.
    case otaCommand
    /// Anything else: kept, counted, not folded.
    case other
}

/// The parts of `tenant/{t}/device/{d}/{rest}`, as byte ranges of the topic.
/// Tenant and device ids are 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
@frozen
public struct DeviceTopic: Sendable {
    public let tenant: Range<Int>
    public let device: Range<Int>
    public let topicClass: TopicClass

    /// `tenant/{t}/device/{d}`: the bytes that name the device, tenant included.
    @inlinable public var address: Range<Int> { 0..<device.upperBound }

    public static let idBytesMax = 128

    /// The topic that was parsed before, from the lengths of its ids.
    @inlinable
    public init(tenantCount: Int, deviceCount: Int, topicClass: TopicClass) {
        tenant = 7..<(7 + tenantCount)
        device = (15 + tenantCount)..<(15 + tenantCount + deviceCount)
        self.topicClass = topicClass
    }

    /// Nil when the topic does not follow the grammar.
    @inlinable
    public init?(_ topic: UnsafeRawBufferPointer) {
        guard let base = topic.baseAddress, topic.count >= 18,
            base.loadUnaligned(as: UInt32.self) == 0x616e_6574,  // "tena"
            base.loadUnaligned(fromByteOffset: 3, as: UInt32.self) == 0x2f74_6e61  // "ant/"
        else { return nil }
        let tenantEnd = Self.idEnd(topic, from: 7)
        guard tenantEnd > 7, tenantEnd - 7 <= Self.idBytesMax, tenantEnd + 8 < topic.count,
            base.loadUnaligned(fromByteOffset: tenantEnd, as: UInt64.self) == 0x2f65_6369_7665_642f  // "/device/"
        else { return nil }
        let deviceStart = tenantEnd + 8
        let deviceEnd = Self.idEnd(topic, from: deviceStart)
        guard deviceEnd > deviceStart, deviceEnd - deviceStart <= Self.idBytesMax,
            deviceEnd + 1 < topic.count, topic[deviceEnd] == 0x2F
        else { return nil }
        tenant = 7..<tenantEnd
        device = deviceStart..<deviceEnd
        topicClass = Self.classify(UnsafeRawBufferPointer(rebasing: topic[(deviceEnd + 1)...]))
    }

    @inlinable
    static func idEnd(_ topic: UnsafeRawBufferPointer, from start: Int) -> Int {
        var index = start
        while index < topic.count, isIdByte(topic[index]) { index += 1 }
        return index
    }

    /// Bit i of the table is set when ASCII character i may stand in an id.
    @inlinable
    static func isIdByte(_ byte: UInt8) -> Bool {
        if byte < 64 { return (0x07FF_6000_0000_0000 as UInt64) >> UInt64(byte) & 1 == 1 }  // - . 0-9 :
        if byte < 128 { return (0x07FF_FFFE_87FF_FFFE as UInt64) >> UInt64(byte - 64) & 1 == 1 }  // A-Z _ a-z
        return false
    }

    @inlinable
    static func classify(_ rest: UnsafeRawBufferPointer) -> TopicClass {
        switch rest.count {
        case 3 where isWord(rest, "ota"): .otaCommand
        case 9 where isWord(rest, "telemetry"): .telemetry
        case 9 where isWord(rest, "heartbeat"): .heartbeat
        case 10 where isWord(rest, "ota/status"): .otaStatus
        case 10 where isWord(rest, "connection"): .connection
        case 12 where isWord(rest, "commands/ack"): .commandAck
        case 15 where isWord(rest, "shadow/reported"): .shadowReported
        default: .other
        }
    }

    /// `rest` is as long as `word`.
    @inlinable @inline(__always)
    static func isWord(_ rest: UnsafeRawBufferPointer, _ word: StaticString) -> Bool {
        for index in 0..<word.utf8CodeUnitCount where rest[index] != word.utf8Start[index] { return false }
        return true
    }
}
