import CampaignRules
import Campaigns
import Decisions
import Decoding
import EventModel

/// What is on record of one campaign that another course of it needs: how it was made, what people decided, and what
/// each device answered to each attempt, by how long after it.
struct RerunRecord {
    /// A device's words, `after` its attempt began.
    struct Answer {
        enum Words {
            case report(TargetProgress.Report, saysCommand: Bool)
            case acknowledgement(status: String)
            /// A message in which it shows its version: the topic's end and the payload.
            case version(topic: String, payload: [UInt8])
        }
        var after: Int64
        var words: Words
    }

    struct Device {
        var part: TargetProgress
        /// When each attempt began, and how long the broker took.
        var begun: [Timestamp] = []
        var publishedAfter: [Int64?] = []
        var answers: [[Answer]] = []
        var version: [UInt8] = []
        /// When it showed itself, at most once a minute.
        var seen: [Timestamp] = []
    }

    enum Step {
        case started
        /// A person's decision.
        case decided(CampaignCommand)
    }

    let id: Int64
    var firmware: [Int64: FirmwareAdded] = [:]
    var created: (event: CampaignCreated, at: Timestamp)?
    var order: [String] = []
    var devices: [String: Device] = [:]
    var steps: [(at: Timestamp, step: Step)] = []
    var statuses: [(position: Position, at: Timestamp, event: CampaignStatusChanged)] = []
    var startedAt: Timestamp?
    var end: Timestamp?
    /// Microseconds that the log's clock has stepped by so far.
    private var stepped: Int64 = 0

    private let decoder = FactDecoder()

    init(campaign: Int64) { id = campaign }

    mutating func apply(_ record: RecordView, _ position: Position) {
        let at = time(record)
        end = at
        switch record.kind {
        case .decision: decide(record, position)
        case .message:
            guard created != nil, record.verdict == .accepted, !record.flags.contains(.retained),
                let topic = DeviceTopic(record.topic),
                record.topic[topic.tenant].elementsEqual(created!.event.tenantID.utf8)
            else { return }
            let name = String(decoding: record.topic[topic.device], as: UTF8.self)
            guard var device = devices.removeValue(forKey: name) else { return }
            hear(&device, record, topic, position)
            devices[name] = device
        case .system:
            guard record.topicString == LogSchema.clockStepped.rawValue,
                let step = try? record.decoded(ClockStepped.self)
            else { return }
            stepped = Int64(storedMicroseconds: stepped.saturatingAdding(step.movesTimersBy))
        default: break
        }
    }

    /// Steady time: steps of the log's clock are no part of how long anything took.
    private func time(_ record: RecordView) -> Timestamp { record.receivedAt.moved(by: -stepped) }

    private mutating func decide(_ record: RecordView, _ position: Position) {
        let at = time(record)
        // What this version does not understand stops whoever decides; a question about one campaign goes on.
        guard let event = try? CampaignEvent(record, at: position) else { return }
        switch event {
        case .firmwareAdded(let event): firmware[event.id] = event
        case .campaignCreated(let event) where event.id == id: created = (event, at)
        case .campaignTargets(let event) where event.campaignID == id:
            for name in event.devices where devices[name] == nil {
                order.append(name)
                devices[name] = Device(part: TargetProgress(targetedAt: position))
            }
        case .statusChanged(let schema, let event) where event.campaignID == id:
            statuses.append((position, at, event))
            if schema == .campaignStarted, startedAt == nil {
                startedAt = at
                steps.append((at, .started))
            } else if event.actor != EngineActor.name, event.actor != AbortRule.actor {
                if let command = Self.command(schema, event) { steps.append((at, .decided(command))) }
            }
        case .dispatched(let event) where event.campaignID == id:
            for (name, seen) in zip(event.devices, event.seen) {
                let effect = devices[name]?.part.dispatch(seen: Position(seen), at: position) ?? .none
                guard effect != .none else { continue }
                devices[name]?.begun.append(at)
                devices[name]?.publishedAfter.append(nil)
                devices[name]?.answers.append([])
            }
        case .published(let event) where event.campaignID == id:
            for batch in event.batches { publish(batch, at) }
        case .devicesEnded(let event) where event.campaignID == id:
            guard let status = OTADeviceStatus(rawValue: event.status) else { return }
            for (name, seen) in zip(event.devices, event.seen) {
                _ = devices[name]?.part.end(
                    as: status, kind: event.kind.flatMap(OTAFailureKind.init), seen: Position(seen), at: position)
            }
        default: break
        }
    }

    private static func command(_ schema: CampaignSchema, _ event: CampaignStatusChanged) -> CampaignCommand? {
        switch schema {
        case .campaignPaused: .pause(campaign: event.campaignID, reason: event.reason)
        case .campaignResumed: .resume(campaign: event.campaignID)
        case .campaignAborted: .abort(campaign: event.campaignID, reason: event.reason)
        case .campaignRetried:
            .retryFailed(campaign: event.campaignID, kinds: event.kinds?.compactMap(OTAFailureKind.init))
        default: nil
        }
    }

    private mutating func publish(_ batch: CampaignPublished.Batch, _ at: Timestamp) {
        for name in batch.devices ?? order {
            guard let device = devices[name], device.part.command == Position(batch.command),
                let last = device.begun.last
            else { continue }
            devices[name]!.publishedAfter[device.begun.count - 1] = at.microseconds - last.microseconds
        }
    }

    // MARK: devices

    private mutating func hear(
        _ device: inout Device, _ record: RecordView, _ topic: DeviceTopic, _ position: Position
    ) {
        let at = time(record)
        if !topic.topicClass.isCommand, device.seen.count < 10_000,
            at.microseconds - (device.seen.last?.microseconds ?? 0) >= 60_000_000
        {
            device.seen.append(at)
        }
        switch topic.topicClass {
        case .otaStatus:
            guard case .otaStatus(let report) = decoder.decode(record, topic: topic), report.campaignID == id else {
                return
            }
            let words: TargetProgress.Report =
                switch report.status {
                case .downloading: .downloading
                case .installing: .installing
                case .success: .success
                case .failed: .failed
                }
            let command = report.commandID.map { Position($0) }
            let verifies = created?.event.plan?.verify != nil
            _ = device.part.apply(words, command: command, verifies: verifies, at: position)
            add(.report(words, saysCommand: command != nil), of: command, to: &device, at)
        case .commandAck:
            guard case .commandAck(let ack) = decoder.decode(record, topic: topic),
                let command = UInt64(String(decoding: ack.commandID, as: UTF8.self)),
                device.part.command == Position(command)
            else { return }
            add(.acknowledgement(status: String(decoding: ack.status, as: UTF8.self)), of: nil, to: &device, at)
        case .shadowReported, .telemetry:
            let payload = Array(record.payload)
            guard !device.begun.isEmpty, let version = Self.versionText(payload), version != device.version
            else { return }
            device.version = version
            let suffix = topic.topicClass == .telemetry ? "telemetry" : "shadow/reported"
            add(.version(topic: suffix, payload: payload), of: nil, to: &device, at)
        default: break
        }
    }

    /// What stands in the payload from `"firmware_version"` on, for as long as a version may be: enough to see whether
    /// it has changed.
    private static func versionText(_ payload: [UInt8]) -> [UInt8]? {
        let name = Array("\"firmware_version\"".utf8)
        guard payload.count > name.count else { return nil }
        for start in 0...(payload.count - name.count) where payload[start] == name[0] {
            if payload[start..<(start + name.count)].elementsEqual(name) {
                return Array(payload[start...].prefix(name.count + 120).prefix { $0 != 0x2C && $0 != 0x7D })
            }
        }
        return nil
    }

    /// To the attempt that it answers: the one with its command, or the last.
    private func add(_ words: Answer.Words, of command: Position?, to device: inout Device, _ at: Timestamp) {
        guard let last = device.begun.last else { return }
        // Of an older attempt: it is part of that one's answers no more than its delay can be told.
        if let command, let current = device.part.command, command < current { return }
        device.answers[device.answers.count - 1].append(
            Answer(after: at.microseconds - last.microseconds, words: words))
    }
}
