import Foundation
import TestSupport
import Testing

/// `certificates.enforce` at a whole daemon: revocations while devices send, a restart, and the report.
@Suite(.serialized) struct CertificateGateTests {
    private struct Message {
        let position: Int
        let device: String
        let verdict: String
    }

    private func api(_ world: World, _ method: String, _ path: String, _ body: String? = nil) async throws -> [String:
        Any]
    {
        let token = try String(contentsOfFile: world.data + "/token", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let answer = try await HTTP.send(
            method, "http://\(world.http)/api/v1/\(path)", headers: ["Authorization": "Bearer \(token)"],
            json: body.map { Data($0.utf8) })
        guard (200..<300).contains(answer.status) else {
            throw SystemError("\(method) \(path): \(answer.status) \(String(decoding: answer.body, as: UTF8.self))")
        }
        return try JSONSerialization.jsonObject(with: answer.body) as? [String: Any] ?? [:]
    }

    private func messages(_ world: World) throws -> [Message] {
        struct Line: Decodable {
            var position: Int
            var kind: String
            var topic: String
            var verdict: String
        }
        let outcome = try world.run(["log", "cat", "--json", "--data", world.data])
        return try outcome.out.split(separator: "\n").compactMap { text in
            let line = try JSONDecoder().decode(Line.self, from: Data(text.utf8))
            guard line.kind == "message" else { return nil }
            return Message(
                position: line.position, device: String(line.topic.split(separator: "/")[3]), verdict: line.verdict)
        }
    }

    private func metric(_ world: World, _ sample: String) -> String? {
        HTTP.body("http://\(world.http)/metrics").flatMap { body in
            String(decoding: body, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix(sample + " ") }
                .map { String($0.dropFirst(sample.count + 1)) }
        }
    }

    private func withoutCertificate(_ world: World) async throws -> Int? {
        let brokers = try await api(world, "GET", "status")["brokers"] as? [[String: Any]]
        return brokers?.first?["without_certificate"] as? Int
    }

    private func publish(_ publisher: TestPublisher, _ device: String) throws {
        try publisher.publish("tenant/acme/device/\(device)/telemetry", #"{"metrics":{"a":1}}"#.utf8)
    }

    @Test func noMessageBehindARevocationIsAccepted() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(["--set", "certificates.enforce=enforce"])
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        _ = try await api(world, "POST", "authorities", #"{"id":"ca"}"#)
        let devices = (0..<12).map { "d\($0)" }
        for device in devices {
            _ = try await api(
                world, "POST", "tenants/acme/certificates", #"{"device":"\#(device)","generate_key":"P-256"}"#)
        }
        // Each publisher sends for all devices, as long as revocations go on.
        let port = world.broker.port
        let publishers = (0..<3).map { _ in
            Task.detached {
                let publisher = try TestPublisher(port: port)
                while !Task.isCancelled {
                    for device in devices { try publish(publisher, device) }
                    try await publisher.flush()
                }
            }
        }
        func untilMore() async -> Bool {
            let before = world.status()?.log.durable ?? 0
            return await eventually(within: 20) { (world.status()?.log.durable ?? 0) > before + 200 }
        }
        #expect(await untilMore())
        var positions: [String: Int] = [:]
        for (index, device) in devices.dropLast().enumerated() {
            let verb = index % 3 == 2 ? "hold" : "revoke"
            let answer = try await api(world, "POST", "tenants/acme/devices/\(device)/certificates/\(verb)", "{}")
            positions[device] = try #require(answer["position"] as? Int, "\(answer)")
        }
        #expect(await untilMore())
        for publisher in publishers { publisher.cancel() }
        for publisher in publishers { _ = await publisher.result }
        try await world.untilQuiet()
        var messages = try messages(world)
        for device in devices {
            let own = messages.filter { $0.device == device }, end = positions[device] ?? .max
            #expect(own.allSatisfy { ($0.verdict == "ACCEPTED") == ($0.position < end) }, "\(device) at \(end)")
            #expect(own.contains { $0.position < end } && (end == .max || own.contains { $0.position > end }))
        }
        // A device without a certificate that sends is a finding, although all its messages are refused.
        let stranger = try TestPublisher(port: port)
        try publish(stranger, "stranger")
        try await stranger.flush()
        try await world.untilQuiet()
        #expect(
            await eventually(within: 60) {
                let answer = try? await api(world, "GET", "tenants/acme/certificates/findings?code=no_certificate")
                return (answer?["items"] as? [[String: Any]])?.map { $0["device"] as? String } == ["stranger"]
            })
        messages = try self.messages(world)
        // Shown where other refused messages are.
        let refused = messages.filter { $0.verdict == "CERT_MISMATCH" }
        #expect(try await withoutCertificate(world) == refused.count)
        #expect(metric(world, #"refold_verdicts_total{verdict="CERT_MISMATCH"}"#) == "\(refused.count)")
        #expect(metric(world, #"refold_messages_without_certificate_total{broker="main"}"#) == "\(refused.count)")
        let letters = try await api(world, "GET", "dead-letters?reason=CERT_MISMATCH&limit=1")
        #expect(
            (letters["items"] as? [[String: Any]])?.first?["details"] as? String
                == "The device had no live certificate.")

        // After a kill the same devices are refused; a released one is not.
        world.killDaemon()
        let publisher = try TestPublisher(port: port)
        for device in devices { try publish(publisher, device) }
        try await publisher.flush()
        try world.startDaemon(["--set", "certificates.enforce=enforce"])
        try await world.untilSubscribed()
        try await world.untilQuiet()
        let after = try self.messages(world).suffix(devices.count)
        #expect(after.filter { $0.verdict == "ACCEPTED" }.map(\.device) == ["d11"])
        _ = try await api(world, "POST", "tenants/acme/devices/d2/certificates/release", "{}")
        try publish(publisher, "d2")
        try await publisher.flush()
        try await world.untilQuiet()
        #expect(try self.messages(world).last?.verdict == "ACCEPTED")
        #expect(world.stopDaemon().exitCode == 0)
    }

    @Test func aReportShowsWhatWouldBeRefused() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon(["--set", "certificates.enforce=report"])
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        let publisher = try TestPublisher(port: world.broker.port)
        for _ in 0..<3 { try publish(publisher, "d1") }
        try await publisher.flush()
        try await world.untilQuiet()
        #expect(try messages(world).map(\.verdict) == ["ACCEPTED", "ACCEPTED", "ACCEPTED"])
        #expect(try await withoutCertificate(world) == 3)
        #expect(
            metric(
                world,
                #"refold_device_without_certificate_total{broker="main",tenant="acme",device="d1"}"#) == "3")
        let gate = try await api(world, "GET", "tenants/acme/devices/d1")["gate"] as? [String: Any]
        #expect(gate?["without_certificate"] as? Int == 3)
        let status = try world.run(["status", "--http", world.http, "--data", world.data])
        #expect(status.out.contains("3 messages of devices without a live certificate"), "\(status.out)")
        let missing = try world.run(["cert", "missing", "--tenant", "acme", "--http", world.http, "--data", world.data])
        #expect(missing.out.contains("d1") && missing.code == 0, "\(missing)")
        #expect(try await api(world, "GET", "tenants/globex/certificates/missing")["items"] as? [Int] == [])
        world.killDaemon()

        // By default certificates do not matter.
        try world.startDaemon()
        try await world.untilSubscribed()
        #expect(try await withoutCertificate(world) == nil)
    }

    /// Neither accepted nor refused unseen: messages wait at the broker until an operator has given up the loss.
    @Test func withoutReadableCertificatesNothingIsReceived() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        _ = try await api(world, "POST", "authorities", #"{"id":"ca"}"#)
        world.killDaemon()
        try damage("authority.added", in: world)
        let publisher = try TestPublisher(port: world.broker.port)
        try publish(publisher, "d1")
        try await publisher.flush()
        try world.startDaemon(["--set", "certificates.enforce=enforce"])
        let waits = await eventually(within: 60) {
            world.status()?.reasons.contains { $0.contains("no message is received") } == true
        }
        #expect(waits, "\(String(describing: world.status()))")
        #expect(world.status()?.brokers.first?.connected == false)
        #expect(try messages(world).isEmpty)
        let repaired = try world.run([
            "log", "repair", "--accept-loss", "--operator", "kim", "--reason", "no backup", "--yes", "--data",
            world.data, "--http", world.http,
        ])
        #expect(repaired.code == 0, "\(repaired.error)")
        try await world.untilSubscribed()
        #expect(await eventually(within: 20) { (try? messages(world).map(\.verdict)) == ["CERT_MISMATCH"] })
    }

    /// Flips a bit where the log has `text`.
    private func damage(_ text: String, in world: World) throws {
        let folder = world.data + "/log"
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".seg") }
        let path = "\(folder)/\(try #require(names.first))"
        var bytes = [UInt8](try #require(FileManager.default.contents(atPath: path)))
        let place = try #require(bytes.firstRange(of: Array(text.utf8)))
        bytes[place.lowerBound] ^= 4
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }
}
