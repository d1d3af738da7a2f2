import Foundation
import TestSupport
import Testing

/// `make demo-certs` with few devices: certificates, a revocation, and a rotation with renewals over MQTT, at a real
/// Mosquitto that requires certificates.
@Suite(.serialized) struct RenewalTests {
    @Test func aFleetIsRenewedOntoANewAuthority() throws {
        let folder = try makeTemporaryFolder("renewal"), output = folder + "/demo.log"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path
        let demo = try ChildProcess(
            ["env", "BENCH_REFOLD=\(World.program)", "python3", root + "/bench/demo_certs.py", "--devices", "8"],
            log: output)
        demo.wait()
        let text = (try? String(contentsOfFile: output, encoding: .utf8)) ?? ""
        #expect(demo.exitCode == 0, "\(text)")
        #expect(text.contains("7 devices renewed over MQTT") && !text.contains("WRONG"), "\(text)")
    }

    /// What the broker retains for a device, as it gets it when it subscribes; nil: nothing.
    private func retained(_ site: Site, _ device: String) throws -> [String: Any]? {
        let output = site.world.folder + "/retained"
        let child = try ChildProcess(
            [
                "mosquitto_sub", "-h", "127.0.0.1", "-p", "\(site.world.broker.port)", "-t",
                "tenant/acme/device/\(device)/certificate", "-C", "1", "-W", "2", "-q", "1",
            ], log: output)
        child.wait()
        let text = (try? Data(contentsOf: URL(fileURLWithPath: output))) ?? Data()
        try? FileManager.default.removeItem(atPath: output)
        return try? JSONSerialization.jsonObject(with: text) as? [String: Any]
    }

    private func certificates(_ site: Site, _ query: String) async throws -> [[String: Any]] {
        try await site.api("GET", "/tenants/acme/certificates?\(query)")["items"] as? [[String: Any]] ?? []
    }

    private func request(_ site: Site, _ renewal: Int) throws -> String {
        let path = site.world.folder + "/device"
        let child = try ChildProcess(
            [
                "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                path + ".key", "-out", path + ".csr", "-subj", "/CN=x",
            ], log: path + ".log")
        child.wait()
        let csr = try String(contentsOfFile: path + ".csr", encoding: .utf8)
        let json = try JSONSerialization.data(withJSONObject: ["renewal_id": renewal, "csr": csr] as [String: Any])
        return String(decoding: json, as: UTF8.self)
    }

    /// The device is away when it is asked, sends a bad request first, and answers while the daemon is down.
    @Test func anOfflineDeviceIsRenewedAcrossAKill() async throws {
        let site = try await Site()
        try await site.api("POST", "/tenants/acme/authorities", ["id": "ca"])
        try await site.api("POST", "/tenants/acme/certificates", ["device": "d1", "generate_key": "P-256"])
        try await site.api("POST", "/tenants/acme/authorities", ["id": "next", "replaces": "ca"])
        try await site.api("POST", "/tenants/acme/devices/d1/certificates/renew")
        #expect(
            try await eventually { try retained(site, "d1")?["action"] as? String == "certificate_renew" },
            "\(site.world.daemonLog.suffix(2_000))")
        let renewal = try #require(try retained(site, "d1")?["renewal_id"] as? Int)

        try site.publish("d1", "certificate/request", #"{"renewal_id":\#(renewal),"csr":"no request"}"#)
        func row() async throws -> [String: Any]? {
            try await certificates(site, "device=d1&renewing=true").first?["renewal"] as? [String: Any]
        }
        #expect(
            await eventually {
                ((try? await row())?["error"] as? String)?.contains("certificate request") ?? false
            })
        // A command that somebody else sends is no command of ours, and changes nothing.
        try site.publish("d1", "certificate", #"{"action":"certificate_install","command_id":\#(renewal)}"#)

        site.world.killDaemon()
        try site.publish("d1", "certificate/request", try request(site, renewal))
        try site.world.startDaemon()
        try await site.world.untilSubscribed()
        #expect(
            try await eventually(within: 20) {
                try retained(site, "d1")?["action"] as? String == "certificate_install"
            }, "\(site.world.daemonLog.suffix(2_000))")
        let install = try #require(try retained(site, "d1"))
        let serial = try #require(install["serial"] as? String)
        #expect((install["certificate"] as? String)?.hasPrefix("-----BEGIN CERTIFICATE-----") == true)
        #expect(try await certificates(site, "device=d1&status=ACTIVE").count == 2, "both until the report")
        for authority in ["ca", "next"] {
            let listed = try site.world.run([
                "cert", "list", "--renewing", "--tenant", "acme", "--authority", authority, "--http", site.world.http,
                "--data", site.world.data,
            ])
            // One row below the title, whichever of both certificates matches.
            #expect(listed.out.split(separator: "\n").count == 2, "\(listed)")
            #expect(listed.out.contains("next/\(serial)") && listed.out.contains(" ca/"), "\(listed)")
        }

        try site.publish("d1", "certificate/installed", #"{"renewal_id":\#(renewal),"serial":"\#(serial)"}"#)
        #expect(await eventually { (try? await row()) == nil })
        let superseded = try await certificates(site, "device=d1&status=SUPERSEDED")
        #expect(superseded.first?["replaced_by"] as? String == "next/\(serial)")
        #expect(try await eventually { try retained(site, "d1") == nil }, "the broker keeps no command")
        #expect(site.world.stopDaemon().exitCode == 0)
    }
}
