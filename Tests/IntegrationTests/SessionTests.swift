import EventModel
import Foundation
import TestSupport
import Testing

/// Whose session it is, and what is in it, with the real daemon and a real Mosquitto: ways to lose acknowledged
/// messages that public reports have found. Each test is named for its report.
@Suite(.serialized) struct SessionTests {
    private func heartbeats(in world: World) throws -> Int {
        try world.log().filter { $0.key.contains("/heartbeat ") }.reduce(0) { $0 + $1.value }
    }

    private func publish(_ count: Int, to world: World, _ payload: (Int) -> String = { _ in "{}" }) async throws {
        let publisher = try TestPublisher(port: world.broker.port)
        for index in 0..<count { try publisher.publish("tenant/acme/device/d/heartbeat", payload(index).utf8) }
        try await publisher.flush()
    }

    /// Of payloads that were published twice each: the daemon's lines about handovers, and the records of the first
    /// payloads that are not in the log twice. Two packet ids of one session tell a copy of the publisher's from ours.
    private func whatIsWrong(in world: World, published count: Int) throws -> String {
        let handovers = world.daemonLog.split(separator: "\n").filter { $0.contains("handover") }
        let records = try world.run(["log", "cat", "--data", world.data, "--kind", "message", "--json"]).out
            .split(separator: "\n").filter { $0.contains("/heartbeat") }
        let byPayload = Dictionary(grouping: records) { line in
            line.range(of: "seq").flatMap { Int(line[$0.upperBound...].drop { !$0.isNumber }.prefix { $0.isNumber }) }
        }
        let wrong = byPayload.filter { ($0.key.map { $0 == (count - 1) / 2 ? 2 - count % 2 : 2 }) != $0.value.count }
        return (handovers + wrong.values.prefix(5).flatMap { $0 }).joined(separator: "\n")
    }

    private func reconnected(_ world: World) async throws {
        guard await eventually(within: 60, { world.status()?.brokers.first?.subscribed == true }) else {
            throw SystemError("not subscribed: \(world.daemonLog.suffix(2000))")
        }
    }

    /// Mosquitto loses its packet id counter; identical heartbeats under the same ids are other messages.
    @Test func heartbeatsUnderIDsThatBeganAgainAreRecorded_emqx16296() async throws {
        let world = try World(postgres: try PostgresServer.shared.get(), brokerLines: ["autosave_interval 3600"])
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilQuiet()
        try world.broker.save()
        try await publish(50, to: world)
        try await world.untilQuiet()
        world.broker.kill()
        #expect(await eventually(within: 30) { world.status()?.brokers.first?.connected == false })
        try world.broker.start()
        try await reconnected(world)
        // The SUBACK, behind which nothing is redelivered, is on record.
        try await world.untilQuiet()
        world.freezeDaemon()
        try await publish(50, to: world)
        world.killDaemon()
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let count = try heartbeats(in: world)
        #expect(count == 100)
        #expect(world.stopDaemon().exitCode == 0)
    }

    /// 65,535 identical heartbeats later the packet id is the same again.
    @Test func theHeartbeatBehindAFullRoundOfIDsIsRecorded_emqx16296() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(["--set", "gate.burst=1000000"])
        try await world.untilSubscribed()
        try await publish(65_535, to: world)
        try await world.untilQuiet()
        world.freezeDaemon()
        try await publish(1, to: world)
        world.killDaemon()
        try world.startDaemon(["--set", "gate.burst=1000000"])
        try await world.untilSubscribed()
        // Its redelivery becomes durable a moment after the connection is reported.
        #expect(await eventually(within: 30) { (try? heartbeats(in: world)) == 65_536 })
        world.killDaemon()
    }

    /// What a device sent while we were away comes at our rate of reading, not at its own; also out of the session of
    /// an earlier client id.
    @Test(arguments: ["first", "second"])
    func aBacklogIsNotRateLimited_thingsboard15685(node: String) async throws {
        let limits = ["--set", "gate.rate_per_second=50", "--set", "gate.burst=10"]
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(limits + ["--node", "first"])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        _ = world.stopDaemon()
        try await publish(140, to: world) { "{\"seq\":\($0)}" }
        // 140 messages at 50 a second take 2.8 s.
        try await Task.sleep(for: .seconds(3))
        try world.startDaemon(limits + ["--node", node])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let count = try heartbeats(in: world)
        #expect(count == 140)
        // The limit holds for what is sent now.
        #expect(await eventually(within: 20) { world.status()?.state == "healthy" })
        world.killDaemon()
    }

    /// Another node name is another client id; the session of the first one still collects messages.
    @Test func anotherNodeNameLosesNothing_telegraf797() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(["--node", "first"])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        _ = world.stopDaemon()
        try await publish(20, to: world) { "{\"seq\":\($0)}" }
        try world.startDaemon(["--node", "second"])
        try await world.untilSubscribed()
        try await publish(20, to: world) { "{\"seq\":\($0 + 20)}" }
        #expect(
            await eventually(within: 60) {
                world.status().map { $0.state == "healthy" && $0.reasons.isEmpty } ?? false
            })
        try await publish(20, to: world) { "{\"seq\":\($0 + 40)}" }
        try await world.untilQuiet()
        let log = try world.log().filter { $0.key.contains("/heartbeat ") }
        #expect(log.count == 60)
        let events = try world.run(["log", "cat", "--data", world.data, "--kind", "connection", "--json"])
        #expect(events.out.contains("broker.session_drained/1"))
        // The old session is gone: a third start has nothing to empty.
        _ = world.stopDaemon()
        try world.startDaemon(["--node", "second"])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let again = try world.run(["log", "cat", "--data", world.data, "--kind", "connection", "--json"])
        #expect(again.out.ranges(of: "broker.session_drained/1").count == 1)
        world.killDaemon()
    }

    /// A marker separates the messages that both sessions receive. A stop between the CONNECT and the SUBSCRIBE of the
    /// new session leaves one without a subscription, which is resumed.
    @Test(arguments: [("5", false), ("3.1.1", false), ("5", true), ("3.1.1", true)])
    func newClientIDsUnderTrafficRecordEachMessageOnce(version: String, isResumed: Bool) async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        func start(_ node: String) async throws {
            try world.startDaemon(["--node", node, "--set", "broker.protocol=\(version)"])
            try await world.untilSubscribed()
        }
        try await start("n0")
        try await world.untilQuiet()
        let publisher = try TestPublisher(port: world.broker.port)
        let traffic = Task {
            var count = 0
            while !Task.isCancelled {
                try publisher.publish("tenant/acme/device/d/heartbeat", "{\"seq\":\(count / 2)}".utf8)
                count += 1
                try? await Task.sleep(for: .milliseconds(2))
            }
            try await publisher.flush()
            return count
        }
        let logID = try #require(try events("broker.connected/1", in: world).first?.clientID.split(separator: "-").last)
        for round in 1...3 {
            #expect(world.stopDaemon().exitCode == 0)
            if isResumed {
                var options = TestPublisher.Options()
                (options.clientID, options.sessionSeconds) = ("refold-n\(round)-\(logID)", 3_600)
                _ = try TestPublisher(port: world.broker.port, options: options)
            }
            try await start("n\(round)")
            let isDrained = try await eventually(within: 60) {
                try events("broker.session_drained/1", in: world).count == round
            }
            #expect(isDrained)
        }
        traffic.cancel()
        let count = try await traffic.value
        try await world.untilQuiet()
        let recorded = try heartbeats(in: world)
        let wrong = recorded == count ? "" : try whatIsWrong(in: world, published: count)
        #expect(recorded == count, "\(wrong)")
        // Otherwise the test proves nothing.
        let resumed = try events("broker.connected/1", in: world).filter { $0.sessionPresent == true }
        #expect(resumed.count == (isResumed ? 3 : 0))
        let common = try events("broker.redelivered/1", in: world).filter { $0.packetIDs == nil }
        #expect(common.compactMap(\.count).reduce(0, +) > 0, "no message came while both sessions received")
        world.killDaemon()
    }

    /// If access rules forbid the marker, Refold warns and loses no message.
    @Test func aForbiddenHandoverTopicLosesNothing() async throws {
        let folder = try makeTemporaryFolder("acl"), rules = folder + "/acl"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try "topic readwrite tenant/#\ntopic read $SYS/#\n".write(toFile: rules, atomically: true, encoding: .utf8)
        let world = try World(postgres: try PostgresServer.shared.get(), brokerLines: ["acl_file \(rules)"])
        try world.startDaemon(["--node", "first"])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        _ = world.stopDaemon()
        try await publish(50, to: world) { "{\"seq\":\($0)}" }
        try world.startDaemon(["--node", "second"])
        try await world.untilSubscribed()
        let isDrained = try await eventually(within: 60) {
            try events("broker.session_drained/1", in: world).count == 1
        }
        #expect(isDrained, "\(world.broker.logText.suffix(4000))")
        try await publish(50, to: world) { "{\"seq\":\($0 + 50)}" }
        try await world.untilQuiet()
        #expect(try world.log().filter { $0.key.contains("/heartbeat ") }.count == 100)
        #expect(world.daemonLog.contains("no answer to the probe"))
        world.killDaemon()
    }

    private func events(_ schema: String, in world: World) throws -> [BrokerEvent] {
        let cat = try world.run(["log", "cat", "--data", world.data, "--kind", "connection", "--json"])
        return try cat.out.split(separator: "\n").filter { $0.contains(schema) }.map { line in
            struct Event: Decodable { var payload: BrokerEvent }
            return try JSONDecoder().decode(Event.self, from: Data(line.utf8)).payload
        }
    }

    /// A second Refold with the client id of the first stops before it acknowledges anything.
    @Test func aSecondInstanceTakesNothing() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        let shared = ["--set", "broker.client_id=shared"]
        try world.startDaemon(shared)
        try await world.untilSubscribed()
        let other = try Second(beside: world, shared)
        #expect(
            await eventually(within: 30) {
                other.status?.reasons.contains { $0.contains("--adopt-session") } == true
            })
        try await reconnected(world)
        try await publish(100, to: world) { "{\"seq\":\($0)}" }
        try await world.untilQuiet()
        #expect(try heartbeats(in: world) == 100)
        #expect(other.status?.state == "degraded")
        other.kill()
        #expect(try world.run(["log", "cat", "--data", other.data, "--kind", "message", "--json"]).out.isEmpty)

        // One that was told to take it does, and the first one knows afterwards.
        let thief = try Second(beside: world, shared + ["--adopt-session"])
        #expect(await eventually(within: 30) { thief.status?.brokers.first?.subscribed == true })
        thief.freeze()
        thief.kill()
        world.killDaemon()
    }

    /// By default the log's id is in the client id: two logs never share a session.
    @Test func twoLogsWithOneNodeNameBothGetEverything() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        try await world.untilSubscribed()
        let other = try Second(beside: world, ["--node", "world"])
        #expect(await eventually(within: 30) { other.status?.brokers.first?.subscribed == true })
        try await publish(50, to: world) { "{\"seq\":\($0)}" }
        try await world.untilQuiet()
        #expect(try heartbeats(in: world) == 50)
        #expect(
            await eventually(within: 20) {
                ((try? world.run(["log", "cat", "--data", other.data, "--kind", "message", "--json"]))?.out
                    .split(separator: "\n").count ?? 0) == 50
            })
        other.kill()
        world.killDaemon()
    }
}

/// A second daemon with a data folder and a database of its own, at the same broker.
private final class Second {
    let data: String
    private let http = freeLoopbackPort()
    private let child: ChildProcess

    init(beside world: World, _ more: [String]) throws {
        data = world.folder + "/second-\(UUID().uuidString.prefix(8))"
        child = try world.refold(
            [
                "run", "--data", data, "--broker-url", world.broker.url, "--database-url",
                world.postgres.url(database: try world.postgres.makeDatabase()), "--http", "127.0.0.1:\(http)",
            ] + more, log: data + ".log")
    }

    deinit { kill() }

    var status: World.Status? {
        HTTP.body("http://127.0.0.1:\(http)/api/v1/status").flatMap {
            try? JSONDecoder().decode(World.Status.self, from: $0)
        }
    }

    func freeze() { child.kill(SIGSTOP) }

    func kill() {
        child.kill(SIGKILL)
        child.wait()
    }
}
