import Foundation
import Primitives
import Testing
@testable import PKI

/// Certificates and CRLs of ours in other programs: OpenSSL's command line, GnuTLS, Python's cryptography, pkilint.
struct DifferentialTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    private static let program = root.appending(path: "pki/read.py").path
    private static let linter = root.appending(path: "pki/lint.py").path
    private static let linterPython = root.deletingLastPathComponent().appending(path: ".build/pkilint/bin/python").path
    private static let isLinterInstalled = FileManager.default.fileExists(atPath: linterPython)

    /// 600 certificates and 400 CRLs by a seed, which is printed when a tool reads one otherwise than it was meant.
    @Test func otherToolsReadAndVerifyWhatWeWrite() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        try Lab.withFolder { folder in
            let expected = try Self.write(certificates: 600, lists: 400, to: folder, &random)
            for tool in ["cryptography", "openssl", "gnutls"] {
                let (code, output) = try Lab.run(["python3", "-B", Self.program, folder, tool])
                #expect(code == 0, "seed \(seed): \(tool): \(output.suffix(1000))")
                let lines = output.split(separator: "\n").map(String.init)
                #expect(lines.count == expected.count, "seed \(seed): \(tool)")
                for line in lines {
                    let fields = line.split(separator: " ").map(String.init)
                    var wanted = expected[fields[0]] ?? []
                    if wanted.count == 8 { wanted.remove(at: tool == "gnutls" ? 5 : 6) }
                    // GnuTLS prints times before 1970 as 1970.
                    if tool == "gnutls" { wanted = wanted.map { $0.hasPrefix("-") && $0.count > 1 ? "0" : $0 } }
                    #expect(fields == wanted, "seed \(seed): \(tool)")
                }
            }
        }
    }

    /// The lines that `read.py` prints; those of CRLs with a second digest: without reasons, as GnuTLS prints entries.
    private static func write(
        certificates: Int, lists: Int, to folder: String, _ random: inout SeededRandom
    ) throws -> [String: [String]] {
        var expected: [String: [String]] = [:]
        func save(_ bytes: [UInt8], _ name: String) throws {
            try Data(bytes).write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
        }
        let issuers = try KeyAlgorithm.allCases.map {
            try Lab.authority("Issuer \($0.rawValue)", $0, notBefore: DERTime.earliest, notAfter: DERTime.latest)
        }
        for (index, issuer) in issuers.enumerated() { try save(issuer.certificate.pem(), "issuer-\(index).pem") }
        for number in 0..<certificates {
            let index = random.below(issuers.count), name = "cert-\(index)-\(number).der"
            let profile = try profile(&random), key = try Lab.key(random.pick(KeyAlgorithm.allCases))
            let serial = RevokedEntriesTests.entry(&random).serial
            let certificate = try issuers[index].issue(profile, publicKey: key.publicKey, serial: serial)
            try save(certificate.der, name)
            var isCA = "0", path = "-"
            if case .authority(let length) = profile.kind { (isCA, path) = ("1", length.map(String.init) ?? "-") }
            let names = profile.alternativeNames.map { name in
                switch name {
                case .dns(let text): "DNS:\(text)"
                case .uri(let text): "URI:\(text)"
                default: "?"
                }
            }
            expected[name] = [
                name, short(serial), "\(profile.notBefore)", "\(profile.notAfter)", isCA, path,
                names.isEmpty ? "-" : names.joined(separator: ","), profile.crlDistributionPoint ?? "-", "OK",
            ]
        }
        for number in 0..<lists {
            let index = random.below(issuers.count), name = "crl-\(index)-\(number).der"
            let count = random.pick([0, 1, 2, 10, 60])
            let entries = RevokedEntries((0..<count).map { _ in RevokedEntriesTests.entry(&random) })
            let this = Lab.now - Int64(random.below(1 << 20)), next = this + 1 + Int64(random.below(1 << 30))
            let crlNumber = random.next() >> UInt64(random.below(64))
            let der = try issuers[index].crl(number: crlNumber, thisUpdate: this, nextUpdate: next, entries: entries)
            try save(der, name)
            expected[name] = [
                name, "\(crlNumber)", "\(this)", "\(next)", "\(entries.count)",
                digest(
                    entries.map { "\(short($0.serial)) \($0.time) \($0.reason == .unspecified ? "-" : reason($0))" }),
                digest(entries.map { "\(short($0.serial)) \(max(0, $0.time))" }), "OK",
            ]
        }
        return expected
    }

    private static func profile(_ random: inout SeededRandom) throws -> CertificateProfile {
        let begin =
            random.chance(0.8) ? Lab.now - Int64(random.below(1 << 28)) : random.pick([DERTime.earliest, 0, 1 << 31])
        let end = random.pick([
            begin, begin + Int64(random.below(1 << 30)), 2_524_607_999, 2_524_608_000, DERTime.latest,
        ])
        var profile = CertificateProfile(
            random.chance(0.8) ? .tlsClient : .authority(pathLength: random.chance(0.5) ? random.below(4) : nil),
            subject: try DistinguishedName(commonName: random.pick(["a/b", "größe", "x, y", "设备"])), notBefore: begin,
            notAfter: max(begin, end))
        for _ in 0..<random.below(4) {
            let text = String(repeating: random.pick(["a", "b-c", "x1"]), count: 1 + random.below(10))
            profile.alternativeNames.append(random.chance(0.5) ? .dns("\(text).example") : .uri("urn:x:\(text)"))
        }
        if random.chance(0.5) { profile.crlDistributionPoint = "http://refold.example/crl/\(random.below(100)).crl" }
        return profile
    }

    /// Without leading zeros, as Python prints integers.
    private static func short(_ serial: SerialNumber) -> String { String(serial.description.drop { $0 == "0" }) }

    /// As cryptography calls it.
    private static func reason(_ entry: RevokedEntry) -> String { entry.reason.rawValue }

    private static func digest(_ lines: [String]) -> String {
        SHA256.digest(lines.map { $0 + "\n" }.joined().utf8).description
    }

    // MARK: pkilint

    /// Without a finding of severity NOTICE or above.
    @Test(.enabled(if: isLinterInstalled, "make test installs pkilint"))
    func pkilintFindsNothing() throws {
        try Lab.withFolder { folder in
            var files: [String] = []
            func save(_ bytes: [UInt8], _ name: String) throws {
                files.append("\(folder)/\(name).der")
                try Data(bytes).write(to: URL(fileURLWithPath: files[files.count - 1]))
            }
            var random = SeededRandom(seed: 9)
            for algorithm in KeyAlgorithm.allCases {
                let root = try Lab.authority("Root", algorithm), issuing = try Lab.intermediate(below: root)
                try save(root.certificate.der, "root-\(algorithm)")
                try save(issuing.certificate.der, "issuing-\(algorithm)")
                let key = try Lab.key(algorithm).publicKey
                try save(issuing.issue(Lab.device(), publicKey: key, serial: .random()).der, "device-\(algorithm)")
                var plain = try Lab.device(notAfter: DERTime.latest)
                (plain.alternativeNames, plain.crlDistributionPoint) = ([], nil)
                try save(root.issue(plain, publicKey: key, serial: .random()).der, "plain-\(algorithm)")
                let entries = RevokedEntries(
                    (0..<20).map { _ in RevokedEntriesTests.entry(&random, serialBytes: 1...19) })
                for (name, entries) in [("empty", RevokedEntries()), ("full", entries)] {
                    try save(RevocationListTests.list(root, entries).der, "crl-\(name)-\(algorithm)")
                }
            }
            let lint = try Lab.run([Self.linterPython, "-B", Self.linter] + files)
            #expect(lint.code == 0 && lint.output == "", "\(lint.output.prefix(2000))")
            // A check must be able to fail: a device certificate whose serial number has 21 octets.
            let wide = try #require(SerialNumber(magnitude: [UInt8](repeating: 0xFF, count: 20)))
            let odd = try Lab.authority().issue(Lab.device(), publicKey: Lab.key().publicKey, serial: wide)
            try save(odd.der, "wide")
            let found = try Lab.run([Self.linterPython, "-B", Self.linter, files[files.count - 1]]).output
            #expect(found.contains("wide.der ERROR"), "\(found)")
        }
    }
}
