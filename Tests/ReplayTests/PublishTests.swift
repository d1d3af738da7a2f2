import EventLog
import EventModel
import Foundation
import Ingest
import MQTT
import Synchronization
import TestSupport
import Testing

@testable import Publishing

/// Recorded messages, published to a real Mosquitto.
struct PublishTests {
    private func settings(_ port: Int) -> BrokerSettings {
        BrokerSettings(name: "publish", host: "127.0.0.1", port: port, clientID: "refold-publish-test")
    }

    private func everything(_ log: ReadOnlyLog) throws -> PublishOrder {
        try PublishOrder(range: Position(0)..<Position(log.durableCount))
    }

    /// 300 messages of three devices, in turn.
    private func fill(_ folder: DataFolder, _ count: Int = 300) throws {
        try folder.append { batch in
            for index in 0..<count {
                let time = moment(Double(index) / 100)
                batch.message(telemetry("d\(index % 3)"), #"{"metrics":{"n":\#(index)}}"#, at: time)
            }
        }
    }

    @Test func messagesComeInOrderWithWhereTheyAreFrom() async throws {
        let server = try MosquittoServer(), folder = try DataFolder()
        try folder.append { batch in
            batch.message(
                telemetry("a"), "{\"metrics\":{\"t\":1}}", at: moment(1),
                properties: [
                    0x01, 1,  // UTF-8
                    0x02, 0, 0, 0, 9,  // expiry
                    0x03, 0, 16,
                ] + Array("application/json".utf8) + [
                    0x08, 0, 1, 0x72,  // response topic
                    0x26, 0, 1, 0x6B, 0, 1, 0x76,  // k: v
                    0x26, 0, 15,
                ] + Array("refold-position".utf8) + [0, 1, 0x39])
            batch.message(telemetry("a"), "not json", at: moment(2))
        }
        let witness = try await PropertyWitness(server)
        let log = try folder.open()
        let publication = try Publication(log, everything(log), to: settings(server.port), PublishOptions())
        let result = try publication.run()
        #expect(result.published == 2 && result.isFinished && result.next == 2 && result.protocolVersion == "5.0")
        #expect(await eventually { witness.arrivals.count == 2 })
        #expect(
            witness.arrivals.first
                == PropertyWitness.Arrival(
                    topic: "replay/" + telemetry("a"), payload: #"{"metrics":{"t":1}}"#,
                    properties: [
                        "k:v", "refold-log:\(log.logID)", "refold-position:0", "refold-received-at:\(moment(1))",
                    ], contentType: "application/json"))
        #expect(witness.arrivals.last?.properties.contains("refold-position:1") == true)
    }

    @Test func whatCannotBePublishedIsCounted() throws {
        let folder = try DataFolder()
        try folder.append { batch in
            batch.message(telemetry("a"), "{}", at: moment(1))
            batch.message(telemetry("a"), "{}", at: moment(2), flags: [RecordFlags(qos: 1), .retained])
            batch.message(
                telemetry("a"), "{", at: moment(3), flags: [RecordFlags(qos: 1), .truncated], arrived: 999_999)
            batch.message("odd/topic", "{}", at: moment(4), verdict: .badTopicFormat)
            batch.append(
                kind: .rejection, schema: telemetry("a"), receivedAt: moment(5),
                json: Array(#"{"count":7,"rejected":[]}"#.utf8))
            batch.message(telemetry("b"), "12345", at: moment(6))
        }
        let log = try folder.open()
        let (counts, devices) = try everything(log).count(in: log)
        #expect(counts.messages == 2 && counts.bytes == 7 && devices == 2)
        #expect(counts.retained == 1 && counts.cut == 1 && counts.otherVerdict == 1 && counts.notKept == 7)
        #expect(counts.firstPosition == 0 && counts.lastPosition == 5 && counts.lastTime == moment(6))
        let one = try PublishOrder(range: Position(0)..<Position(6), tenant: "acme", device: "b")
        #expect(try one.count(in: log).counts.messages == 1)
        let other = try PublishOrder(range: Position(0)..<Position(6), topic: "tenant/+/device/b/#")
        #expect(try other.count(in: log).counts.messages == 1)
    }

    @Test func aBrokerThatGoesAwayGetsTheRestInOrder() async throws {
        let server = try MosquittoServer(persistent: true), folder = try DataFolder()
        try fill(folder, 2_000)
        let witness = try await MosquittoWitness(server, topic: "replay/#")
        let log = try folder.open()
        var options = PublishOptions()
        options.rate = 2_000
        options.window = 100
        let publication = try Publication(log, everything(log), to: settings(server.port), options)
        let disturbance = Task.detached {
            #expect(await eventually { witness.arrivals.count >= 200 })
            server.stop()
            try server.start()
        }
        let result = try publication.run()
        try await disturbance.value
        #expect(result.published == 2_000 && result.isFinished)
        #expect(await eventually { Set(witness.arrivals).count == 2_000 })
        for device in 0..<3 {
            let numbers = witness.arrivals.filter { $0.topic == "replay/" + telemetry("d\(device)") }
                .map { Int(String(decoding: $0.payload, as: UTF8.self).filter(\.isNumber))! }
            var seen = device - 3
            for number in numbers {
                // Repetitions repeat what was seen; nothing is ever skipped.
                #expect(number <= seen + 3, "\(number) after \(seen)")
                seen = max(seen, number)
            }
        }
    }

    @Test func itGoesOnWhereItStopped() async throws {
        let server = try MosquittoServer(), folder = try DataFolder()
        try fill(folder)
        let witness = try await MosquittoWitness(server, topic: "replay/#")
        let log = try folder.open()
        var options = PublishOptions()
        options.statePath = folder.path + "/publish/"
        options.window = 20
        func begin() throws -> PublishResult {
            let steps = Mutex(0)
            let first = try Publication(log, everything(log), to: settings(server.port), options)
            // One at a time.
            #expect(throws: PublicationError.self) {
                _ = try Publication(log, everything(log), to: settings(server.port), options)
            }
            return try first.run(isStopping: {
                steps.withLock {
                    $0 += 1
                    return $0 > 8
                }
            })
        }
        let half = try begin()
        #expect(!half.isFinished && half.published > 0 && half.published < 300)
        let second = try Publication(log, everything(log), to: settings(server.port), options)
        #expect(second.resumesAt?.rawValue == half.next)
        let rest = try second.run()
        #expect(rest.isFinished && half.published + rest.published == 300)
        #expect(await eventually { witness.arrivals.count == 300 })
        #expect(Set(witness.arrivals).count == 300)
    }

    @Test func whatIsDoneIsNotDoneAgainUnlessToldSo() async throws {
        let server = try MosquittoServer(), folder = try DataFolder()
        try fill(folder)
        let log = try folder.open()
        var options = PublishOptions()
        options.statePath = folder.path + "/state.json"
        func run(_ options: PublishOptions) throws -> PublishResult {
            try Publication(log, everything(log), to: settings(server.port), options).run()
        }
        #expect(try run(options).published == 300)
        let again = try run(options)
        #expect(again.wasDone && again.published == 0 && again.isFinished)
        options.startsOver = true
        #expect(try run(options).published == 300)
        options.prefix = "other/"
        #expect(throws: PublicationError.self) { try run(options) }
    }

    @Test func paceFollowsTheOriginal() throws {
        var pace = PublishPace(speed: 10, rate: nil)
        #expect(pace.wait(for: moment(0), now: 1_000_000) == 0)
        #expect(pace.wait(for: moment(20), now: 1_000_000) == 2_000_000)
        #expect(pace.wait(for: moment(20), now: 2_900_000) == 100_000)
        #expect(pace.wait(for: moment(20), now: 3_000_000) == 0)
        var limited = PublishPace(speed: nil, rate: 100)
        var now: Int64 = 0, sent = 0
        while now < 10_000_000 {
            let wait = limited.wait(for: moment(0), now: now)
            if wait == 0 { sent += 1 }
            now += max(wait, 1)
        }
        #expect((995...1_005).contains(sent))
    }

    @Test func refusesWhatWouldDoHarm() async throws {
        let server = try MosquittoServer(), folder = try DataFolder()
        try fill(folder, 3)
        let log = try folder.open()
        func refusal(_ adjust: (inout PublishOptions) -> Void) -> String? {
            var options = PublishOptions()
            adjust(&options)
            do {
                _ = try Publication(log, everything(log), to: settings(server.port), options)
                return nil
            } catch {
                return "\(error)"
            }
        }
        #expect(refusal { $0.prefix = "" }?.contains("--live") == true)
        #expect(refusal { $0.prefix = "a/+/" } != nil)
        #expect(refusal { $0.prefix = "a" }?.contains("slash") == true)
        let old = refusal { ($0.prefix, $0.isLive, $0.protocolPreference) = ("", true, .v311) }
        #expect(old?.contains("3.1.1") == true)
        #expect(refusal { ($0.prefix, $0.isLive) = ("", true) } == nil)
        var live = PublishOptions()
        (live.prefix, live.isLive) = ("", true)
        let commands = try PublishOrder(range: Position(0)..<Position(3), verdict: .foreignCommand)
        #expect(throws: PublicationError.self) { try Publication(log, commands, to: settings(server.port), live) }
        // The log's own connection is 3.1.1: what comes back could not be recognised.
        try folder.append { batch in
            batch.append(
                kind: .connection, schema: "broker.connected/1", broker: "north", receivedAt: moment(10),
                json: Array(#"{"client_id":"refold-x","protocol_version":"3.1.1"}"#.utf8))
        }
        #expect(refusal { ($0.prefix, $0.isLive) = ("", true) }?.contains("north") == true)
        try folder.append { batch in
            batch.append(
                kind: .connection, schema: "broker.connected/1", broker: "north", receivedAt: moment(11),
                json: Array(#"{"client_id":"refold-x","protocol_version":"5.0"}"#.utf8))
        }
        #expect(refusal { ($0.prefix, $0.isLive) = ("", true) } == nil)
    }

    @Test func anOldBrokerGetsThemWithoutProperties() async throws {
        let versions = Mutex<[UInt8]>([])
        let broker = try ScriptedBroker { connection in
            guard let level = connection.receiveConnect() else { return }
            versions.withLock { $0.append(level) }
            guard level == 4 else { return try connection.send([0x20, 3, 0, 0x84, 0]) }
            try connection.send([0x20, 2, 0, 0])
            while let packet = connection.receive(), packet.header & 0xF0 == 0x30 {
                let length = Int(packet.body[0]) << 8 | Int(packet.body[1])
                try connection.send([0x40, 2, packet.body[2 + length], packet.body[3 + length]])
            }
        }
        let folder = try DataFolder()
        try fill(folder, 10)
        let log = try folder.open(), notes = Mutex<[String]>([])
        let publication = try Publication(log, everything(log), to: settings(broker.port), PublishOptions())
        let result = try publication.run(note: { text in notes.withLock { $0.append(text) } })
        #expect(result.published == 10 && result.protocolVersion == "3.1.1")
        #expect(notes.withLock { $0.contains { $0.contains("MQTT 5") } })
        #expect(versions.withLock { $0 } == [5, 4])
        // Live, it is refused.
        var live = PublishOptions()
        (live.prefix, live.isLive) = ("", true)
        let refused = try Publication(log, everything(log), to: settings(broker.port), live)
        #expect(throws: PublicationError.self) { try refused.run() }
    }

    @Test func nobodyAnswersAndThenSomebodyDoes() throws {
        let folder = try DataFolder()
        try fill(folder, 3)
        let log = try folder.open()
        var options = PublishOptions()
        options.patienceSeconds = 0.3
        let publication = try Publication(log, everything(log), to: settings(freeLoopbackPort()), options)
        do {
            _ = try publication.run()
            Issue.record("it published to nobody")
        } catch let error as PublicationError {
            #expect(error.code == .unreachable)
        }
    }
}

/// What is published live comes back to the ingest that recorded it.
struct EchoTests {
    private func ingest(_ server: MosquittoServer, _ log: FileLog, filters: [String] = ["tenant/+/device/+/#"])
        throws -> IngestService
    {
        var settings = BrokerSettings(name: "b1", host: "127.0.0.1", port: server.port, clientID: "refold-echo")
        settings.filters = filters
        let service = try IngestService(
            brokers: [settings], log: log, history: log, logID: log.report.logID.description,
            onFatal: { Issue.record("fatal: \($0)") })
        service.start()
        return service
    }

    private func messages(_ path: String) throws -> [String] {
        let log = try ReadOnlyLog(directory: path), block = EventBlock()
        let reader = try log.reader(from: Position(0))
        var found: [String] = []
        while try reader.read(into: block, atLeast: 1) {
            block.forEach { record, _ in
                if record.kind == .message { found.append(String(decoding: record.payload, as: UTF8.self)) }
            }
        }
        return found
    }

    @Test(arguments: [["tenant/+/device/+/#"], ["#"]])
    func whatComesBackIsNotRecordedAgain(_ filters: [String]) async throws {
        let server = try MosquittoServer(), folder = try DataFolder()
        let log = try FileLog.open(directory: folder.logPath)
        let service = try ingest(server, log, filters: filters)
        #expect(await eventually { service.statuses[0].subscribed })
        let devices = try TestPublisher(port: server.port)
        for index in 0..<500 { try devices.publish(telemetry("d\(index % 7)"), #"{"metrics":{"n":\#(index)}}"#) }
        try await devices.flush()
        #expect(await eventually { service.statuses[0].verdicts[0] == 500 })
        let reading = try folder.open()
        let order = try PublishOrder(range: Position(0)..<Position(log.durableCount))
        var broker = BrokerSettings(name: "p", host: "127.0.0.1", port: server.port, clientID: "refold-publish-test")
        broker.protocolPreference = .v5
        for isLive in [true, false] {
            var options = PublishOptions()
            options.isLive = isLive
            options.prefix = isLive ? "" : "replay/"
            let result = try Publication(reading, order, to: broker, options).run()
            #expect(result.published == 500 && result.withoutSubscribers == (isLive || filters == ["#"] ? 0 : 500))
        }
        let expected: UInt64 = filters == ["#"] ? 1_000 : 500
        #expect(await eventually { service.statuses[0].replays == expected })
        // A claim that is not true hides nothing; neither does one of another log, or of no event.
        let payload = #"{"metrics":{"n":-1}}"#, id = log.report.logID.description
        let position = "\(order.range.upperBound.rawValue - 1)"
        for (claimedLog, claimed, text) in [
            (id, position, payload), (id, "99999999", payload), (id, "x", payload),
            (String(repeating: "0", count: 32), position, #"{"metrics":{"n":499}}"#),
        ] {
            var properties = TestPublisher.Properties()
            properties.userProperties = [("refold-log", claimedLog), ("refold-position", claimed)]
            try devices.publish(telemetry("d2"), text.utf8, properties: properties)
        }
        // The same payload on another device's topic is not the event either.
        var properties = TestPublisher.Properties()
        properties.userProperties = [("refold-log", id), ("refold-position", position)]
        try devices.publish(telemetry("other"), #"{"metrics":{"n":499}}"#.utf8, properties: properties)
        try await devices.flush()
        #expect(await eventually { service.statuses[0].verdicts[0] == 505 })
        #expect(service.statuses[0].replays == expected)
        #expect(await service.stop())
        log.close()
        #expect(try messages(folder.logPath).count == 505)
    }
}
