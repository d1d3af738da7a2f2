// Reruns a campaign under other rules: the real engine over an in-memory log. Devices answer as they did on record, as
// long after their command; people decide what they decided at the same times. A device that was never dispatched on
// record gives the answers of one that was, chosen by its name; the report counts these devices.
import CampaignRules
import Campaigns
import Deciding
import Decisions
import EventLog
import EventModel

/// The answer to `refold replay what-if --campaign N`.
public struct CampaignRerun: Sendable, Equatable {
    public struct Course: Sendable, Equatable {
        public var status: CampaignStatus
        public var endedAt: Timestamp?
        /// Who ended it, with the code and the reason on record.
        public var actor: String?
        public var code: String?
        public var reason: String?
        public var counts: CampaignCounts
        /// Devices that were dispatched, and how often.
        public var sentFor = 0
        public var commands = 0
        /// When the last one was sent for the first time.
        public var lastSentAt: Timestamp?
    }

    public let id: Int64
    public let tenantID: String
    public let name: String
    public let devices: Int
    public let startedAt: Timestamp?
    public let changes: [PlanChange]
    public let recorded: Course
    public let whatIf: Course
    /// Failed on record, and would not have been dispatched or would have succeeded.
    public let spared: [String]
    /// Succeeded on record, and would not have.
    public let lost: [String]
    /// Succeeded now and not on record.
    public let gained: [String]
    /// Devices whose answers are borrowed, for they were never dispatched.
    public let borrowed: Int
    public let caveats: [String]
}

extension WhatIf {
    /// Lets a campaign go again under changed rules. No changes: as a check, as it was.
    /// - Returns: nil: there is no such campaign in the range, or it was never started.
    /// - Throws: `LogError`, `WhatIfError` (a change makes no sense for this campaign).
    public static func rerun(
        campaign: Int64, _ changes: [PlanChange], over log: any LogSource, in range: Range<Position>
    ) throws -> CampaignRerun? {
        var record = RerunRecord(campaign: campaign)
        let reader = try log.reader(from: range.lowerBound), block = EventBlock(capacity: 1 << 20)
        while reader.position < range.upperBound, try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { view, position in
                if range.contains(position) { record.apply(view, position) }
            }
        }
        guard let created = record.created, record.startedAt != nil else { return nil }
        let changed = try PlanChange.apply(changes, to: created.event)
        let course = RerunCourse(record, changed)
        try course.run()
        return try course.report(changes)
    }
}

/// The made-up course of one campaign.
private final class RerunCourse {
    private enum Event {
        case step(RerunRecord.Step)
        case published([Delivery])
        case says(String, RerunRecord.Answer.Words, Position)
        case seen(String)
        case look
    }

    private let record: RerunRecord
    private let created: CampaignCreated
    private let log = ScratchLog()
    private let sender = Collector()
    private let clock: Clock
    private let engine: DeciderRuntime<CampaignState>
    private var queue: [Int64: [Event]] = [:]
    private var times: [Int64] = []
    private var donors: [String] = []
    private var attempts: [String: Int] = [:]
    private var firstSent: [String: Timestamp] = [:]
    private var commands = 0
    private var borrowed: Set<String> = []
    private var repeated: Set<String> = []
    private var refused: [String] = []

    init(_ record: RerunRecord, _ created: CampaignCreated) {
        (self.record, self.created) = (record, created)
        let clock = Clock(record.created?.at ?? Timestamp(microseconds: 0))
        self.clock = clock
        engine = DeciderRuntime<CampaignState>(
            writer: DecisionWriter(log), source: log, clock: { clock.now }, outbox: sender)
        donors = record.order.filter { !(record.devices[$0]?.begun.isEmpty ?? true) }
    }

    func run() throws {
        guard let startedAt = record.startedAt, let createdAt = record.created?.at else { return }
        var batch = RecordBatch()
        if let firmware = record.firmware[created.firmwareVersionID] {
            CampaignEvent.firmwareAdded(firmware).append(to: &batch, at: createdAt)
        }
        CampaignEvent.campaignCreated(created).append(to: &batch, at: createdAt)
        for start in stride(from: 0, to: record.order.count, by: targetsPerRecordMax) {
            let devices = Array(record.order[start..<min(start + targetsPerRecordMax, record.order.count)])
            CampaignEvent.campaignTargets(
                CampaignTargets(
                    campaignID: record.id, tenantID: created.tenantID, firstID: Int64(start) + 1, devices: devices)
            ).append(to: &batch, at: createdAt)
        }
        try log.append(&batch)
        try engine.resume()
        for (at, step) in record.steps { put(at.microseconds, .step(step)) }
        if created.plan?.delivery == .onConnect {
            for name in record.order {
                for at in record.devices[name]?.seen ?? [] where at >= startedAt { put(at.microseconds, .seen(name)) }
            }
        }
        // The campaign's own deadline, and once more for what it brings about.
        let limit = Double(created.plan?.timeouts.campaignSeconds ?? 0) * 2e6 + 400 * 86_400e6
        let end = startedAt.microseconds + Int64(min(limit, 1e15))
        while let at = next(), at <= end {
            clock.now = max(clock.now, Timestamp(microseconds: at))
            for event in queue.removeValue(forKey: at) ?? [] { try happen(event) }
            try engine.step()
            send()
            // Nil: archived. What is still to be decided about it is refused, which is reported.
            let summary = engine.state?.summary(record.id)
            let isOver = summary.map { $0.status == .completed || $0.status == .aborted } ?? true
            if isOver, summary?.counts.inFlight ?? 0 == 0, !queue.values.contains(where: Self.matters) { break }
            // Looking more often than the daemon does would find nothing more.
            if let wake = engine.nextDeadline() {
                put(max(wake.microseconds, clock.now.microseconds + 50_000), .look)
            }
        }
    }

    /// Whether the campaign's devices or people have still something to say.
    private static func matters(_ events: [Event]) -> Bool {
        events.contains { event in
            switch event {
            case .says, .published, .step: true
            case .seen, .look: false
            }
        }
    }

    // MARK: time

    private func put(_ at: Int64, _ event: Event) {
        if queue[at] == nil {
            queue[at] = []
            // A binary heap, the earliest first.
            times.append(at)
            var child = times.count - 1
            while child > 0, times[(child - 1) / 2] > times[child] {
                times.swapAt(child, (child - 1) / 2)
                child = (child - 1) / 2
            }
        }
        queue[at]!.append(event)
    }

    private func next() -> Int64? {
        while let first = times.first {
            let last = times.removeLast()
            if !times.isEmpty {
                times[0] = last
                var parent = 0
                while true {
                    var least = parent
                    for child in [2 * parent + 1, 2 * parent + 2] where child < times.count {
                        if times[child] < times[least] { least = child }
                    }
                    if least == parent { break }
                    times.swapAt(least, parent)
                    parent = least
                }
            }
            if queue[first] != nil { return first }
        }
        return nil
    }

    // MARK: what happens

    private func happen(_ event: Event) throws {
        switch event {
        case .step(.started):
            try command(.start(campaign: record.id))
        case .step(.decided(let command)): try self.command(command)
        case .published(let commands): engine.note(commands)
        case .says(let device, let words, let command): try say(device, words, command)
        case .seen(let device): try message(device, "heartbeat", Array("{}".utf8))
        case .look: break
        }
    }

    private func command(_ command: CampaignCommand) throws {
        let request = CommandRequest(tenantID: created.tenantID, actor: "as recorded", command: command)
        if case .rejected(_, _, let reason) = try engine.execute(request) {
            refused.append("\(command.name): \(reason)")
        }
    }

    private func send() {
        for command in sender.take() where !command.isRemoval {
            let attempt = attempts[command.deviceID, default: 0], now = clock.now.microseconds
            attempts[command.deviceID] = attempt + 1
            commands += 1
            if firstSent[command.deviceID] == nil { firstSent[command.deviceID] = clock.now }
            guard let (device, number) = answering(command.deviceID, attempt) else {
                put(now + 50_000, .published([command]))
                continue
            }
            put(now + max(1, device.publishedAfter[number] ?? 50_000), .published([command]))
            for answer in device.answers[number] {
                put(now + max(1, answer.after), .says(command.deviceID, answer.words, command.id))
            }
        }
    }

    /// Whose answers it gives, and to which attempt of that one's.
    private func answering(_ name: String, _ attempt: Int) -> (RerunRecord.Device, Int)? {
        guard var device = record.devices[name] else { return nil }
        if device.begun.isEmpty {
            guard !donors.isEmpty else { return nil }
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325
            for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
            device = record.devices[donors[Int((hash ^ (hash >> 33)) % UInt64(donors.count))]] ?? device
            borrowed.insert(name)
        } else if attempt >= device.begun.count {
            repeated.insert(name)
        }
        return (device, min(attempt, device.begun.count - 1))
    }

    private func say(_ device: String, _ words: RerunRecord.Answer.Words, _ command: Position) throws {
        switch words {
        case .report(let report, let saysCommand):
            let word =
                switch report {
                case .downloading: "DOWNLOADING"
                case .installing: "INSTALLING"
                case .success: "SUCCESS"
                case .failed: "FAILED"
                }
            let id = saysCommand ? ",\"command_id\":\(command.rawValue)" : ""
            try message(
                device, "ota/status", Array("{\"campaign_id\":\(record.id),\"status\":\"\(word)\"\(id)}".utf8))
        case .acknowledgement(let status):
            let text = status.filter { $0 != "\"" && $0 != "\\" && !$0.isNewline }
            try message(
                device, "commands/ack", Array("{\"command_id\":\"\(command.rawValue)\",\"status\":\"\(text)\"}".utf8))
        case .version(let topic, let payload): try message(device, topic, payload)
        }
    }

    private func message(_ device: String, _ suffix: String, _ payload: [UInt8]) throws {
        var batch = RecordBatch()
        let topic = Array("tenant/\(created.tenantID)/device/\(device)/\(suffix)".utf8)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        topic.withUnsafeBytes { topic in
            payload.withUnsafeBytes { payload in
                batch.append(
                    kind: .message, verdict: .accepted, flags: [], receivedAt: clock.now, packetID: 1, broker: none,
                    topic: topic, properties: none, payload: payload)
            }
        }
        try log.append(&batch)
    }

    // MARK: what came of it

    func report(_ changes: [PlanChange]) throws -> CampaignRerun {
        var history = RerunRecord(campaign: record.id)
        let reader = try log.reader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 18) { block.forEach { history.apply($0, $1) } }
        var whatIf = Self.course(history)
        (whatIf.sentFor, whatIf.commands, whatIf.lastSentAt) = (firstSent.count, commands, firstSent.values.max())
        let recorded = Self.course(record)
        func status(_ record: RerunRecord, _ name: String) -> OTADeviceStatus.Count {
            record.devices[name]?.part.status.count ?? .pending
        }
        let names = record.order
        return CampaignRerun(
            id: record.id, tenantID: created.tenantID, name: created.name, devices: names.count,
            startedAt: record.startedAt, changes: changes, recorded: recorded, whatIf: whatIf,
            spared: names.filter { status(record, $0) == .failed && status(history, $0) != .failed },
            lost: names.filter { status(record, $0) == .succeeded && status(history, $0) != .succeeded },
            gained: names.filter { status(record, $0) != .succeeded && status(history, $0) == .succeeded },
            borrowed: borrowed.count, caveats: caveats(recorded))
    }

    private static func course(_ record: RerunRecord) -> CampaignRerun.Course {
        var counts = CampaignCounts()
        for device in record.devices.values {
            switch device.part.status.count {
            case .pending: counts.pending += 1
            case .inFlight: counts.inFlight += 1
            case .succeeded: counts.succeeded += 1
            case .failed: counts.failed += 1
            case .skipped: counts.skipped += 1
            }
        }
        let last = record.statuses.last
        var course = CampaignRerun.Course(
            status: last.flatMap { CampaignStatus(rawValue: $0.event.after) } ?? .created, counts: counts)
        if course.status == .completed || course.status == .aborted {
            (course.endedAt, course.actor) = (last?.at, last?.event.actor)
            (course.code, course.reason) = (last?.event.code, last?.event.reason)
        }
        course.sentFor = record.devices.values.count { !$0.begun.isEmpty }
        course.commands = record.devices.values.reduce(0) { $0 + $1.begun.count }
        course.lastSentAt = record.devices.values.compactMap(\.begun.first).max()
        return course
    }

    private func caveats(_ recorded: CampaignRerun.Course) -> [String] {
        var caveats: [String] = []
        if !borrowed.isEmpty {
            caveats.append(
                "\(borrowed.count) devices were never sent for on record: each answers as one does that was, drawn by "
                    + "its name")
        }
        if donors.isEmpty { caveats.append("no device was sent for on record: none answers here") }
        if !repeated.isEmpty {
            caveats.append(
                "\(repeated.count) devices have more attempts than on record: they answer as to the last one")
        }
        if recorded.counts.inFlight > 0 {
            caveats.append(
                "on record \(recorded.counts.inFlight) devices are still in flight: they say no more here than there")
        }
        for text in refused { caveats.append("what was decided on record could not be here: \(text)") }
        caveats.append("other campaigns are left out: here no device is busy with another")
        return caveats
    }

    /// `@unchecked Sendable`: of one thread, as the engine is.
    private final class Clock: @unchecked Sendable {
        var now: Timestamp
        init(_ now: Timestamp) { self.now = now }
    }

    /// `@unchecked Sendable`: of one thread, as the engine is.
    private final class Collector: Outbox, @unchecked Sendable {
        private var commands: [Delivery] = []
        func send(_ commands: [Delivery]) { self.commands += commands }
        func withdraw(subject: String) { commands.removeAll { !$0.isRemoval } }
        func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {}
        func take() -> [Delivery] {
            defer { commands = [] }
            return commands
        }
    }
}
