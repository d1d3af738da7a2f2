import EventModel
import Synchronization

/// What may enter. Generous by default: the gate is there for a device that runs wild, not for a busy one.
public struct GateSettings: Sendable, Equatable {
    public var payloadBytesMax = 256 << 10
    /// What is kept of a payload beyond that.
    public var payloadBytesKept = 1 << 10
    public var messagesPerSecond = 1_000.0
    public var burst = 5_000
    /// Devices whose bucket and counts are remembered; about 120 bytes each.
    public var devicesTrackedMax = 1_000_000
    public init() {}
}

/// Where in a batch lie messages that are in the log already, by their offsets: nothing of them is recorded again.
package struct OwnMessages {
    /// What was published out of our log.
    var replays: Set<Int> = []
    /// Commands of ours.
    var echoes: Set<Int> = []

    package init() {}
}

/// A device that sent beyond its rate, and what the gate counted of it.
public struct LimitedDevice: Sendable, Equatable {
    public let tenant: String
    public let device: String
    public let accepted: UInt64
    public let rejected: UInt64
}

/// A device that sent without a live certificate.
public struct UncertifiedDevice: Sendable, Equatable {
    public let tenant: String
    public let device: String
    public let messages: UInt64
    /// When the last of them arrived, to the second. Without those that a broker had kept during our absence: they were
    /// sent earlier. 1970: there is no other.
    public let lastAt: Timestamp
}

public struct DeviceStatistics: Sendable, Equatable {
    public var accepted: UInt64
    public var rejected: UInt64
    /// Messages while it had no live certificate, whether they passed or not.
    public var withoutCertificate: UInt64
    /// Messages that the device may send at once now.
    public var tokensLeft: Double
}

/// What a pass of the gate found.
package struct GateTally {
    /// By raw value of `Verdict`.
    package var verdicts = [UInt64](repeating: 0, count: Verdict.allCases.count)
    /// Packet ids of suppressed redeliveries, in the order of arrival.
    package var redelivered: [UInt16] = []
    var echoes = 0
    var replays = 0
    /// Messages of devices without a live certificate, whether they passed or not.
    package var withoutCertificate: UInt64 = 0
    /// Nothing had to change: the batch that came in is the one to append.
    package var untouched = true
}

/// Takes the verdicts, live. Its caller's own, except for `statistics`, which any thread may ask for.
package final class Gate: Sendable {
    let settings: GateSettings
    /// Nil: certificates do not matter.
    let certificates: CertificateCheck?
    private let limiter: Mutex<RateLimiter>

    package init(_ settings: GateSettings, certificates: CertificateCheck? = nil) {
        self.settings = settings
        self.certificates = certificates
        limiter = Mutex(
            RateLimiter(
                tokensPerSecond: settings.messagesPerSecond, burst: settings.burst,
                devicesMax: settings.devicesTrackedMax))
    }

    func mostLimited(_ limit: Int) -> [LimitedDevice] {
        limiter.withLock { $0.highest(limit) { $0.rejected } }.map { address, entry in
            let (tenant, device) = Self.names(address)
            return LimitedDevice(tenant: tenant, device: device, accepted: entry.accepted, rejected: entry.rejected)
        }
    }

    /// - Parameter tenant: whose devices; nil: all.
    func mostWithoutCertificate(_ limit: Int, tenant: String?) -> [UncertifiedDevice] {
        guard certificates != nil else { return [] }
        let prefix = Array((tenant.map { "tenant/\($0)/device/" } ?? "").utf8)
        return limiter.withLock { $0.highest(limit, prefix: prefix) { UInt64($0.withoutCertificate) } }
            .map(Self.uncertified)
    }

    func lastWithoutCertificate(_ limit: Int) -> [UncertifiedDevice] {
        guard certificates != nil else { return [] }
        return limiter.withLock { $0.highest(limit) { UInt64($0.withoutCertificateAt) } }.map(Self.uncertified)
    }

    /// Nil: it is not remembered, or had one.
    func withoutCertificate(tenant: String, device: String) -> UncertifiedDevice? {
        let address = Array("tenant/\(tenant)/device/\(device)".utf8)
        let entry = limiter.withLock { limiter in address.withUnsafeBytes { limiter.entry($0) } }
        return entry.flatMap { $0.withoutCertificate > 0 ? Self.uncertified(address, $0) : nil }
    }

    private static func uncertified(_ address: [UInt8], _ entry: RateLimiter.Entry) -> UncertifiedDevice {
        let (tenant, device) = names(address)
        return UncertifiedDevice(
            tenant: tenant, device: device, messages: UInt64(entry.withoutCertificate),
            lastAt: Timestamp(seconds: Int64(entry.withoutCertificateAt)))
    }

    /// Of `tenant/{t}/device/{d}`.
    private static func names(_ address: [UInt8]) -> (tenant: String, device: String) {
        let parts = address.split(separator: UInt8(ascii: "/"))
        return (String(decoding: parts[1], as: UTF8.self), String(decoding: parts[3], as: UTF8.self))
    }

    /// Lets each device send, beside its burst, what its rate allows in `micros` of our absence: until `endCredit`.
    /// The rate is the device's, not that of our reading a backlog.
    func creditAbsence(micros: Int64) { limiter.withLock { $0.credit(micros: micros) } }

    func endCredit() { limiter.withLock { $0.endCredit() } }

    /// What arrives now was not sent during our absence.
    func endBacklog() { limiter.withLock { $0.readsBacklog = false } }

    func statistics(tenant: String, device: String, steadyMicros: Int64) -> DeviceStatistics? {
        let address = Array("tenant/\(tenant)/device/\(device)".utf8)
        return limiter.withLock { limiter in
            address.withUnsafeBytes { limiter.entry($0) }.map {
                DeviceStatistics(
                    accepted: $0.accepted, rejected: $0.rejected,
                    withoutCertificate: UInt64($0.withoutCertificate),
                    tokensLeft: limiter.tokens($0, at: steadyMicros))
            }
        }
    }

    /// Examines what arrived. Fills `outgoing` unless the tally says `untouched`, which is the ordinary case.
    /// The verdicts are true at the next place in the log: follow it by `endJudging`.
    /// - Parameters:
    ///   - filter: there only while redelivered messages may arrive.
    ///   - resumeEnd: offset in `incoming` from which on nothing is a redelivery.
    ///   - own: messages in `incoming` that came out of our log.
    ///   - steadyMicros: now, of a clock that is never set.
    package func examine(
        _ incoming: borrowing RecordBatch, filter: inout RedeliveryFilter?, resumeEnd: Int? = nil,
        own: OwnMessages = OwnMessages(), steadyMicros: Int64, into outgoing: inout RecordBatch
    ) -> GateTally {
        outgoing.removeAll()
        var tally = GateTally()
        var rejections = Rejections()
        let live = certificates?.beginJudging()
        limiter.withLock { limiter in
            incoming.withUnsafeBytes { bytes in
                var offset = 0
                while offset < bytes.count {
                    let record = RecordView(unchecked: bytes.baseAddress! + offset)
                    if offset == resumeEnd { filter?.close() }
                    let fate: Fate
                    if !own.replays.isEmpty, own.replays.contains(offset) {
                        filter?.note(record)
                        fate = .replay
                    } else if !own.echoes.isEmpty, own.echoes.contains(offset) {
                        filter?.note(record)
                        fate = .echo
                    } else {
                        fate = self.fate(of: record, &filter, steadyMicros, &limiter, live, &tally)
                    }
                    if tally.untouched, fate != .keep(.accepted) {
                        tally.untouched = false
                        Self.copy(bytes, upTo: offset, to: &outgoing)
                    }
                    switch fate {
                    case .keep(let verdict):
                        if record.kind == .message { tally.verdicts[Int(verdict.rawValue)] += 1 }
                        if !tally.untouched { outgoing.append(record, verdict: verdict) }
                    case .reject(let device):
                        tally.verdicts[Int(Verdict.rateLimited.rawValue)] += 1
                        rejections.add(record, device: device)
                    case .duplicate: tally.redelivered.append(record.packetID)
                    case .echo: tally.echoes += 1
                    case .replay: tally.replays += 1
                    }
                    offset += record.length
                }
            }
        }
        rejections.write(to: &outgoing)
        return tally
    }

    /// What was examined has its place in the log, or gets none now. On the thread that examined it.
    package func endJudging() { certificates?.endJudging() }

    /// Judges once more what has been examined and has not got its place in the log: a device may have lost its
    /// certificates meanwhile. Follow it by `endJudging`.
    /// - Returns: the former verdicts of messages that are refused now.
    func judgeAgain(_ batch: inout RecordBatch) -> [Verdict] {
        guard let certificates, let live = certificates.beginJudging(), certificates.refuses else { return [] }
        var former: [Verdict] = [], judged = RecordBatch()
        batch.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                var verdict = record.verdict
                if record.kind == .message, verdict == .accepted || verdict == .payloadTooLarge,
                    let topic = DeviceTopic(record.topic)
                {
                    let address = UnsafeRawBufferPointer(rebasing: record.topic[topic.address])
                    let seconds = UInt32(clamping: record.receivedAt.wholeSeconds)
                    if live.validity(of: address, DeviceHash(address), at: seconds) == nil {
                        former.append(verdict)
                        verdict = .certMismatch
                    }
                }
                judged.append(record, verdict: verdict)
                offset += record.length
            }
        }
        if !former.isEmpty { swap(&batch, &judged) }
        return former
    }

    private enum Fate: Equatable {
        case keep(Verdict)
        /// The range of the topic that names the device.
        case reject(Range<Int>)
        case duplicate, echo, replay
    }

    private func fate(
        of record: RecordView, _ filter: inout RedeliveryFilter?, _ steadyMicros: Int64,
        _ limiter: inout RateLimiter, _ live: LiveCertificates?, _ tally: inout GateTally
    ) -> Fate {
        guard record.kind == .message else { return .keep(.accepted) }
        if filter != nil, filter?.recognises(record) == true { return .duplicate }
        guard let topic = DeviceTopic(record.topic), topic.topicClass != .other || Self.isText(record.topic) else {
            return .keep(.badTopicFormat)
        }
        let address = UnsafeRawBufferPointer(rebasing: record.topic[topic.address]), hash = DeviceHash(address)
        let index = limiter.index(of: address, hash, at: steadyMicros)
        // A redelivery was sent earlier than it comes. Brokers set DUP themselves (MQTT 5.0, 3.3.1.1): no device can.
        guard record.flags.contains(.duplicate) || limiter.take(index, at: steadyMicros) else {
            return .reject(topic.address)
        }
        // Commands are not the device's own. Behind the rate limit: a revoked device must not fill the log.
        if let live, !topic.topicClass.isCommand,
            !limiter.isLive(index, address, hash, live, at: UInt32(clamping: record.receivedAt.wholeSeconds))
        {
            tally.withoutCertificate += 1
            if certificates?.refuses == true { return .keep(.certMismatch) }
        }
        if record.flags.contains(.truncated) { return .keep(.payloadTooLarge) }
        return .keep(topic.topicClass.isCommand ? .foreignCommand : .accepted)
    }

    /// What a broker should not have let pass (MQTT 5.0, 1.5.4).
    private static func isText(_ topic: UnsafeRawBufferPointer) -> Bool {
        String(validating: topic, as: UTF8.self) != nil && !topic.contains(0)
    }

    private static func copy(_ bytes: UnsafeRawBufferPointer, upTo end: Int, to batch: inout RecordBatch) {
        var offset = 0
        while offset < end {
            let record = RecordView(unchecked: bytes.baseAddress! + offset)
            batch.append(record, verdict: record.verdict)
            offset += record.length
        }
    }
}

extension RecordBatch {
    mutating func append(_ record: RecordView, verdict: Verdict) {
        append(
            kind: record.kind, verdict: verdict, flags: record.flags, receivedAt: record.receivedAt,
            packetID: record.packetID, broker: record.broker, topic: record.topic, properties: record.properties,
            payload: record.payload, originalPayloadLength: record.originalPayloadLength)
    }
}
