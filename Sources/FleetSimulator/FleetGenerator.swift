import EventModel
import Primitives

/// One publish of a device.
public struct FleetMessage: Sendable {
    /// Place in the generator's sequence; nil for what a connection or a command brought about.
    public var index: Int?
    public var device: Int
    public var kind: MessageKind
    public var topic: String
    public var payload: [UInt8]
    /// The device's own counter; 0 for connection messages.
    public var seq: Int64 = 0
    /// Set when the message is malformed on purpose.
    public var defect: Defect?
    /// The same bytes were sent before.
    public var isDuplicate = false
}

/// What the fleet does next.
public enum FleetStep: Sendable {
    case publish(FleetMessage)
    /// The device goes away and comes back after `offlineMillis`; `orderly` says whether it says goodbye.
    case leave(device: Int, orderly: Bool, offlineMillis: Int)
}

/// A fleet's messages as a pure sequence: the same seed and shape give the same topics and payloads, apart from `ts`,
/// which is the moment that the caller names. No clock, no I/O, no hash order.
public struct FleetGenerator: Sendable {
    public let shape: FleetShape
    /// Messages given out so far.
    public private(set) var count = 0
    private let seed: UInt64
    private var random: SeededRandom
    private var devices: [DeviceState]
    /// Comes at once; never more than three steps.
    private var queued: [FleetStep] = []
    private var duplicates: [(due: Int, message: FleetMessage)] = []

    struct DeviceState: Sendable {
        var seq: Int64 = 0
        var shadowVersion: Int64 = 0
        var temperature: Int64 = 2150  // hundredths of a degree
        var battery: Int64 = 100
        var firmware: String?
    }

    public init(seed: UInt64, shape: FleetShape) {
        self.shape = shape
        self.seed = seed
        random = SeededRandom(seed: seed)
        devices = Array(repeating: DeviceState(), count: shape.devices)
    }

    /// The next step; `now` becomes the message's `ts`.
    public mutating func next(at now: Timestamp) -> FleetStep {
        if !queued.isEmpty { return emit(queued.removeFirst()) }
        if let due = duplicates.firstIndex(where: { $0.due <= count }) {
            return emit(.publish(duplicates.remove(at: due).message))
        }
        let device = random.below(shape.devices)
        var message = make(device, at: now)
        if random.chance(shape.outOfOrder) {
            let later = make(device, at: now)
            queued.append(.publish(message))
            message = later
        }
        if random.chance(shape.duplicates) {
            var again = message
            again.isDuplicate = true
            duplicates.append((due: count + 2 + random.below(20), message: again))
        }
        if random.chance(shape.churn) {
            let orderly = !random.chance(shape.ungraceful)
            queued.append(.leave(device: device, orderly: orderly, offlineMillis: 50 + random.below(1950)))
        }
        return emit(.publish(message))
    }

    private mutating func emit(_ step: FleetStep) -> FleetStep {
        guard case .publish(var message) = step else { return step }
        message.index = count
        count += 1
        return .publish(message)
    }

    private mutating func make(_ device: Int, at now: Timestamp) -> FleetMessage {
        devices[device].seq += 1
        let seq = devices[device].seq
        let address = shape.address(ofDevice: device)
        if random.chance(shape.malformed) {
            let defect = Defect.allCases[random.below(Defect.allCases.count)]
            let topic = defect == .badTopic ? "\(address)!/telemetry" : address + Self.suffix(defect.kind)
            return FleetMessage(
                device: device, kind: defect.kind, topic: topic,
                payload: defect.payload(seq: seq, version: devices[device].shadowVersion), seq: seq, defect: defect)
        }
        let kind = shape.mix.kind(at: random.below(shape.mix.total))
        let late = random.chance(shape.late)
        let at = late ? now.adding(microseconds: -1_000_000 * Int64(1 + random.below(3600))) : now
        var json = JSONText()
        write(kind, device: device, seq: seq, at: at, to: &json)
        return FleetMessage(
            device: device, kind: kind, topic: address + Self.suffix(kind), payload: json.bytes, seq: seq)
    }

    static func suffix(_ kind: MessageKind) -> String {
        switch kind {
        case .telemetry: "/telemetry"
        case .heartbeat: "/heartbeat"
        case .shadow: "/shadow/reported"
        case .ack: "/commands/ack"
        case .ota: "/ota/status"
        case .other: "/log"
        case .connection: "/connection"
        }
    }

    private mutating func write(_ kind: MessageKind, device: Int, seq: Int64, at: Timestamp, to json: inout JSONText) {
        json.raw("{\"ts\":\"\(at.description)\",")
        switch kind {
        case .telemetry:
            json.raw("\"site_id\":\"\(shape.site(ofDevice: device))\",\"seq\":\(seq),\"metrics\":{")
            writeMetrics(device, to: &json)
            json.raw("}}")
        case .heartbeat, .connection:
            json.raw("\"site_id\":\"\(shape.site(ofDevice: device))\",\"seq\":\(seq)}")
        case .shadow: writeShadow(device, seq: seq, to: &json)
        case .ack:
            let status = random.chance(0.05) ? "FAILED" : "OK"
            json.raw("\"seq\":\(seq),\"command_id\":\"command-\(seq)\",\"status\":\"\(status)\",")
            json.raw("\"details\":{\"took_ms\":\(1 + random.below(900))}}")
        case .ota:
            let statuses = ["DOWNLOADING", "INSTALLING", "SUCCESS", "failed"]
            json.raw("\"seq\":\(seq),\"campaign_id\":\(1 + random.below(3)),")
            json.raw("\"status\":\"\(statuses[random.below(statuses.count)])\",\"progress\":\(random.below(101))}")
        case .other:
            json.raw("\"seq\":\(seq),\"level\":\"info\",\"text\":\"watchdog fed\",")
            json.raw("\"free_kb\":\(1000 + random.below(9000))}")
        }
    }

    private mutating func writeMetrics(_ device: Int, to json: inout JSONText) {
        let step = Int64(random.below(61)) - 30
        devices[device].temperature = min(max(devices[device].temperature + step, -2000), 6000)
        if devices[device].battery > 5, random.chance(0.02) { devices[device].battery -= 1 }
        json.raw("\"temperature\":")
        json.decimal(hundredths: devices[device].temperature)
        json.raw(",\"humidity\":")
        json.decimal(hundredths: 3000 + Int64(random.below(4000)))
        json.raw(",\"battery\":\(devices[device].battery),\"rssi\":\(-40 - random.below(50))")
        if random.chance(0.25) { json.raw(random.chance(0.5) ? ",\"door_open\":true" : ",\"door_open\":false") }
        if random.chance(0.1) { json.raw(random.chance(0.5) ? ",\"mode\":\"auto\"" : ",\"mode\":\"eco\"") }
    }

    private mutating func writeShadow(_ device: Int, seq: Int64, to json: inout JSONText) {
        devices[device].shadowVersion += 1
        json.raw("\"seq\":\(seq),\"version\":\(devices[device].shadowVersion),\"reported\":{\"firmware_version\":")
        json.string(devices[device].firmware ?? "1.0.\(device % 4)")
        json.raw(",\"setpoint\":")
        json.decimal(hundredths: 1800 + 50 * Int64(random.below(12)))
        json.raw(",\"tags\":[\"sim\",\"row-\(device % 10)\"]}}")
    }
}

// What a connection or a command brings about: outside the sequence, since it depends on the network.
extension FleetGenerator {
    static let lastWill = Array("{\"status\":\"CONNECTION_LOST\"}".utf8)

    /// Birth (`CONNECTED`) and farewell (`DISCONNECTED`).
    func announcement(ofDevice device: Int, status: String) -> FleetMessage {
        FleetMessage(
            device: device, kind: .connection, topic: shape.address(ofDevice: device) + "/connection",
            payload: Array("{\"status\":\"\(status)\"}".utf8))
    }

    mutating func report(on update: OTAUpdate, device: Int) -> FleetMessage {
        devices[device].seq += 1
        var json = JSONText()
        json.raw("{\"seq\":\(devices[device].seq),\"campaign_id\":\(update.command.campaignID),")
        json.raw("\"status\":\"\(update.stage.rawValue)\",\"progress\":\(update.stage.progress)")
        if !update.isAnonymous, let command = update.command.commandID { json.raw(",\"command_id\":\(command)") }
        if update.stage == .failed { json.raw(",\"error\":\"checksum of the image does not match\"") }
        json.raw("}")
        return FleetMessage(
            device: device, kind: .ota, topic: shape.address(ofDevice: device) + "/ota/status", payload: json.bytes,
            seq: devices[device].seq)
    }

    /// What a device says that will not update.
    mutating func refusal(of command: OTACommand, device: Int) -> FleetMessage {
        devices[device].seq += 1
        var json = JSONText()
        json.raw("{\"seq\":\(devices[device].seq),\"command_id\":\"\(command.commandID ?? 0)\",")
        json.raw("\"status\":\"REJECTED\",\"details\":{\"reason\":\"battery low\"}}")
        return FleetMessage(
            device: device, kind: .ack, topic: shape.address(ofDevice: device) + "/commands/ack", payload: json.bytes,
            seq: devices[device].seq)
    }

    /// The shadow of a device that now runs `firmware`; nil: what it came with.
    mutating func shadow(ofDevice device: Int, firmware: String?) -> FleetMessage {
        devices[device].seq += 1
        devices[device].firmware = firmware
        var json = JSONText()
        let now = Timestamp(microseconds: SystemTime.wallMicroseconds())
        write(.shadow, device: device, seq: devices[device].seq, at: now, to: &json)
        return FleetMessage(
            device: device, kind: .shadow, topic: shape.address(ofDevice: device) + "/shadow/reported",
            payload: json.bytes, seq: devices[device].seq)
    }

    func firmware(ofDevice device: Int) -> String? { devices[device].firmware }

    /// What becomes of this device's update: the same answer whenever the command arrives.
    func fate(device: Int, campaign: Int64, version: String) -> OTAFate {
        shape.ota.fate(version: version, draw: draw(UInt64(bitPattern: campaign) &+ UInt64(device) << 32))
    }

    func isAnonymous(device: Int) -> Bool { draw(0x616E6F6E &+ UInt64(device) << 32) < shape.ota.anonymous }
    func isOffline(device: Int) -> Bool { draw(0x6F666600 &+ UInt64(device) << 32) < shape.ota.offline }

    private func draw(_ salt: UInt64) -> Double {
        var random = SeededRandom(seed: seed ^ SeededRandom.mix(salt))
        return Double(random.next() >> 11) * 0x1p-53
    }
}
