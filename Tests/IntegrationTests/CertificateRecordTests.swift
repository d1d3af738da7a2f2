import EventModel
import Foundation
import TestSupport
import Testing

/// What the log's files say about certificates: CRLs of the past, files compared with them, access rules.
@Suite(.serialized) struct CertificateRecordTests {
    private func run(_ world: World, _ arguments: String..., remote: Bool = true) throws -> World.Outcome {
        try run(world, arguments, remote: remote)
    }

    private func run(_ world: World, _ arguments: [String], remote: Bool = true) throws -> World.Outcome {
        try world.run(arguments + ["--data", world.data] + (remote ? ["--http", world.http] : []))
    }

    /// Runs a verb that must succeed.
    private func refold(_ world: World, _ arguments: String..., remote: Bool = true) throws -> World.Outcome {
        let outcome = try run(world, arguments, remote: remote)
        #expect(outcome.code == 0, "\(arguments): \(outcome.error)")
        return outcome
    }

    private func issue(_ world: World, _ devices: String...) throws {
        for device in devices {
            _ = try refold(
                world, "cert", "issue", "--tenant", "acme", "--device", device, "--generate-key", "P-256", "--out",
                world.folder)
        }
    }

    private func crl(_ world: World) -> String? {
        HTTP.body("http://\(world.http)/crl/ca.pem").map { String(decoding: $0, as: UTF8.self) }
    }

    /// Positions of the events of a schema.
    private func positions(_ world: World, _ schema: String) throws -> [String] {
        try refold(world, "log", "cat", "--json", remote: false).out.split(separator: "\n")
            .filter { $0.contains("\"\(schema)\"") }.compactMap {
                $0.firstMatch(of: /"position":(\d+)/).map { String($0.1) }
            }
    }

    @Test func anEarlierCRLIsRebuiltFromTheLog() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        for verb in [["crl", "list"], ["cert", "list"], ["cert", "expiring"], ["cert", "audit"]] {
            let none = try run(world, verb + ["--tenant", "acme"])
            #expect(
                none.code == 0 && none.out.contains("the tenant acme has no certificates and no authority"), "\(none)")
        }
        _ = try refold(world, "ca", "init", "ca")
        try issue(world, "d1", "d2")
        try #require(await eventually(within: 20) { crl(world) != nil })
        for (tenant, isUnknown) in [("acmee", true), ("acme", false)] {
            let list = try refold(world, "crl", "list", "--tenant", tenant)
            #expect(list.out.contains("ca  "), "an authority of all tenants")
            #expect(list.error.contains("the tenant \(tenant) has no certificates") == isUnknown, "\(list)")
        }
        let part = try run(world, "cert", "show", "ca/4f21…", "--tenant", "acme")
        #expect(part.code == 1 && part.error.contains("there is no certificate ca/4f21…"), "\(part)")
        let first = try #require(crl(world))
        _ = try refold(world, "cert", "hold", "--tenant", "acme", "--device", "d1")
        try #require(await eventually(within: 20) { crl(world).map { $0 != first } ?? false })
        let second = try #require(crl(world))
        _ = try refold(world, "cert", "release", "--tenant", "acme", "--device", "d1")
        _ = try refold(world, "cert", "revoke", "--tenant", "acme", "--device", "d2")
        try #require(await eventually(within: 20) { crl(world).map { ![first, second].contains($0) } ?? false })

        let issued = try positions(world, "crl.issued/1"),
            added = try #require(positions(world, "authority.added/1").first)
        #expect(try refold(world, "crl", "show", "ca", "--at", issued[0]).out == first)
        #expect(try refold(world, "crl", "show", "ca", "--at", issued[1]).out == second)
        let before = try run(world, "crl", "show", "ca", "--at", added)
        #expect(before.code == 1 && before.out.isEmpty && before.error.contains("had no CRL at position \(added)"))
        #expect(try run(world, "crl", "show", "ca", "--at", "noon").code == 2)
        for at in [[], ["--at", added]] {
            let unknown = try world.run(
                ["crl", "show", "nosuch", "--data", world.data, "--http", world.http] + at)
            #expect(unknown.code != 0 && unknown.error.contains("there is no authority nosuch"), "\(unknown)")
        }
        // Over HTTP, by position and by time.
        func past(_ at: String, tenant: String = "acme") throws -> [String: Any] {
            let body = HTTP.body("http://\(world.http)/api/v1/tenants/\(tenant)/crls/ca?at=\(at)")
            return try JSONSerialization.jsonObject(with: body ?? Data("{}".utf8)) as? [String: Any] ?? [:]
        }
        let answer = try past(issued[1])
        #expect(answer["pem"] as? String == second && answer["position"] as? Int == Int(issued[1]))
        let time = try #require(
            (try refold(world, "crl", "show", "ca", "--at", issued[1], "--json").object())["issued_at"])
        #expect(try past("\(time)")["pem"] as? String == second)
        #expect(try past(added)["pem"] == nil)
        #expect(try past(issued[1], tenant: "other")["pem"] as? String == second, "an authority of all tenants")

        // From a snapshot, without a daemon.
        _ = try refold(world, "snapshot", "create")
        let last = try #require(crl(world))
        #expect(world.stopDaemon().exitCode == 0)
        #expect(try refold(world, "crl", "show", "ca", "--at", issued[1]).out == second)
        let now = "\(Timestamp(microseconds: Int64(Date().timeIntervalSince1970 * 1e6)))"
        #expect(try refold(world, "crl", "show", "ca", "--at", now).out == last)
        let future = try run(world, "crl", "show", "ca", "--at", "2099-01-01T00:00:00Z")
        #expect(future.code == 2 && future.out.isEmpty && future.error.contains("is in the future; the log ends at 2"))

        try await checkFiles(world, [first, second], issued)
        try checkForms(world, last)
    }

    /// A CRL with the text that `openssl crl -text` puts before it, and in DER.
    private func checkForms(_ world: World, _ last: String) throws {
        let file = world.folder + "/last"
        try (String(repeating: "0 comment\n", count: 1_000) + last).write(
            toFile: file + ".txt", atomically: true, encoding: .utf8)
        try last.write(toFile: file + ".pem", atomically: true, encoding: .utf8)
        try ChildProcess(
            ["openssl", "crl", "-in", file + ".pem", "-outform", "DER", "-out", file + ".crl"], log: file + ".log"
        ).wait()
        for form in [".txt", ".pem", ".crl"] {
            let checked = try refold(world, "crl", "check", file + form, "--json", remote: false)
            #expect(checked.out.contains(#""result":"as issued; the newest""#), "\(form): \(checked)")
        }
        try "".write(toFile: file, atomically: true, encoding: .utf8)
        #expect(try run(world, "crl", "check", file, remote: false).code == 1)
    }

    private func checkFiles(_ world: World, _ lists: [String], _ issued: [String]) async throws {
        let file = world.folder + "/crls.pem"
        try (lists.joined()).write(toFile: file, atomically: true, encoding: .utf8)
        let both = try refold(world, "crl", "check", file, "--json", remote: false).out.split(separator: "\n")
        #expect(both.count == 2)
        for (line, position) in zip(both, issued) {
            #expect(
                line.contains("\"position\":\(position)") && line.contains("as issued; superseded by CRL "), "\(line)")
        }
        // Another CRL of the same number, signed with the authority's key.
        let keys = try FileManager.default.contentsOfDirectory(atPath: world.data + "/authorities")
        let shown = try #require(both.first?.firstMatch(of: /"number":(\d+)/)?.1), number = try #require(UInt64(shown))
        let hex = String(number, radix: 16), folder = world.folder
        let script = """
            cd \(folder) && : > index && echo \(hex.count % 2 == 0 ? hex : "0" + hex) > number && cat > cnf <<END
            [ca]
            default_ca = d
            [d]
            database = index
            crlnumber = number
            default_md = sha256
            default_crl_days = 1
            crl_extensions = e
            [e]
            END
            \(World.program) ca show ca --tenant acme --data \(world.data) --http \(world.http) > ca.pem
            openssl ca -config cnf -gencrl -keyfile \(world.data)/authorities/\(keys[0]) -cert ca.pem -out other.pem
            """
        try world.startDaemon()
        try #require(await eventually(within: 60) { world.status() != nil })
        let shell = try ChildProcess(["/bin/sh", "-ec", script], log: folder + "/shell.log")
        shell.wait()
        #expect(shell.exitCode == 0, "\((try? String(contentsOfFile: folder + "/shell.log", encoding: .utf8)) ?? "")")
        let other = try run(world, "crl", "check", folder + "/other.pem", remote: false)
        #expect(other.code == 1 && other.out.contains("differs from the log: 0 entries added, 1 removed"), "\(other)")
        // Signed by none of ours.
        var bytes = Array(lists[0].utf8)
        bytes.replaceSubrange(bytes.count - 60..<bytes.count - 56, with: Array("AAAA".utf8))
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        let forged = try run(world, "crl", "check", file, remote: false)
        #expect(forged.code == 1 && forged.out.contains("no authority in the log signed it"), "\(forged)")
        #expect(try run(world, "crl", "check", folder + "/cnf", remote: false).code == 1)
    }

    /// A Mosquitto with the printed list: a device cannot publish on another's topic, and Refold receives all.
    @Test func accessRulesKeepDevicesApart() async throws {
        let plain = freeLoopbackPort()
        let server = try MosquittoServer(
            tls: true, clientCertificates: true,
            lines: ["acl_file $folder/acl", "use_identity_as_username true", "listener \(plain) 127.0.0.1"],
            started: false)
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        let folder = server.folder
        _ = try refold(
            world, "ca", "import", "fleet", "--certificates", folder + "/ca.pem", "--key", folder + "/ca.key")
        try issue(world, "d1", "d2", "d3")
        _ = try refold(world, "cert", "revoke", "--tenant", "acme", "--device", "d3")
        let rules = ["cert", "acl", "--broker-type", "mosquitto", "--refold-user", "refold", "--data", world.data]
        let made = try world.run(rules + ["--out", folder + "/acl"])
        #expect(made.code == 0 && made.error.contains("rules for 2 devices"), "\(made)")
        let text = try String(contentsOfFile: folder + "/acl", encoding: .utf8)
        #expect(try world.run(rules).out == text)
        #expect(text.contains("user acme/d1\n") && !text.contains("d3"), "a revoked device has no rules")
        #expect(try world.run(rules + ["--tenant", "other"]).out.contains("user refold\n"))
        #expect(try !world.run(rules + ["--tenant", "other"]).out.contains("acme"))
        let emqx = try world.run(["cert", "acl", "--broker-type", "emqx", "--data", world.data])
        #expect(emqx.out.contains(#"{allow, {username, "acme/d1"}, publish, ["tenant/acme/device/d1/telemetry""#))

        try server.start()
        let log = world.folder + "/witness.log"
        let witness = try ChildProcess(
            [
                "mosquitto_sub", "-p", "\(plain)", "-u", "refold", "-q", "1", "-t", "tenant/+/device/+/#", "-C",
                "2", "-F", "got %t",
            ], log: log)
        defer { witness.kill(SIGKILL) }
        func seen() -> String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }
        try #require(await eventually(within: 20) { server.logText.contains("Sending SUBACK") })
        for (device, topic) in [("d1", "d2"), ("d2", "d1"), ("d1", "d1"), ("d2", "d2")] {
            try ChildProcess(
                [
                    "mosquitto_pub", "-p", "\(server.port)", "-h", "127.0.0.1", "--cafile", folder + "/ca.pem",
                    "--cert", "\(world.folder)/\(device).pem", "--key", "\(world.folder)/\(device).key", "-q", "1",
                    "-t", "tenant/acme/device/\(topic)/telemetry", "-m", "from \(device)",
                ], log: world.folder + "/pub.log"
            ).wait()
        }
        #expect(await eventually(within: 20) { !witness.isRunning })
        let got = seen().split(separator: "\n").filter { $0.hasPrefix("got") }
        #expect(got == ["got tenant/acme/device/d1/telemetry", "got tenant/acme/device/d2/telemetry"], "\(seen())")
    }

    /// Of a certificate whose device sends after the revocation: its row of the table, and no list, is read.
    private func findingsOfOne(_ world: World) async throws {
        _ = try refold(world, "cert", "revoke", "--tenant", "acme", "--device", "d1", "--reason", "keyCompromise")
        _ = try world.postgres.psql(
            "update refold.device_status set last_seen_at = now() + interval '5 minutes' where device_id = 'd1'",
            database: world.database)
        let listed = try refold(world, "cert", "list", "--tenant", "acme").out
        let serial = try #require(listed.firstMatch(of: /ca\/([0-9a-f]+)/)?.1)
        let path = "http://\(world.http)/api/v1/tenants/acme/certificates/findings?authority=ca&serial=\(serial)"
        let answer = try JSONSerialization.jsonObject(with: HTTP.body(path) ?? Data()) as? [String: Any]
        let codes = (answer?["items"] as? [[String: Any]])?.map { $0["code"] as? String }
        #expect(codes == ["revoked_sending"] && answer?["senders_unknown"] is NSNull, "\(answer ?? [:])")
    }

    /// Findings follow from the registry, the key folder and the table of devices; scripts see them by the exit code.
    @Test func findingsOfARunningDaemon() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        try world.startDaemon()
        defer { world.killDaemon() }
        try await world.untilSubscribed()
        _ = try refold(world, "ca", "init", "ca")
        try issue(world, "d1")
        let devices = try TestPublisher(port: world.broker.port)
        try devices.publish("tenant/acme/device/d1/telemetry", #"{"metrics":{"n":1}}"#.utf8)
        try devices.publish("tenant/acme/device/d9/telemetry", #"{"metrics":{"n":1}}"#.utf8)
        try await world.untilQuiet()
        func audit() throws -> (code: Int32, items: [[String: Any]]) {
            let outcome = try run(world, "cert", "audit", "--tenant", "acme", "--json")
            return (outcome.code, try outcome.object()["items"] as? [[String: Any]] ?? [])
        }
        #expect(await eventually(within: 60) { (try? audit().items.count) == 1 })
        let first = try audit(), item = try #require(first.items.first)
        #expect(first.code == 0 && item["code"] as? String == "no_certificate" && item["device"] as? String == "d9")
        let evidence = try #require((item["evidence"] as? [[String: Any]])?.first?["position"] as? Int)
        let event = try refold(world, "log", "cat", "--from", "\(evidence)", "--limit", "1", remote: false).out
        #expect(event.contains("tenant/acme/device/d9/telemetry"), "\(event)")
        let metrics = String(decoding: HTTP.body("http://\(world.http)/metrics") ?? Data(), as: UTF8.self)
        #expect(metrics.contains("refold_certificate_findings{code=\"no_certificate\"} 1\n"))

        let keys = world.data + "/authorities"
        try FileManager.default.moveItem(atPath: keys, toPath: keys + ".aside")
        #expect(await eventually(within: 60) { (try? audit().code) == 1 })
        try await findingsOfOne(world)
        let text = try run(world, "cert", "audit", "--tenant", "acme")
        #expect(text.out.contains("HIGH  authority_key_missing  authority ca") && text.out.contains("No such file"))
        let one = try run(world, "cert", "audit", "--tenant", "acme", "--code", "no_certificate")
        #expect(one.code == 0 && one.out.contains("device d9") && !one.out.contains("authority ca"))
        #expect(world.stopDaemon().exitCode == 0)
    }
}
