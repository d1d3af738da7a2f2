import EventModel
import Foundation
import Testing

@testable import FleetSimulator

/// The pure part: what a fleet says, without a broker.
struct GeneratorTests {
    static let start = Timestamp(rfc3339: "2026-03-01T12:00:00Z")!

    static func shape(_ change: (inout FleetShape) -> Void = { _ in }) -> FleetShape {
        var shape = FleetShape()
        shape.devices = 40
        change(&shape)
        return shape
    }

    static func messages(_ shape: FleetShape, seed: UInt64 = 1, count: Int, now: Timestamp = start) -> [FleetMessage] {
        var generator = FleetGenerator(seed: seed, shape: shape)
        var messages: [FleetMessage] = []
        while messages.count < count {
            if case .publish(let message) = generator.next(at: now) { messages.append(message) }
        }
        return messages
    }

    static let wild = shape {
        $0.duplicates = 0.05
        $0.late = 0.05
        $0.outOfOrder = 0.05
        $0.malformed = 0.05
        $0.churn = 0.05
    }

    @Test func theSameSeedGivesTheSameBytes() {
        let first = Self.messages(Self.wild, count: 5000), again = Self.messages(Self.wild, count: 5000)
        #expect(first.map(\.topic) == again.map(\.topic))
        #expect(first.map(\.payload) == again.map(\.payload))
        #expect(first.compactMap(\.index) == Array(0..<5000))
        let other = Self.messages(Self.wild, seed: 2, count: 5000)
        #expect(first.map(\.payload) != other.map(\.payload))
    }

    /// Only `ts` follows the clock.
    @Test func anotherClockChangesNothingButTheTime() throws {
        let moment = Timestamp(rfc3339: "2030-01-01T00:00:00Z")!
        func withoutTime(_ message: FleetMessage) -> String {
            String(decoding: message.payload, as: UTF8.self).replacing(/"ts":"[^"]*",/, with: "")
        }
        let first = Self.messages(Self.wild, count: 2000), later = Self.messages(Self.wild, count: 2000, now: moment)
        #expect(first.map(withoutTime) == later.map(withoutTime))
        #expect(first.map(\.payload) != later.map(\.payload))
    }

    /// A run of last year can be repeated: a change of these bytes breaks everybody's recorded seeds.
    @Test func theFirstMessagesOfSeed1AreWrittenInStone() {
        let lines = Self.messages(Self.shape(), count: 3).map {
            "\($0.topic) \(String(decoding: $0.payload, as: UTF8.self))"
        }
        #expect(lines == Self.stone)
    }

    static let stone = [
        #"tenant/acme/device/dev-0012/telemetry {"ts":"2026-03-01T12:00:00.000000Z","site_id":"site-4","seq":1,"#
            + #""metrics":{"temperature":21.79,"humidity":47.77,"battery":100,"rssi":-78}}"#,
        #"tenant/globex/device/dev-0006/telemetry {"ts":"2026-03-01T12:00:00.000000Z","site_id":"site-6","seq":1,"#
            + #""metrics":{"temperature":21.44,"humidity":48.19,"battery":100,"rssi":-66}}"#,
        #"tenant/globex/device/dev-0013/telemetry {"ts":"2026-03-01T12:00:00.000000Z","site_id":"site-5","seq":1,"#
            + #""metrics":{"temperature":21.61,"humidity":32.63,"battery":100,"rssi":-44}}"#,
    ]

    struct Share: Sendable, CustomTestStringConvertible {
        var name: String
        var change: @Sendable (inout FleetShape) -> Void
        var count: @Sendable ([FleetMessage]) -> Int
        var expected: ClosedRange<Int>
        var testDescription: String { name }
    }

    /// Of 20,000 messages with a share of 5 %: 1,000, with four standard deviations (about 30 each) either way.
    static let shares = [
        Share(
            name: "duplicates", change: { $0.duplicates = 0.05 }, count: { $0.filter(\.isDuplicate).count },
            expected: 830...1090),
        Share(
            name: "late", change: { $0.late = 0.05 },
            count: { messages in
                messages.filter { !String(decoding: $0.payload, as: UTF8.self).contains("2026-03-01T12:00:00") }.count
            }, expected: 880...1120),
        Share(
            name: "malformed", change: { $0.malformed = 0.05 }, count: { $0.count { $0.defect != nil } },
            expected: 880...1120),
        Share(
            name: "out of order", change: { $0.outOfOrder = 0.05 },
            count: { messages in
                var last: [Int: Int64] = [:]
                return messages.count { message in
                    defer { last[message.device] = message.seq }
                    return message.seq < last[message.device, default: 0]
                }
            }, expected: 830...1090),
        Share(
            name: "none of them", change: { _ in },
            count: { messages in
                messages.count { $0.isDuplicate || $0.defect != nil }
            }, expected: 0...0),
    ]

    @Test(arguments: shares) func sharesAreAsAsked(share: Share) {
        let messages = Self.messages(Self.shape(share.change), count: 20_000)
        #expect(share.expected.contains(share.count(messages)), "\(share.count(messages))")
    }

    @Test func theMixIsAsAsked() throws {
        var shape = Self.shape()
        shape.mix = try MessageMix(parsing: "telemetry=50,heartbeat=25,shadow=15,ack=5,ota=3,other=2")
        let kinds = counted(Self.messages(shape, count: 20_000).map(\.kind))
        for (kind, share) in [
            (MessageKind.telemetry, 0.5), (.heartbeat, 0.25), (.shadow, 0.15), (.ack, 0.05), (.ota, 0.03),
            (.other, 0.02),
        ] {
            let expected = 20_000 * share, slack = 4 * (expected * (1 - share)).squareRoot()
            #expect(abs(Double(kinds[kind, default: 0]) - expected) < slack, "\(kind): \(kinds[kind, default: 0])")
        }
        #expect(kinds[.connection] == nil)
    }

    @Test func aDuplicateIsTheSameBytesAgain() {
        var seen: Set<[UInt8]> = []
        for message in Self.messages(Self.shape { $0.duplicates = 0.1 }, count: 5000) {
            #expect(seen.insert(Array(message.topic.utf8) + message.payload).inserted == !message.isDuplicate)
        }
    }

    @Test func wellFormedMessagesAreWhatTheContractAsksFor() throws {
        var shape = Self.shape()
        shape.mix = try MessageMix(parsing: "telemetry=1,heartbeat=1,shadow=1,ack=1,ota=1,other=1")
        var versions: [Int: Int] = [:]
        for message in Self.messages(shape, count: 3000) {
            let json = try #require(try JSONSerialization.jsonObject(with: Data(message.payload)) as? [String: Any])
            #expect(Timestamp(rfc3339: json["ts"] as? String ?? "") == Self.start)
            switch message.kind {
            case .telemetry: #expect((json["metrics"] as? [String: Any])?.isEmpty == false)
            case .shadow:
                let version = try #require(json["version"] as? Int)
                #expect(version == versions[message.device, default: 0] + 1)
                versions[message.device] = version
                #expect((json["reported"] as? [String: Any])?["firmware_version"] is String)
            case .ack: #expect(json["command_id"] is String && json["status"] is String)
            case .ota: #expect(json["campaign_id"] is Int && json["status"] is String)
            case .heartbeat, .other, .connection: break
            }
            var topic = message.topic
            let parsed = topic.withUTF8 { DeviceTopic(UnsafeRawBufferPointer($0)) }
            #expect(parsed.map { $0.topicClass == .other } == (message.kind == .other))
        }
    }

    @Test(arguments: Defect.allCases) func everyDefectIsOne(defect: Defect) throws {
        let payload = defect.payload(seq: 7, version: 3)
        let json = try? JSONSerialization.jsonObject(with: Data(payload))
        switch defect {
        case .cutShort, .trailingText, .invalidUTF8: #expect(json == nil)
        case .notAnObject: #expect(json is [Any])
        case .missingField: #expect((json as? [String: Any])?["metrics"] == nil)
        case .wrongType: #expect((json as? [String: Any])?["campaign_id"] is String)
        case .tenantMismatch: #expect((json as? [String: Any])?["tenant_id"] is String)
        case .deviceMismatch: #expect((json as? [String: Any])?["device_id"] is String)
        case .unknownStatus: #expect((json as? [String: Any])?["status"] as? String == "THINKING")
        case .nullCharacter, .loneSurrogate, .hugeNumber, .badTopic:
            #expect(String(decoding: payload, as: UTF8.self).hasSuffix("}"))
        }
        var shape = Self.shape { $0.malformed = 1 }
        shape.devices = 3
        let message = try #require(Self.messages(shape, count: 500).first { $0.defect == defect })
        var topic = message.topic
        #expect(topic.withUTF8 { DeviceTopic(UnsafeRawBufferPointer($0)) == nil } == (defect == .badTopic))
    }

    @Test func devicesLeaveAsOftenAsAsked() {
        var generator = FleetGenerator(seed: 5, shape: Self.shape { $0.churn = 0.1 })
        var leaves = 0, orderly = 0
        while generator.count < 5000 {
            guard case .leave(_, let isOrderly, let offline) = generator.next(at: Self.start) else { continue }
            leaves += 1
            if isOrderly { orderly += 1 }
            #expect((50..<2000).contains(offline))
        }
        #expect((415...585).contains(leaves), "\(leaves)")
        #expect((leaves / 3...leaves * 2 / 3).contains(orderly), "\(orderly) of \(leaves)")
    }

    @Test func latenciesAreFoundAgainWithinABucket() {
        var histogram = LatencyHistogram()
        #expect(histogram.micros(atQuantile: 0.5) == 0)
        for micros in 1...100_000 { histogram.add(micros: Int64(micros)) }
        histogram.add(micros: .max)
        #expect(histogram.total == 100_001)
        for quantile in [0.001, 0.1, 0.5, 0.9, 0.99] {
            let found = Double(histogram.micros(atQuantile: quantile)), exact = quantile * 100_000
            #expect(found >= exact && found <= exact * 1.13 + 1, "\(quantile): \(found)")
        }
    }
}

struct FleetSettingsTests {
    @Test(
        arguments: [
            ("mqtt://localhost:1884", "localhost", 1884, false, nil, nil),
            ("mqtt://localhost", "localhost", 1883, false, nil, nil),
            ("mqtts://broker.example", "broker.example", 8883, true, nil, nil),
            ("mqtt://me@h:1", "h", 1, false, "me", nil),
            ("mqtts://me:p%40ss%3Aword@h:1/", "h", 1, true, "me", "p@ss:word"),
            ("mqtt://me:a:b@h", "h", 1883, false, "me", "a:b"),
            ("mqtt://[::1]:1885", "::1", 1885, false, nil, nil),
            ("MQTT://h", "h", 1883, false, nil, nil),
        ] as [(String, String, Int, Bool, String?, String?)])
    func brokerURLs(text: String, host: String, port: Int, tls: Bool, user: String?, password: String?) throws {
        let url = try BrokerURL(parsing: text)
        #expect(
            url.host == host && url.port == port && url.usesTLS == tls && url.username == user
                && url.password == password)
    }

    @Test(arguments: [
        "", "localhost", "http://h", "mqtt://", "mqtt://h:", "mqtt://h:0", "mqtt://h:65536", "mqtt://h:x", "mqtt://::1",
        "mqtt://[::1", "mqtt://h/path", "mqtt://me:%zz@h",
    ])
    func brokerURLsThatCannotBe(text: String) {
        #expect(throws: FleetError.self) { try BrokerURL(parsing: text) }
    }

    @Test func aPasswordIsNotInTheErrorThatItsURLCauses() {
        let error = #expect(throws: FleetError.self) { try BrokerURL(parsing: "mqtt://me:secret@h:99999") }
        #expect(error.map { !$0.description.contains("secret") && $0.description.contains("99999") } == true)
    }

    struct Wrong: Sendable, CustomTestStringConvertible {
        var named: String
        var change: @Sendable (inout FleetSettings) -> Void
        var testDescription: String { named }
    }

    @Test(arguments: [
        Wrong(named: "--devices") { $0.shape.devices = 0 },
        Wrong(named: "--connections") { $0.shape.devices = 5001 },
        Wrong(named: "--connections") { $0.connections = 0 },
        Wrong(named: "--churn") {
            $0.connections = 2
            $0.shape.churn = 0.1
        },
        Wrong(named: "--tenants") { $0.shape.tenants = 201 },
        Wrong(named: "--malformed") { $0.shape.malformed = 1.1 },
        Wrong(named: "--late") { $0.shape.late = -0.1 },
        Wrong(named: "--duplicates") { $0.shape.duplicates = .nan },
        Wrong(named: "--rate") { $0.rate = -1 },
        Wrong(named: "--count") { $0.extent = .messages(-1) },
        Wrong(named: "--duration") { $0.extent = .seconds(0) },
        Wrong(named: "--window") { $0.window = 0 },
        Wrong(named: "--cert") { $0.certificateFile = "/c" },
        Wrong(named: "--client-prefix") { $0.clientPrefix = "" },
    ])
    func settingsThatCannotBe(wrong: Wrong) throws {
        var settings = FleetSettings(broker: try BrokerURL(parsing: "mqtt://h"))
        #expect(throws: Never.self) { try settings.validate() }
        wrong.change(&settings)
        let error = #expect(throws: FleetError.self) { try settings.validate() }
        #expect(error?.description.contains(wrong.named) == true, "\(String(describing: error))")
    }

    @Test(arguments: ["", "telemetry", "telemetry=x", "telemetry=-1", "news=1", "connection=1", "telemetry=0"])
    func mixesThatCannotBe(text: String) {
        #expect(throws: FleetError.self) { try MessageMix(parsing: text) }
    }
}
