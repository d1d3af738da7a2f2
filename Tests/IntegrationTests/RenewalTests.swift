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
}
