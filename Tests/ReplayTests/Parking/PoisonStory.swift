import Decisions
import EventLog
import EventModel
import Foundation
import Primitives
import ProjectionTestSupport
import Synchronization

/// A random history in which everything meets everything: few devices of two tenants with the same ids, campaigns that
/// are created, aimed and started among the reports, firmware, connections, refused and broken messages.
struct PoisonStory {
    private(set) var batches: [RecordBatch] = []
    private var random: SeededRandom
    private var jobs = JobChaos()
    private var campaigns: Int64 = 0
    private var firmware: Int64 = 0
    private var targets: Int64 = 0

    init(seed: UInt64, count: Int) {
        random = SeededRandom(seed: seed &* 7919 &+ 17)
        while batches.count < count { add() }
    }

    private mutating func add() {
        let tenant = random.chance(0.7) ? "acme" : "b.corp", device = "d\(random.below(5))"
        let rest: String, payload: String
        switch random.below(30) {
        case 0..<4: (rest, payload) = ("telemetry", #"{"metrics":{"t\#(random.below(3))":\#(random.below(9))}}"#)
        case 4: (rest, payload) = ("heartbeat", "{}")
        case 5: (rest, payload) = ("shadow/reported", #"{"version":\#(random.below(9)),"reported":{"x":1}}"#)
        case 6: (rest, payload) = ("telemetry", #"{"metrics":"#)
        case 7, 8:
            let status = random.pick(["CONNECTED", "DISCONNECTED", "CONNECTION_LOST"])
            (rest, payload) = ("connection", #"{"status":"\#(status)"}"#)
        case 9..<19:
            let status = random.pick(["DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"])
            (rest, payload) = ("ota/status", #"{"campaign_id":\#(1 + random.below(5)),"status":"\#(status)"}"#)
        case 19: return connection()
        case 27...:
            let (schema, event) = jobs.decide(at: UInt64(batches.count), using: &random)
            return append(.decision, schema.rawValue, json(event))
        case 24..<27:
            let (schema, event) = CertificateChaos.decide(using: &random)
            return append(.decision, schema.rawValue, json(event))
        default: return decide()
        }
        let broker = random.chance(0.8) ? "main" : "second"
        append(.message, "tenant/\(tenant)/device/\(device)/\(rest)", payload, broker: broker)
    }

    private mutating func connection() {
        var event = BrokerEvent(clientID: "c\(random.below(3))")
        event.reason = "r"
        let schema = random.pick(BrokerEvent.Schema.allCases)
        append(.connection, schema.rawValue, json(event), broker: random.chance(0.5) ? "main" : "second")
    }

    private mutating func decide() {
        let known = 1 + Int64(random.below(5)), tenant = known % 2 == 1 ? "acme" : "b.corp"
        switch random.below(6) {
        case 0:
            firmware += 1
            append(
                .decision, CampaignSchema.firmwareAdded.rawValue,
                json(
                    FirmwareAdded(
                        id: firmware, tenantID: tenant, version: "\(firmware)", fileURL: "u", actor: "ann")))
        case let choice where choice == 1 || choice == 2 && campaigns < 5:
            campaigns += 1
            append(
                .decision, CampaignSchema.campaignCreated.rawValue,
                json(
                    CampaignCreated(
                        id: campaigns, tenantID: campaigns % 2 == 1 ? "acme" : "b.corp", name: "c\(campaigns)",
                        firmwareVersionID: 1, rolloutStrategy: "linear", totalDevices: 5, actor: "ann")))
        case 2, 3, 4:
            guard campaigns > 0 else { return }
            let id = 1 + Int64(random.below(Int(campaigns)))
            let devices = (0..<5).filter { _ in random.chance(0.6) }.map { "d\($0)" }
            append(
                .decision, CampaignSchema.campaignTargets.rawValue,
                json(
                    CampaignTargets(
                        campaignID: id, tenantID: id % 2 == 1 ? "acme" : "b.corp", firstID: 1000 + targets,
                        devices: devices)))
            targets += 10
        default:
            let schema = random.pick([
                CampaignSchema.campaignStarted, .campaignPaused, .campaignResumed, .campaignAborted,
            ])
            append(
                .decision, schema.rawValue,
                json(
                    CampaignStatusChanged(
                        campaignID: known, tenantID: tenant, before: "CREATED", after: "RUNNING", actor: "ann")))
        }
    }

    private func json(_ event: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return String(decoding: try! encoder.encode(event), as: UTF8.self)
    }

    private mutating func append(_ kind: EventKind, _ topic: String, _ payload: String, broker: String = "") {
        var batch = RecordBatch()
        // Several events have one time: what came first is known by its position alone.
        let at = Timestamp(microseconds: 1_772_352_000_000_000 + Int64(batches.count / 4) * 1_000_000)
        let parts = [Array(broker.utf8), Array(topic.utf8), Array(payload.utf8)]
        parts[0].withUnsafeBytes { broker in
            parts[1].withUnsafeBytes { topic in
                parts[2].withUnsafeBytes { payload in
                    batch.append(
                        kind: kind, verdict: .accepted, flags: RecordFlags(qos: 1), receivedAt: at, packetID: 1,
                        broker: broker, topic: topic, properties: UnsafeRawBufferPointer(start: nil, count: 0),
                        payload: payload)
                }
            }
        }
        batches.append(batch)
    }
}

/// A story as a log that grows when it is told to, in commits of random size.
final class StoryLog: LogSource {
    private let commits: [(base: Position, batch: RecordBatch)]
    private let told: Mutex<UInt64>
    let count: UInt64

    init(_ story: PoisonStory, seed: UInt64, commitEventsMax: Int) {
        var random = SeededRandom(seed: seed), commits: [(base: Position, batch: RecordBatch)] = [], next = 0
        while next < story.batches.count {
            let end = min(story.batches.count, next + 1 + random.below(commitEventsMax))
            var batch = RecordBatch()
            for event in story.batches[next..<end] { batch.append(event) }
            commits.append((Position(UInt64(next)), batch))
            next = end
        }
        self.commits = commits
        count = UInt64(next)
        told = Mutex(0)
    }

    /// Makes about so many events more durable; returns the last position.
    func tell(_ events: Int) -> Position {
        told.withLock { told in
            let wanted = min(count, told + UInt64(max(1, events)))
            told =
                commits.first { $0.base.rawValue + UInt64($0.batch.count) >= wanted }
                .map { $0.base.rawValue + UInt64($0.batch.count) } ?? count
            return Position(told - 1)
        }
    }

    var durableCount: UInt64 { told.withLock { $0 } }
    func waitForDurable(
        beyond count: UInt64, timeoutMilliseconds: Int, unless stop: () -> Bool
    ) -> UInt64 {
        // At most 3 ms: the story appends from the same test.
        for _ in 0..<min(3, max(1, timeoutMilliseconds)) where durableCount <= count && !stop() { usleep(1_000) }
        return durableCount
    }
    func reader(from position: Position) throws -> any LogReader { Reader(self, position) }

    private final class Reader: LogReader {
        private let log: StoryLog
        private(set) var position: Position

        init(_ log: StoryLog, _ position: Position) {
            self.log = log
            self.position = position
        }

        func read(into block: EventBlock, atLeast byteCount: Int) throws -> Bool {
            block.removeAll(at: position)
            let end = log.durableCount
            while position.rawValue < end, block.byteCount < byteCount || block.isEmpty {
                let commit = log.commits.last { $0.base <= position }!
                if block.isEmpty { block.removeAll(at: commit.base) }
                let done = block.append(
                    base: commit.base, count: commit.batch.count, byteCount: commit.batch.byteCount
                ) { room in
                    commit.batch.withUnsafeBytes { room.copyMemory(from: $0) }
                    return true
                }
                precondition(done, "no record")
                position = block.end
            }
            return !block.isEmpty
        }
    }
}
