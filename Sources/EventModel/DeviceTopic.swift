/// What a device's topic is about: the part of it behind `tenant/{t}/device/{d}/`.
@frozen
public enum TopicClass: UInt8, Sendable, CaseIterable {
    case telemetry, heartbeat, shadowReported, commandAck, otaStatus, connection
    /// `…/ota`: commands to the device. Nobody but us publishes there.
    case otaCommand
    /// `…/certificate`: commands about the device's certificate. Only Refold publishes on this topic.
    case certificateCommand
    /// The device's answers to them.
    case certificateRequest, certificateInstalled
    /// Anything else: kept, counted, not folded.
    case other

    /// Only Refold publishes there.
    @inlinable public var isCommand: Bool { self == .otaCommand || self == .certificateCommand }
}

/// The parts of a `DeviceTopic` in one word, for whoever keeps many: the lengths of its ids and its class.
@frozen
public struct TopicParts: Sendable, Equatable {
    @usableFromInline var bits: UInt32

    public static let none = TopicParts(bits: 0)

    @inlinable
    init(bits: UInt32) { self.bits = bits }

    @inlinable
    public init(_ topic: DeviceTopic) {
        bits = UInt32(topic.tenant.count) | UInt32(topic.device.count) << 8 | UInt32(topic.topicClass.rawValue) << 16
    }

    @inlinable
    public var topic: DeviceTopic? {
        guard bits != 0 else { return nil }
        return DeviceTopic(
            tenantCount: Int(bits & 0xFF), deviceCount: Int(bits >> 8 & 0xFF),
            topicClass: TopicClass(rawValue: UInt8(truncatingIfNeeded: bits >> 16)).unsafelyUnwrapped)
    }
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

    /// Whether `text` can be the id of a tenant or a device.
    public static func isID(_ text: String) -> Bool {
        (1...idBytesMax).contains(text.utf8.count) && text.utf8.allSatisfy(isIdByte)
    }

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
        // Eight bytes at a time as far as that goes.
        while index + 8 <= topic.count {
            let others = otherBytes(UInt64(littleEndian: topic.loadUnaligned(fromByteOffset: index, as: UInt64.self)))
            if others != 0 { return index + others.trailingZeroBitCount / 8 }
            index += 8
        }
        while index < topic.count, isIdByte(topic[index]) { index += 1 }
        return index
    }

    /// The upper bit of each byte that may not stand in an id, the first byte lowest. A byte below 0x80 plus
    /// 0x80 − `low` carries into its upper bit when it is `low` or more; so a range is what one sum says and another
    /// does not.
    @inlinable @inline(__always)
    static func otherBytes(_ bytes: UInt64) -> UInt64 {
        let every: UInt64 = 0x0101_0101_0101_0101
        let plain = bytes & (every &* 0x7F), lower = plain | (every &* 0x20)
        // From `low` to `high`, which are below 0x80.
        func within(_ bytes: UInt64, _ low: UInt64, _ high: UInt64) -> UInt64 {
            (bytes &+ every &* (0x80 - low)) & ~(bytes &+ every &* (0x7F - high))
        }
        let letters = within(lower, 0x61, 0x7A), digits = within(plain, 0x30, 0x3A)  // and :
        let signs = within(plain, 0x2D, 0x2E) | within(plain, 0x5F, 0x5F)  // - . _
        return ~((letters | digits | signs) & ~bytes) & (every &* 0x80)
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
        case 11 where isWord(rest, "certificate"): .certificateCommand
        case 12 where isWord(rest, "commands/ack"): .commandAck
        case 15 where isWord(rest, "shadow/reported"): .shadowReported
        case 19 where isWord(rest, "certificate/request"): .certificateRequest
        case 21 where isWord(rest, "certificate/installed"): .certificateInstalled
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
