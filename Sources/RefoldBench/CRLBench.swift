import ArgumentParser
import Foundation
import PKI
import Primitives

/// CRLs of many entries, and certificates, on one core. `--folder` leaves what the peers need to make the same CRL.
struct CRLBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "crl", abstract: "Make CRLs, and issue certificates.")
    @Option(help: "Revoked certificates.") var entries = 100_000
    @Option(help: "Runs; the median is printed.") var rounds = 9
    @Option(help: "Certificates to issue.") var certificates = 20_000
    @Option(help: "Write key, certificate and an index of OpenSSL's into this folder.") var folder: String?

    private static let now: Int64 = 1_780_272_000

    func run() throws {
        let key = try PrivateKey.generate()
        let profile = CertificateProfile(
            .authority(pathLength: 0), subject: try DistinguishedName(commonName: "Bench CA"),
            notBefore: Self.now - 86_400, notAfter: Self.now + 3650 * 86_400)
        let issuer = try CertificateIssuer(
            certificate: CertificateIssuer.selfSigned(profile, signer: key, serial: .random()), signer: key)
        var random = SeededRandom(seed: 1)
        let revoked = (0..<entries).map { _ in
            RevokedEntry(
                serial: .random(using: &random), time: Self.now - Int64(random.below(30_000_000)),
                reason: random.pick([.unspecified, .keyCompromise, .superseded, .cessationOfOperation]))
        }
        if let folder { try Self.write(issuer, key, revoked, to: folder) }
        var figures = try Self.lists(issuer, revoked, rounds: rounds, &random)
        figures["certificates_per_second"] = try Self.issue(issuer, count: certificates, &random)
        print(String(decoding: try JSONEncoder().encode(figures), as: UTF8.self))
    }

    private static func crl(_ issuer: CertificateIssuer, _ number: UInt64, _ entries: RevokedEntries) throws -> [UInt8]
    {
        try issuer.crl(number: number, thisUpdate: now, nextUpdate: now + 7 * 86_400, entries: entries)
    }

    /// Cold: from entries without order to a signed CRL. Incremental: from one more revocation to a signed CRL. Check:
    /// parsed by OpenSSL, signature verified.
    private static func lists(
        _ issuer: CertificateIssuer, _ revoked: [RevokedEntry], rounds: Int, _ random: inout SeededRandom
    ) throws -> [String: Double] {
        var times: [String: [Double]] = [:], ders: [[UInt8]] = [], latest = RevokedEntries()
        for round in 1...UInt64(rounds) {
            let (sorted, sorting) = milliseconds { RevokedEntries(revoked) }
            let (_, signing) = try milliseconds { try crl(issuer, 1, sorted) }
            times["cold_ms", default: []].append(sorting + signing)
            latest = sorted
            let more = RevokedEntry(serial: .random(using: &random), time: now)
            let (der, incremental) = try milliseconds {
                latest.insert(more)
                return try crl(issuer, 1 + round, latest)
            }
            times["incremental_ms", default: []].append(incremental)
            ders.append(der)
        }
        // Apart: what OpenSSL frees, malloc tidies up in the next call, whose time that would be.
        var before: RevocationList?
        for der in ders {
            let (list, checking) = try milliseconds {
                let list = try RevocationList(der: der)
                try list.verify(signedBy: issuer.certificate)
                return list
            }
            times["check_ms", default: []].append(checking)
            let (_, comparing) = milliseconds { list.differences(from: before ?? list) }
            times["differences_ms", default: []].append(comparing)
            before = list
        }
        guard before?.entries == latest else { throw ValidationError("the CRL does not have its entries") }
        return times.mapValues { $0.sorted()[$0.count / 2] }
    }

    private static func issue(_ issuer: CertificateIssuer, count: Int, _ random: inout SeededRandom) throws -> Double {
        let devices = try (0..<100).map { _ in try PrivateKey.generate().publicKey }
        let (_, time) = try milliseconds {
            for number in 0..<count {
                let profile = CertificateProfile(
                    .tlsClient, subject: try DistinguishedName(commonName: "acme/dev-\(number)"), notBefore: now,
                    notAfter: now + 90 * 86_400, alternativeNames: [.uri("urn:refold:acme:dev-\(number)")],
                    crlDistributionPoint: "http://refold.example/crl/1.crl")
                _ = try issuer.issue(
                    profile, publicKey: devices[number % devices.count], serial: .random(using: &random))
            }
        }
        return Double(count) / time * 1000
    }

    // MARK: For peers

    private static func write(
        _ issuer: CertificateIssuer, _ key: PrivateKey, _ revoked: [RevokedEntry], to folder: String
    ) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try key.create(folder + "/ca.key")
        try Data(issuer.certificate.pem()).write(to: URL(fileURLWithPath: folder + "/ca.pem"))
        let format = DateFormatter()
        (format.dateFormat, format.timeZone) = ("yyMMddHHmmss'Z'", TimeZone(identifier: "UTC"))
        let lines = revoked.map { entry in
            let date = format.string(from: Date(timeIntervalSince1970: Double(entry.time)))
            let reason = entry.reason == .unspecified ? "" : ",\(entry.reason.rawValue)"
            return "R\t270101000000Z\t\(date)\(reason)\t\(entry.serial.description.uppercased())\tunknown\t/CN=device\n"
        }
        try Data(lines.joined().utf8).write(to: URL(fileURLWithPath: folder + "/index.txt"))
        try Data("[ca]\ndefault_ca = c\n[c]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\n".utf8)
            .write(to: URL(fileURLWithPath: folder + "/ca.cnf"))
    }
}
