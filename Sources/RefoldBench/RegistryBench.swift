import ArgumentParser
import Certificates
import Deciding
import Decisions
import EventLog
import EventModel
import Foundation
import PKI
import Primitives

/// A registry of many certificates: memory, snapshot and lists. The memory is that of a process which has read a
/// snapshot, as the daemon does at its start.
struct RegistryBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "registry", abstract: "Keep many certificates in memory, and read them from a snapshot.")
    @Option(help: "Certificates.") var certificates = 1_000_000
    @Option(help: "Of them revoked.") var revoked = 10_000
    @Option(help: "Write the snapshot's state to this file.") var write: String?
    @Option(help: "Read it from this file.") var read: String?
    @Option(help: "Write the certificates' events to the log of this data folder, for a daemon.") var data: String?

    private static let now: Int64 = 1_780_272_000

    func validate() throws {
        guard [write, read, data].compactMap({ $0 }).count == 1 else {
            throw ValidationError("give one of --write FILE, --read FILE and --data FOLDER")
        }
    }

    func run() throws {
        if let data { return try record(data + "/log") }
        let figures = try write.map { try make($0) } ?? measure(read!)
        print(String(decoding: try JSONEncoder().encode(figures), as: UTF8.self))
    }

    private func make(_ path: String) throws -> [String: Double] {
        let registry = try filled()
        let (bytes, encoding) = milliseconds { registry.stored() }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return ["bytes": Double(bytes.count), "encode_ms": encoding]
    }

    private func record(_ folder: String) throws {
        let log = try FileLog.open(directory: folder)
        defer { log.close() }
        let encoder = JSONEncoder(), now = log.now()
        var batch = RecordBatch(), count = 0
        func flush() throws {
            _ = try log.append(&batch)
            batch = RecordBatch()
        }
        try events(at: now.wholeSeconds) { event, _ in
            batch.append(
                kind: .decision, schema: event.schema, receivedAt: now,
                json: Array(try encoder.encode(event.decision)))
            count += 1
            if count.isMultiple(of: 1_000) { try flush() }
        }
        try flush()
    }

    private func filled() throws -> CertificateRegistry {
        var registry = CertificateRegistry()
        try events(at: Self.now) { event, position in
            registry.apply(event, at: Position(UInt64(position)), time: Timestamp(seconds: Self.now))
        }
        return registry
    }

    /// Devices with names of ordinary length, and one certificate each. A hundred of all expire within a day.
    private func events(at now: Int64, _ body: (RegistryEvent, Int) throws -> Void) throws {
        let key = try PrivateKey.generate()
        let profile = CertificateProfile(
            .authority(pathLength: 0), subject: try DistinguishedName(commonName: "Bench CA"),
            notBefore: now - 86_400, notAfter: now + 3650 * 86_400)
        let authority = try CertificateIssuer.selfSigned(profile, signer: key, serial: .random())
        var random = SeededRandom(seed: 1)
        try body(
            .authorityAdded(
                AuthorityAdded(
                    id: "bench", tenantID: "acme", subject: authority.subjectText,
                    certificate: Base64.encode(authority.der), spkiSHA256: authority.spkiSHA256.description, key: .file,
                    notBefore: Timestamp(seconds: authority.notBefore),
                    notAfter: Timestamp(seconds: authority.notAfter), actor: "bench")), 0)
        for number in 1...certificates {
            let serial = SerialNumber.random(using: &random).description
            let name = "press-\(number)-hall-\(number % 7)", digest = SHA256.digest(name.utf8).description
            let days = number.isMultiple(of: max(1, certificates / 100)) ? 0.5 : Double(2 + number % 88)
            try body(
                .added(
                    CertificateAdded(
                        .issued, authority: "bench", serial: serial, tenantID: "acme", deviceID: name, commonName: name,
                        certificate: "", sha256: digest, spkiSHA256: digest, keyAlgorithm: "P-256",
                        notBefore: Timestamp(seconds: now - 300),
                        notAfter: Timestamp(seconds: now + Int64(days * 86_400)), actor: "bench")), number)
            guard number <= revoked else { continue }
            var event = CertificateChanged(
                .revoked, authority: "bench", serial: serial, tenantID: "acme", deviceID: name, actor: "bench")
            event.reason = RevocationReason.keyCompromise.rawValue
            try body(.changed(event), certificates + number)
        }
    }

    private func measure(_ path: String) throws -> [String: Double] {
        let before = try Self.resident()
        // As the snapshot's reader: the bytes are gone once the state is read.
        let (registry, decoding) = try milliseconds {
            try CertificateRegistry(stored: Array(try Data(contentsOf: URL(fileURLWithPath: path))))
        }
        guard registry.certificateCount == certificates else { throw ValidationError("certificates are missing") }
        let resident = try Self.resident() - before
        var filter = CertificateFilter()
        filter.expiringUntil = Timestamp(seconds: Self.now + 86_400)
        let (page, listing) = milliseconds {
            registry.certificates(
                tenantID: "acme", filter, now: Timestamp(seconds: Self.now), after: nil, limit: 1_000)
        }
        // The whole store was searched: it is not a full page.
        guard page.next == nil, (90...110).contains(page.certificates.count) else {
            throw ValidationError("\(page.certificates.count) certificates expire")
        }
        return ["resident_mb": resident, "decode_ms": decoding, "list_ms": listing]
    }

    /// In 10^6 bytes.
    private static func resident() throws -> Double {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        guard let kibibytes = status.firstMatch(of: /VmRSS:\s+(\d+) kB/).flatMap({ Double($0.1) }) else {
            throw ValidationError("no VmRSS in /proc/self/status")
        }
        return kibibytes * 1024 / 1e6
    }
}

func milliseconds<R>(_ body: () throws -> R) rethrows -> (R, Double) {
    let clock = ContinuousClock(), begin = clock.now
    let result = try body()
    return (result, begin.duration(to: clock.now) / .milliseconds(1))
}
