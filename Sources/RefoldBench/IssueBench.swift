import ArgumentParser
import Certificates
import Deciding
import EventLog
import EventModel
import Foundation
import Issuing
import PKI
import Threading

/// The services of certificates on a real log, as the daemon has them.
struct CertificateSite: Sendable {
    let folder: String
    let log: FileLog
    let registry: DeciderService<CertificateRegistry>
    let certificates: CertificateService
    let crls: CRLService
    let executor = ThreadExecutor(name: "crl")
    let by = Operator(actor: "bench", tenantID: "acme")

    init(folder: String) throws {
        self.folder = folder
        let log = try FileLog.open(directory: folder + "/log")
        self.log = log
        let clock: @Sendable () -> Timestamp = { log.now() }, executor = executor
        registry = DeciderService<CertificateRegistry>(
            writer: DecisionWriter(log), source: log, clock: clock,
            onChange: { registry in
                if registry?.authorities.contains(where: \.needsCRL) ?? false { executor.wake() }
            })
        let keys = AuthorityKeys(
            folder: folder + "/authorities", passphrase: nil, signCommand: nil, commandTimeoutSeconds: 10)
        var options = IssuingOptions()
        options.crlBaseURL = "http://refold.example"
        certificates = CertificateService(registry: registry, source: log, keys: keys, options: options, clock: clock)
        crls = CRLService(registry: registry, keys: keys, policy: options.crl, executor: executor, clock: clock)
    }

    /// - Parameter body: gets the site with an authority.
    static func run(_ folder: String?, _ body: (CertificateSite) async throws -> Void) async throws {
        let folder = folder ?? "/var/tmp/refold-bench-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let site = try CertificateSite(folder: folder)
        defer { site.log.close() }
        _ = try await site.certificates.create(NewAuthority(id: "bench", tenantID: "acme"), by: site.by)
        try await body(site)
    }
}

/// Certificates from requests: parsed, checked, signed, decided and durable, in batches as the API takes them.
struct IssueBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "issue", abstract: "Issue certificates from requests, durably.")
    @Option(help: "Certificates in all.") var certificates = 20_000
    @Option(help: "Certificates in a request.") var batch = 1_000
    @Option(help: "Requests at a time.") var clients = 2

    func run() async throws {
        let requests = try (0..<certificates).map { number in
            try CertificateRequest.create(key: PrivateKey.generate(), commonName: "d\(number)").der
        }
        try await CertificateSite.run(nil) { site in
            let clock = ContinuousClock(), begin = clock.now, cpu = Self.processSeconds()
            try await withThrowingTaskGroup { group in
                for client in 0..<clients {
                    group.addTask {
                        for first in stride(from: client * batch, to: certificates, by: clients * batch) {
                            let new = (first..<min(first + batch, certificates)).map {
                                NewCertificate(tenantID: "acme", deviceID: "d\($0)", key: .request(requests[$0]))
                            }
                            guard case .issued(_, let issued) = try await site.certificates.issue(new, by: site.by),
                                issued.count == new.count
                            else { throw ValidationError("not issued") }
                        }
                    }
                }
                try await group.waitForAll()
            }
            let rate = Double(certificates) / (begin.duration(to: clock.now) / .seconds(1))
            let figures = [
                "certificates_per_second": rate,
                "cpu_us_per_certificate": (Self.processSeconds() - cpu) / Double(certificates) * 1e6,
            ]
            print(String(decoding: try JSONEncoder().encode(figures), as: UTF8.self))
        }
    }

    /// CPU time of all threads.
    private static func processSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
