import Certificates
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import PKI
import Primitives
import Synchronization
import Testing
import Threading
@testable import Issuing

/// The registry on a real log, with the services that sign for it.
struct Site: Sendable {
    let folder: Folder
    let log: FileLog
    let registry: DeciderService<CertificateRegistry>
    let certificates: CertificateService
    let crls: CRLService
    let executor: ThreadExecutor

    /// What outlives a restart: files, and a clock that stands still until a test moves it.
    final class Folder: Sendable {
        let path: String
        private let time = Mutex(Timestamp(rfc3339: "2026-06-01T12:00:00Z")!)

        init(_ path: String) { self.path = path }

        var keys: String { path + "/authorities" }
        var now: Timestamp { time.withLock { $0 } }
        /// The wall clock, where it differs from the log's.
        let wallShift = Mutex<Int64>(0)
        var wall: Timestamp { now.adding(microseconds: wallShift.withLock { $0 } * 1_000_000) }
        func pass(seconds: Int64) { time.withLock { $0 = $0.adding(microseconds: seconds * 1_000_000) } }

        /// A file for openssl.
        func file(_ name: String, _ bytes: [UInt8]) throws -> String {
            try Data(bytes).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
            return "\(path)/\(name)"
        }
        func file(_ name: String, _ text: String) throws -> String { try file(name, Array(text.utf8)) }
        func bytes(_ name: String) throws -> [UInt8] {
            Array(try Data(contentsOf: URL(fileURLWithPath: "\(path)/\(name)")))
        }
        var keyFiles: [String] {
            (try? FileManager.default.contentsOfDirectory(atPath: keys).sorted().map { "\(keys)/\($0)" }) ?? []
        }
    }

    static func withFolder(_ body: (Folder) async throws -> Void) async throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("refold-issuing-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: url) }
        try await body(Folder(url.path))
    }

    /// One start of the daemon; its log is closed behind it.
    static func run<R>(
        _ folder: Folder, passphrase: String? = nil, signCommand: String? = nil, options: IssuingOptions = .init(),
        snapshot: DeciderSnapshot<CertificateRegistry>? = nil, _ body: (Site) async throws -> R
    ) async throws -> R {
        let log = try FileLog.open(directory: folder.path + "/log")
        defer { log.close() }
        let clock: @Sendable () -> Timestamp = { folder.now }
        let registry = DeciderService<CertificateRegistry>(
            writer: DecisionWriter(log), source: log, clock: clock, snapshot: { snapshot })
        let keys = AuthorityKeys(
            folder: folder.keys, passphrase: passphrase.map { Array($0.utf8) }, signCommand: signCommand,
            commandTimeoutSeconds: 10)
        let executor = ThreadExecutor(name: "crl")
        return try await body(
            Site(
                folder: folder, log: log, registry: registry,
                certificates: CertificateService(
                    registry: registry, source: log, keys: keys, options: options, clock: clock,
                    wall: { folder.wall }),
                crls: CRLService(
                    registry: registry, keys: keys, policy: options.crl, executor: executor, clock: clock,
                    wall: { folder.wall }),
                executor: executor))
    }

    static func run(_ options: IssuingOptions = .init(), _ body: (Site) async throws -> Void) async throws {
        try await withFolder { try await run($0, options: options, body) }
    }

    // MARK: Short forms

    static func by(_ tenant: String = "acme", key: String? = nil, sent: String = "") -> Operator {
        Operator(actor: "op", tenantID: tenant, idempotencyKey: key, sent: Array(sent.utf8))
    }

    @discardableResult
    func authority(
        _ id: String = "ca", tenant: String = "acme", _ change: (inout NewAuthority) -> Void = { _ in }
    ) async throws -> RegistryAnswer {
        var new = NewAuthority(id: id, tenantID: tenant)
        change(&new)
        return try await certificates.create(new, by: Self.by(tenant))
    }

    @discardableResult
    func issue(
        _ device: String = "d1", _ key: NewCertificate.Key = .generated(.p256), by: Operator = Site.by(),
        _ change: (inout NewCertificate) -> Void = { _ in }
    ) async throws -> NewlyIssued {
        var new = NewCertificate(tenantID: by.tenantID, deviceID: device, key: key)
        change(&new)
        let result = try await certificates.issue([new], by: by)
        guard case .issued(_, let issued) = result, let first = issued.first else { throw Refused(result: result) }
        return first
    }
    struct Refused: Error { let result: IssuingResult }

    @discardableResult
    func revoke(_ reference: CertificateReference, _ reason: RevocationReason = .keyCompromise) async throws
        -> RegistryAnswer
    {
        try await certificates.change(reference, CertificateChange(.revoke(reason)), by: Self.by())
    }

    /// Issues the CRLs that are due, without a failure.
    func issueCRLs() async throws -> [PublishedCRL] {
        let made = try await crls.issueDue()
        #expect(made.failures.isEmpty, "\(made.failures)")
        return made.issued
    }

    func authority(onRecord id: String) async throws -> CertificateAuthority {
        try #require(try await registry.query { $0.authority(id) })
    }

    // MARK: OpenSSL

    /// What `openssl verify -crl_check` says of a certificate, as of the folder's time.
    func verify(_ issued: NewlyIssued, _ crl: PublishedCRL?) async throws -> (code: Int32, output: String) {
        let authority = try await authority(onRecord: issued.reference.authority).added
        let all = try Certificate.chain(pem: Array(authority.pem.utf8))
        let roots = try folder.file("roots.pem", all.last!.pem())
        let between = try folder.file("between.pem", all.dropLast().flatMap { try $0.pem() })
        let leaf = try folder.file("leaf.pem", issued.certificate.pem())
        var command = ["openssl", "verify", "-attime", "\(folder.now.wholeSeconds)", "-x509_strict", "-CAfile", roots]
        if all.count > 1 { command += ["-untrusted", between] }
        if let crl { command += ["-crl_check", "-CRLfile", try folder.file("crl.pem", crl.list.pem())] }
        return try openssl(command + [leaf])
    }
}

/// Exit code, and standard output and error, of a program that is found in PATH.
@discardableResult
func openssl(_ arguments: [String]) throws -> (code: Int32, output: String) {
    let process = Process(), pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    (process.standardOutput, process.standardError) = (pipe, pipe)
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
}

extension Site.Folder {
    /// A key and a certificate request, made by openssl.
    func request(_ name: String = "csr", algorithm: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]) throws
        -> [UInt8]
    {
        let made = try openssl(
            ["openssl", "req", "-new", "-newkey"] + algorithm + [
                "-nodes", "-keyout", "\(path)/\(name).key", "-out", "\(path)/\(name).pem", "-subj", "/CN=whatever",
            ])
        try #require(made.code == 0, "\(made.output)")
        return try bytes("\(name).pem")
    }
}

/// The code and text of the error that `body` throws.
func failure<R>(_ body: () async throws -> R) async -> (code: PKIError.Code?, text: String) {
    do {
        _ = try await body()
        return (nil, "no error")
    } catch let error as PKIError {
        return (error.code, error.description)
    } catch {
        return (nil, "\(error)")
    }
}

extension RegistryAnswer {
    var refusal: RegistryRefusal.Code? {
        if case .rejected(_, let code, _) = self { code } else { nil }
    }
}

extension IssuingResult {
    var refusal: RegistryRefusal.Code? {
        if case .refused(_, let code, _) = self { code } else { nil }
    }
}
