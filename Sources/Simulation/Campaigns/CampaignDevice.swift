import Campaigns
import Deciding
import Decisions
import EventModel

/// What a device says on its way to the log.
struct DeviceMessage {
    enum Content {
        case report(campaign: Int64, word: CampaignRecount.Word, command: UInt64?, isText: Bool)
        case acknowledgement(command: UInt64, status: String)
        case shadow(version: String, number: Int)
        case telemetry(version: String)
        case heartbeat
        case connected
        /// Nothing that anybody understands.
        case noise
    }
    let tenant: String
    let device: String
    let content: Content

    private var suffix: String {
        switch content {
        case .report: "ota/status"
        case .acknowledgement: "commands/ack"
        case .shadow: "shadow/reported"
        case .telemetry, .noise: "telemetry"
        case .heartbeat: "heartbeat"
        case .connected: "connection"
        }
    }

    private var payload: String {
        switch content {
        case .report(let campaign, let word, let command, let isText):
            "{\"campaign_id\":\(campaign),\"status\":\"\(word.rawValue)\""
                + (command.map { isText ? ",\"command_id\":\"\($0)\"" : ",\"command_id\":\($0)" } ?? "") + "}"
        case .acknowledgement(let command, let status): "{\"command_id\":\"\(command)\",\"status\":\"\(status)\"}"
        case .shadow(let version, let number):
            "{\"version\":\(number),\"reported\":{\"firmware_version\":\"\(version)\"}}"
        case .telemetry(let version): "{\"metrics\":{\"firmware_version\":\"\(version)\",\"t\":1}}"
        case .heartbeat: "{}"
        case .connected: "{\"status\":\"CONNECTED\"}"
        case .noise: "{\"metrics\":7"
        }
    }

    func append(to batch: inout RecordBatch, at time: Timestamp) {
        let topic = Array("tenant/\(tenant)/device/\(device)/\(suffix)".utf8), payload = Array(payload.utf8)
        topic.withUnsafeBytes { topic in
            payload.withUnsafeBytes { payload in
                batch.append(
                    kind: .message, verdict: .accepted, flags: [], receivedAt: time, packetID: 1,
                    broker: UnsafeRawBufferPointer(start: nil, count: 0), topic: topic,
                    properties: UnsafeRawBufferPointer(start: nil, count: 0), payload: payload)
            }
        }
    }
}

/// How a device takes an update: what it says, and how many seconds after the command.
struct DeviceBehaviour {
    enum Kind: CaseIterable {
        case good, failsAtDownload, failsAtInstall, silent, refuses, stuckAtDownload, stuckAtInstall, late
        case contradictory, contradictoryOtherwise, flipping, unverified, rolledBack, wordless
    }
    /// Whether it repeats the command's id in its reports.
    enum Identifying: CaseIterable { case no, number, text }

    let kind: Kind
    let identifying: Identifying
    let plan: CampaignPlan

    /// - Parameter draw: a random number from 0 up to 1.
    func messages(
        _ command: Delivery, _ draw: @escaping () -> Double
    ) -> [(after: Double, message: DeviceMessage)] {
        var course = UpdateCourse(behaviour: self, command: command, draw: draw)
        if course.acknowledge(), course.download(), course.install() { course.finish() }
        return kind == .silent ? [] : course.found
    }
}

/// The course of an update on a device. Each stage returns whether the next one begins.
private struct UpdateCourse {
    let behaviour: DeviceBehaviour
    let command: Delivery
    let draw: () -> Double

    private(set) var found: [(after: Double, message: DeviceMessage)] = []
    /// Seconds since the command.
    private var at = 0.0

    init(behaviour: DeviceBehaviour, command: Delivery, draw: @escaping () -> Double) {
        (self.behaviour, self.command, self.draw) = (behaviour, command, draw)
    }

    private var kind: DeviceBehaviour.Kind { behaviour.kind }
    private var timeouts: CampaignPlan.Timeouts { behaviour.plan.timeouts }

    private mutating func send(_ content: DeviceMessage.Content) {
        found.append((at, DeviceMessage(tenant: command.tenantID, device: command.deviceID, content: content)))
    }

    private mutating func report(_ word: CampaignRecount.Word) {
        let identifying = behaviour.identifying
        send(
            .report(
                campaign: command.campaign, word: word,
                command: identifying == .no ? nil : command.id.rawValue, isText: identifying == .text))
    }

    private mutating func pass(_ limit: Double, _ share: Double = 0.6) { at += limit * share * draw() }

    private mutating func show(_ version: String) {
        pass(timeouts.verifySeconds)
        let shadow = DeviceMessage.Content.shadow(version: version, number: Int(at) + 1)
        send(behaviour.plan.verify == .telemetry ? .telemetry(version: version) : shadow)
    }

    mutating func acknowledge() -> Bool {
        pass(timeouts.acknowledgeSeconds, kind == .late ? 3 : 0.6)
        if draw() < 0.3 { send(.acknowledgement(command: command.id.rawValue, status: "ACCEPTED")) }
        if kind == .refuses { send(.acknowledgement(command: command.id.rawValue, status: "REJECTED")) }
        return kind != .silent && kind != .refuses
    }

    mutating func download() -> Bool {
        if kind == .stuckAtDownload {
            for _ in 0..<3 {
                report(.downloading)
                pass(timeouts.downloadSeconds, 0.9)
            }
            return false
        }
        if kind != .wordless { report(.downloading) }
        pass(timeouts.downloadSeconds, kind == .late ? 3 : 0.8)
        if draw() < 0.2 { report(.downloading) }
        if kind == .failsAtDownload { report(.failed) }
        return kind != .failsAtDownload
    }

    mutating func install() -> Bool {
        if kind != .wordless { report(.installing) }
        if kind == .flipping {
            for _ in 0..<4 {
                pass(timeouts.installSeconds)
                report(.downloading)
                pass(timeouts.downloadSeconds)
                report(.installing)
            }
            if draw() < 0.5 { return false }
        }
        if kind == .stuckAtInstall { return false }
        pass(timeouts.installSeconds, kind == .late ? 3 : 0.8)
        return true
    }

    mutating func finish() {
        switch kind {
        case .failsAtInstall: report(.failed)
        case .contradictory:
            report(.success)
            pass(10)
            report(.failed)
        case .contradictoryOtherwise:
            report(.failed)
            pass(10)
            report(.success)
            show(String(command.version))
        case .unverified: report(.success)
        case .rolledBack:
            report(.success)
            if draw() < 0.5 { show(String(command.version)) }
            show("0.0.1")
        default:
            if draw() < 0.2 { show(String(command.version)) }  // it restarts sooner than it reports
            report(.success)
            show(String(command.version))
        }
    }
}

extension Delivery {
    var campaign: Int64 { campaignID ?? 0 }

    /// As a device reads it.
    fileprivate var version: Substring {
        let name = "\"version\":\"", text = String(decoding: payload, as: UTF8.self)
        return text.ranges(of: name).first.map { text[$0.upperBound...].prefix { $0 != "\"" } } ?? ""
    }
}

/// Carries commands as the real one does: keeps them while the broker is away, forgets them with its process.
/// `@unchecked Sendable`: a world lives on one thread.
final class CampaignCarrier: Outbox, @unchecked Sendable {
    private(set) var waiting: [Delivery] = []
    /// Handed over and not taken back since this process began.
    private(set) var held: Set<CampaignRecount.Delivery> = []
    /// A planted bug.
    var loses: () -> Bool = { false }
    /// Told of every command that is handed over.
    var handed: (Delivery) -> Void = { _ in }

    func send(_ commands: [Delivery]) {
        for command in commands {
            if loses() { continue }
            handed(command)
            if !command.isRemoval { held.insert(delivery(command)) }
            waiting.append(command)
        }
    }

    func withdraw(subject: String) {
        waiting.removeAll { $0.subject == subject && !$0.isRemoval }
        held = held.filter { "campaign:\($0.campaign)" != subject }
    }

    func onAcknowledged(_ body: @escaping @Sendable ([Delivery]) -> Void) {}

    func take() -> [Delivery] {
        defer { waiting = [] }
        return waiting
    }

    func restart() {
        waiting = []
        held = []
    }

    func delivery(_ command: Delivery) -> CampaignRecount.Delivery {
        .init(campaign: command.campaign, device: command.deviceID, command: command.id.rawValue)
    }
}
