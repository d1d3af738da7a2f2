import EventModel
import Primitives

/// What devices say: every message that was ever published in a world, by number.
struct Fleet {
    enum Kind: Int, CaseIterable { case telemetry, heartbeat, connection, undecodable, otherTopic }

    struct Message {
        let device: Int
        /// The how-manieth of its device, from 0.
        let sequence: Int
        let kind: Kind
        let topic: [UInt8]
        let payload: [UInt8]
    }

    let deviceCount: Int
    /// Messages have up to so many bytes of padding: small commits, and such of several pages.
    let paddingMax: Int
    private(set) var messages: [Message] = []
    private var sequences: [Int]
    private var byContent: [[UInt8]: Int] = [:]

    init(deviceCount: Int, paddingMax: Int) {
        self.deviceCount = deviceCount
        self.paddingMax = paddingMax
        sequences = Array(repeating: 0, count: deviceCount)
    }

    static func tenant(_ device: Int) -> String { "t\(device % 2)" }
    static func name(_ device: Int) -> String { "d\(device)" }

    /// The next message of a device; returns its number.
    mutating func publish(_ device: Int, _ random: inout SeededRandom) -> Int {
        let sequence = sequences[device]
        sequences[device] += 1
        let kind = random.chance(0.7) ? Kind.telemetry : random.pick(Kind.allCases)
        var padding = ""
        // Letters at random, so that compression has little to gain.
        let length = paddingMax > 0 && random.chance(0.2) ? random.below(paddingMax) : random.below(32)
        for _ in 0..<length { padding.unicodeScalars.append(UnicodeScalar(UInt8(97 + random.below(26)))) }
        let json =
            switch kind {
            case .telemetry: #"{"seq":\#(sequence),"metrics":{"m":\#(sequence)},"pad":"\#(padding)"}"#
            case .heartbeat: #"{"seq":\#(sequence),"pad":"\#(padding)"}"#
            case .connection: #"{"status":"\#(["CONNECTED", "DISCONNECTED"][sequence % 2])","n":\#(sequence)}"#
            case .undecodable: #"{"seq":\#(sequence),"pad":"\#(padding)"#
            case .otherTopic: #"{"n":\#(sequence),"pad":"\#(padding)"}"#
            }
        let leaf =
            switch kind {
            case .telemetry, .undecodable: "telemetry"
            case .heartbeat: "heartbeat"
            case .connection: "connection"
            case .otherTopic: "diary"
            }
        let topic = Array("tenant/\(Self.tenant(device))/device/\(Self.name(device))/\(leaf)".utf8)
        let payload = Array(json.utf8)
        byContent[topic + payload] = messages.count
        messages.append(
            Message(device: device, sequence: sequence, kind: kind, topic: topic, payload: payload))
        return messages.count - 1
    }

    /// The message that a record holds, if anybody ever sent it.
    func number(of record: RecordView) -> Int? { byContent[Array(record.topic) + Array(record.payload)] }
}

/// One persistent MQTT session of ours on a broker: what was not acknowledged comes again, in order.
struct BrokerSession {
    private(set) var queued: [Int] = []
    /// Delivered and not acknowledged, in order.
    private(set) var unacknowledged: [Int] = []
    /// How many of those the connection that is up now was sent.
    private(set) var sentNow = 0
    private(set) var isConnected = false

    mutating func publish(_ message: Int) { queued.append(message) }

    mutating func connect() {
        isConnected = true
        sentNow = 0
    }

    mutating func disconnect() { isConnected = false }

    /// The next messages for the client, first what it never acknowledged. (MQTT 5.0, 4.4)
    mutating func deliver(atMost count: Int, inFlightMax: Int) -> [Int] {
        guard isConnected else { return [] }
        var result: [Int] = []
        while result.count < count {
            if sentNow == unacknowledged.count {
                guard unacknowledged.count < inFlightMax, !queued.isEmpty else { break }
                unacknowledged.append(queued.removeFirst())
            }
            result.append(unacknowledged[sentNow])
            sentNow += 1
        }
        return result
    }

    /// False for what is not in flight.
    mutating func acknowledge(_ message: Int) -> Bool {
        guard let index = unacknowledged.firstIndex(of: message) else { return false }
        unacknowledged.remove(at: index)
        if index < sentNow { sentNow -= 1 }
        return true
    }

    var isEmpty: Bool { queued.isEmpty && unacknowledged.isEmpty }
}
