import ArgumentParser
import Certificates
import Decisions
import Enforcement
import EventModel
import Foundation
import Issuing
import MQTT
import PKI
import Primitives

/// From a revocation to its proof at a real Mosquitto, through the services of the daemon: decided and durable, CRL
/// signed, checked and durable, file written, broker reloaded, canaries probed.
struct RevokeBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Measure how long a broker accepts a revoked certificate.")
    @Option(help: "Revoked certificates in the CRL.") var entries = 10_000
    @Option(help: "Revocations that are measured.") var rounds = 100
    @Option(
        help: "Folder with mosquitto.conf, which names clients.pem, fleet.crl, pid and log in it, and server-ca.pem.")
    var folder: String
    @Option(help: "The broker's port.") var port: Int

    func run() async throws {
        try await CertificateSite.run(nil) { site in
            try await prepare(site)
            let broker = EnforcedBroker(
                name: "bench", file: CRLFile(folder + "/fleet.crl"),
                reload: ReloadCommand("grep -q running \(folder)/log && kill -HUP $(cat \(folder)/pid)"), probe: probe,
                cutting: nil)
            let enforcer = CRLEnforcer(broker, registry: site.registry, crls: site.crls, clock: { site.log.now() })
            let serving = Task {
                await withDiscardingTaskGroup { group in
                    group.addTask { await site.registry.run { _ in } }
                    group.addTask { await site.crls.run(publish: { _ in enforcer.wake() }, report: { _ in }) }
                    group.addTask { await enforcer.run { _ in } }
                }
            }
            defer { serving.cancel() }
            _ = try await Self.until(.now) { FileManager.default.fileExists(atPath: folder + "/fleet.crl") }
            // SIGHUP ends a broker that is starting. Not by `Process`: its children inherit the blocked signals of
            // its thread, SIGHUP among them.
            try shell("/usr/sbin/mosquitto -d -c \(folder)/mosquitto.conf")
            defer { try? shell("kill $(cat \(folder)/pid)") }
            _ = try await Self.until(.now) { try await isProved(site) }
            var refused: [Double] = [], proved: [Double] = []
            for round in 0..<rounds {
                let (a, b) = try await measure(site, "device-\(round)")
                refused.append(a)
                proved.append(b)
            }
            func percentile(_ times: [Double], _ share: Double) -> Double {
                times.sorted()[min(times.count - 1, Int(Double(times.count) * share))]
            }
            let figures = [
                "refused_ms_p50": percentile(refused, 0.5), "refused_ms_p99": percentile(refused, 0.99),
                "proved_ms_p50": percentile(proved, 0.5), "proved_ms_p99": percentile(proved, 0.99),
            ]
            print(String(decoding: try JSONEncoder().encode(figures), as: UTF8.self))
        }
    }

    private var probe: CanaryProbe {
        var settings = BrokerSettings(name: "bench", host: "127.0.0.1", port: port, clientID: "bench")
        settings.tls = BrokerSettings.TLS(caFile: folder + "/server-ca.pem", verify: true)
        return CanaryProbe(settings)
    }

    /// The authority's certificate for the broker, and a CRL of the size that is asked for.
    private func prepare(_ site: CertificateSite) async throws {
        let authority = try await site.registry.query { $0.authorities[0].added }
        try Data(authority.pem.utf8).write(to: URL(fileURLWithPath: folder + "/clients.pem"))
        // Imported: none is signed, and the registry reads no DER. A device has at most 16.
        let now = site.log.now(), perDevice = liveCertificatesPerDeviceMax
        for first in stride(from: 0, to: entries, by: certificatesPerCommandMax) {
            let events = (first..<min(first + certificatesPerCommandMax, entries)).map { number in
                let digest = SHA256.digest("\(number)".utf8).description
                return CertificateAdded(
                    .imported, authority: "bench", serial: SerialNumber.random().description, tenantID: "acme",
                    deviceID: "old-\(number / perDevice)", commonName: "", certificate: "", sha256: digest,
                    spkiSHA256: digest, keyAlgorithm: "P-256", notBefore: now,
                    notAfter: now.adding(microseconds: 30 * 86_400_000_000), actor: "")
            }
            try await accept(site, .add(events))
        }
        for device in 0..<(entries + perDevice - 1) / perDevice {
            try await accept(site, .changeDevice("old-\(device)", CertificateChange(.revoke(.superseded))))
        }
    }

    private func accept(_ site: CertificateSite, _ command: RegistryCommand) async throws {
        let request = RegistryRequest(tenantID: "acme", actor: "bench", command: command)
        guard case .accepted = try await site.registry.execute(request) else { throw ValidationError("refused") }
    }

    /// Milliseconds from the request until the broker refuses a new connection, and until that is proved.
    private func measure(_ site: CertificateSite, _ device: String) async throws -> (refused: Double, proved: Double) {
        let new = NewCertificate(tenantID: "acme", deviceID: device, key: .generated(.p256))
        guard case .issued(_, let issued) = try await site.certificates.issue([new], by: site.by),
            let certificate = issued.first, let key = certificate.privateKey
        else { throw ValidationError("not issued") }
        let identity = try ClientIdentity(certificatesPEM: certificate.certificate.pem(), keyPEM: key), probe = probe
        guard await probe.run(identity, clientID: device) == .accepted else { throw ValidationError("not accepted") }
        // At most one CRL a second: revocations that come faster share one.
        try await Task.sleep(for: .milliseconds(1_500))
        let clock = ContinuousClock(), begin = clock.now
        let answer = try await site.certificates.change(
            certificate.reference, CertificateChange(.revoke(.keyCompromise)), by: site.by)
        guard case .accepted = answer else { throw ValidationError("not revoked") }
        async let refused = Self.until(begin) {
            await probe.run(identity, clientID: device) == .refused(.certificateRevoked)
        }
        async let proved = Self.until(begin) { try await isProved(site) }
        return try await (refused, proved)
    }

    private static func until(
        _ begin: ContinuousClock.Instant, _ condition: @Sendable () async throws -> Bool
    ) async throws -> Double {
        let clock = ContinuousClock(), end = begin.advanced(by: .seconds(60))
        while try await !condition() {
            guard clock.now < end else { throw ValidationError("the revocation took over a minute") }
            // Polling more often would take a core from the broker.
            try await Task.sleep(for: .milliseconds(5))
        }
        return begin.duration(to: clock.now) / .milliseconds(1)
    }

    private func shell(_ command: String) throws {
        try ReloadCommand(command).run(crlPath: folder + "/fleet.crl", broker: "bench")
    }

    private func isProved(_ site: CertificateSite) async throws -> Bool {
        try await site.registry.query { registry in
            let key = EnforcementKey(broker: "bench", authority: "bench")
            return !registry.authorities[0].isChanged
                && registry.enforcements[key]?.proved == registry.authorities[0].lastCRL?.number
        }
    }
}
