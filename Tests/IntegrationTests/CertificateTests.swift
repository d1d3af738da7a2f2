import Foundation
import TestSupport
import Testing

/// Certificates of a whole daemon: killed, restarted, and without its authority's key.
@Suite(.serialized) struct CertificateTests {
    private func post(_ world: World, _ path: String, _ body: String = "{}") async throws -> (
        status: Int, body: [String: Any]
    ) {
        let token = try String(contentsOfFile: world.data + "/token", encoding: .utf8)
        let answer = try await HTTP.send(
            "POST", "http://\(world.http)/api/v1/\(path)",
            headers: ["Authorization": "Bearer \(token.trimmingCharacters(in: .whitespacesAndNewlines))"],
            json: Data(body.utf8))
        return (answer.status, try JSONSerialization.jsonObject(with: answer.body) as? [String: Any] ?? [:])
    }

    private func crl(_ world: World) -> Data? { HTTP.body("http://\(world.http)/crl/ca.pem") }

    /// openssl's verdict about a certificate, by the CRL that the daemon serves.
    private func isRevoked(_ world: World, _ pem: String, _ crl: Data) throws -> Bool {
        let parts = pem.components(separatedBy: "-----END CERTIFICATE-----\n").map {
            $0 + "-----END CERTIFICATE-----\n"
        }
        for (name, text) in [("leaf.pem", Data(parts[0].utf8)), ("root.pem", Data(parts[1].utf8)), ("crl.pem", crl)] {
            try text.write(to: URL(fileURLWithPath: "\(world.folder)/\(name)"))
        }
        let child = try ChildProcess(
            [
                "openssl", "verify", "-crl_check", "-CAfile", "\(world.folder)/root.pem", "-CRLfile",
                "\(world.folder)/crl.pem", "\(world.folder)/leaf.pem",
            ], log: world.folder + "/openssl.log")
        child.wait()
        return child.exitCode != 0
    }

    /// A successor is below the same authority, so that brokers that trust that one accept its devices.
    @Test func aRotationKeepsTheAuthorityAbove() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        func ca(_ arguments: String..., code: Int32 = 0) throws -> World.Outcome {
            let outcome = try world.run(["ca"] + arguments + ["--data", world.data, "--http", world.http])
            #expect(outcome.code == code, "\(arguments): \(outcome)")
            return outcome
        }
        func chainLength(_ name: String) throws -> Int {
            try ca("show", name, "--tenant", "acme").out.components(separatedBy: "BEGIN CERTIFICATE").count - 1
        }
        _ = try ca("init", "root")
        _ = try ca("init", "a", "--tenant", "acme", "--issued-by", "root")
        _ = try ca("rotate", "a", "--to", "b", "--tenant", "acme")
        #expect(try chainLength("b") == 2)
        _ = try ca("init", "other")
        _ = try ca("rotate", "b", "--to", "c", "--tenant", "acme", "--issued-by", "other")
        #expect(try chainLength("c") == 2)
        // The authority above the old one is gone: the operator decides.
        _ = try ca("rotate", "other", "--to", "other-2")
        let refused = try ca("rotate", "c", "--to", "d", "--tenant", "acme", code: 1)
        #expect(refused.error.contains("was issued by other, which issues no certificates here"), "\(refused)")
        _ = try ca("rotate", "c", "--to", "d", "--tenant", "acme", "--self-signed")
        #expect(try chainLength("d") == 1)
        #expect(try chainLength("other-2") == 1, "a root is replaced by a root")
        #expect(world.stopDaemon().exitCode == 0)
    }

    @Test func revocationsSurviveAKillAndAMissingKey() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        #expect(try await post(world, "authorities", #"{"id":"ca"}"#).status == 201)
        var pems: [String] = []
        for device in ["d1", "d2"] {
            let issued = try await post(
                world, "tenants/acme/certificates", #"{"device":"\#(device)","generate_key":"P-256"}"#)
            let items = issued.body["items"] as? [[String: Any]]
            pems.append(try #require(items?.first?["certificate"] as? String, "\(issued)"))
        }
        try #require(await eventually(within: 20) { crl(world) != nil })
        #expect(try !isRevoked(world, pems[0], try #require(crl(world))))
        #expect(try await post(world, "tenants/acme/devices/d1/certificates/revoke").status == 200)
        #expect(
            await eventually(within: 20) { crl(world).map { (try? isRevoked(world, pems[0], $0)) == true } ?? false })
        let before = try #require(crl(world))
        #expect(try !isRevoked(world, pems[1], before))

        // The key goes while the daemon is down. What brokers were given last is served, a revocation is recorded.
        world.killDaemon()
        let keys = world.data + "/authorities", hidden = world.folder + "/hidden"
        try FileManager.default.moveItem(atPath: keys, toPath: hidden)
        try world.startDaemon()
        try await world.untilSubscribed()
        #expect(crl(world) == before, "byte for byte")
        #expect(try await post(world, "tenants/acme/devices/d2/certificates/revoke").status == 200)
        let refused = try await post(world, "tenants/acme/certificates", #"{"device":"d3","generate_key":"P-256"}"#)
        #expect(refused.status == 503 && refused.body["code"] as? String == "key_unavailable", "\(refused)")
        #expect(
            await eventually(within: 20) {
                world.status()?.reasons.contains { $0.contains("cannot issue a CRL of the authority ca") } ?? false
            }, "\(world.status()?.reasons ?? [])")
        #expect(world.status()?.state == "degraded" && crl(world) == before)
        // It is tried again every 10 s, not at every round of the decider.
        let attempts = world.daemonLog.components(separatedBy: "no CRL issued").count - 1
        #expect(attempts == 1, "reported once")

        try FileManager.default.moveItem(atPath: hidden, toPath: keys)
        #expect(
            await eventually(within: 30) { crl(world).map { (try? isRevoked(world, pems[1], $0)) == true } ?? false },
            "\(world.daemonLog.suffix(2_000))")
        #expect(await eventually(within: 10) { world.status()?.reasons.contains { $0.contains("CRL") } == false })
        #expect(world.stopDaemon().exitCode == 0)
    }
}
