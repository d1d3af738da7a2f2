import Foundation
import TestSupport
import Testing
@testable import Enforcement

/// Connected clients of revoked certificates, cut by a daemon, also while PostgreSQL is away, and over kill -9 at every
/// step. `make demo-certs` prints how fast.
@Suite(.serialized) struct CutTests {
    @Test func eachRevocationCutsItsClient() async throws {
        let lab = try EnforcedWorld(), names = (1...5).map { "d\($0)" }
        try await lab.startDaemon(cutURL: lab.cutURL)
        defer { lab.world.killDaemon() }
        try await lab.begin(devices: names + ["bystander"])
        let bystander = try lab.connect("bystander")
        let token = try String(contentsOfFile: lab.world.data + "/token", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        for name in names {
            let client = try lab.connect(name)
            let answer = try await HTTP.send(
                "POST", "http://\(lab.world.http)/api/v1/tenants/acme/devices/\(name)/certificates/revoke",
                headers: ["Authorization": "Bearer \(token)"], json: Data("{}".utf8))
            #expect(answer.status == 200)
            #expect(await eventually { !lab.isAlive(client) }, "\(name)")
        }
        #expect(lab.isAlive(bystander))
        #expect(await eventually { (try? lab.events("client.cut/1").count) == names.count })
        let row = try lab.refold("crl", "list", "--tenant", "acme").out
        #expect(row.contains("IN FORCE AT") && row.contains("  main  "), "\(row)")
        let isFolded = await eventually { lab.world.status()?.isCaughtUp == true }
        let differences = try lab.world.naiveFoldDifferences()
        #expect(isFolded && differences == nil, "\(differences ?? "")")
        let crl = try #require(try lab.events("crl.proved/1").last?.firstMatch(of: /"number":(\d+)/)?.1)
        let asOf = try lab.refold(
            "replay", "as-of", "enforcement", "main", "fleet", String(crl), "--at", "2099-01-01T00:00:00Z", "--json")
        #expect(asOf.out.contains(/"cut": ?1,/) && asOf.out.contains(/"remaining": ?0,/), "\(asOf.out)")
        #expect(lab.world.stopDaemon().exitCode == 0)
    }

    @Test func clientsAreCutWhilePostgreSQLIsAway() async throws {
        let lab = try EnforcedWorld(database: "postgresql://nobody@127.0.0.1:\(freeLoopbackPort())/none")
        try await lab.startDaemon(cutURL: lab.cutURL)
        defer { lab.world.killDaemon() }
        try await lab.begin(devices: ["d1"])
        let client = try lab.connect("d1")
        _ = try lab.refold("cert", "revoke", "--tenant", "acme", "--device", "d1")
        #expect(await eventually(within: 20) { !lab.isAlive(client) })
        #expect(try !lab.isAccepted("d1"))
        #expect(lab.world.status()?.database.connected == false)
    }

    /// Killed while the CRL is issued, before and after the broker reads it, and in the middle of the cut.
    @Test func aKillAtEveryStepLosesNoCut() async throws {
        let lab = try EnforcedWorld(), steps = ["issue", "before", "after", "cut"]
        let folder = lab.world.folder, script = folder + "/reload.sh"
        try """
        [ -e \(lab.switchPath) ] || exit 1
        step=$(cat \(folder)/step 2> /dev/null); rm -f \(folder)/step
        [ "$step" = before ] && kill -9 $(cat \(folder)/daemon.pid)
        kill -HUP $(cat \(lab.devices.folder)/pid)
        [ "$step" = after ] && kill -9 $(cat \(folder)/daemon.pid)
        exit 0
        """.write(toFile: script, atomically: true, encoding: .utf8)
        // A listener that is no broker: whoever connects to cut is killed.
        let trap = try ScriptedBroker { _ in
            if let pid = Int32(try String(contentsOfFile: folder + "/daemon.pid", encoding: .utf8)) {
                kill(pid, SIGKILL)
            }
        }
        func start(cutURL: String) async throws {
            try await lab.startDaemon(reload: "sh \(script)", cutURL: cutURL)
            try "\(lab.world.daemon?.pid ?? 0)".write(toFile: folder + "/daemon.pid", atomically: true, encoding: .utf8)
        }
        try await start(cutURL: lab.cutURL)
        defer { lab.world.killDaemon() }
        try await lab.begin(devices: steps + ["bystander"])
        let bystander = try lab.connect("bystander")
        for step in steps {
            lab.world.killDaemon()
            try await start(cutURL: step == "cut" ? "mqtt://127.0.0.1:\(trap.port)" : lab.cutURL)
            try #require(await eventually(within: 30) { (try? lab.isProved) == true })
            let client = try lab.connect(step)
            if step == "before" || step == "after" {
                try step.write(toFile: folder + "/step", atomically: true, encoding: .utf8)
            }
            // The answer may be lost with the daemon.
            _ = try lab.world.run(
                [
                    "cert", "revoke", "--tenant", "acme", "--device", step, "--data", lab.world.data, "--http",
                    lab.world.http,
                ])
            if step == "issue" { lab.world.killDaemon() }
            let isDead = await eventually(within: 30) { lab.world.daemon?.isRunning != true }
            try #require(isDead, "\(step)")
            lab.world.killDaemon()
            if step != "issue" { #expect(lab.isAlive(client), "\(step): not cut yet") }
            try await start(cutURL: lab.cutURL)
            #expect(await eventually(within: 30) { !lab.isAlive(client) }, "\(step)")
            #expect(try !lab.isAccepted(step) && lab.isAlive(bystander), "\(step)")
        }
        #expect(await eventually { (try? lab.events("client.cut/1").count) == steps.count })
        #expect(lab.world.stopDaemon().exitCode == 0)
    }
}
