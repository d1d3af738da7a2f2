import COpenSSL
import Foundation
import Primitives
import Testing
@testable import PKI

/// Bytes that anyone may send. They are accepted and can be used, or refused by a `PKIError`; nothing traps, and
/// nothing stays in OpenSSL's error queue.
struct GarbageTests {
    private static func mutate(_ bytes: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
        var bytes = bytes
        for _ in 0...random.below(4) where !bytes.isEmpty {
            let at = random.below(bytes.count), byte = UInt8(truncatingIfNeeded: random.next())
            switch random.below(6) {
            case 0: bytes.removeSubrange(at...)
            case 1: bytes[at] = byte
            case 2: bytes[at] ^= 1 << UInt8(random.below(8))
            case 3: bytes.insert(byte, at: at)
            case 4: bytes.removeSubrange(at..<min(bytes.count, at + 1 + random.below(8)))
            default: bytes[at] = random.pick([0x00, 0x7F, 0x80, 0x81, 0x84, 0xFF, 0x30, 0x02])
            }
        }
        return bytes
    }

    private static func use(_ bytes: [UInt8], _ issuer: Certificate) throws {
        func attempt(_ body: () throws -> Void) throws {
            do {
                try body()
            } catch let error as PKIError {
                #expect(!error.description.isEmpty)
            }
            #expect(ERR_peek_error() == 0)
        }
        for isPEM in [false, true] {
            try attempt {
                let certificate = isPEM ? try Certificate(pem: bytes) : try Certificate(der: bytes)
                _ = (
                    certificate.subjectText, certificate.issuerText, certificate.commonName,
                    certificate.publicKey.weakness
                )
                _ = (certificate.alternativeNames, certificate.crlDistributionPoints, certificate.subjectKeyIdentifier)
                _ = (
                    certificate.authorityKeyIdentifier, certificate.signatureAlgorithm,
                    certificate.keyIdentifierForIssued
                )
                try? certificate.verifyChain(trust: [issuer], at: Lab.now)
                try certificate.verify(signedBy: issuer)
            }
            try attempt { _ = isPEM ? try CertificateRequest(pem: bytes) : try CertificateRequest(der: bytes) }
            try attempt {
                for list in isPEM ? try RevocationList.all(pem: bytes) : [try RevocationList(der: bytes)] {
                    _ = (list.tbs, list.signature, list.issuerText)
                    try list.verify(signedBy: issuer)
                }
            }
            try attempt { _ = try PublicKey(info: bytes).weakness }
            try attempt { _ = try PrivateKey(pem: bytes, passphrase: [65]) }
            _ = RevokedEntries(der: bytes)
        }
    }

    @Test(arguments: [Optional<UInt64>.none, 1])
    func mutatedBytesAreRefusedOrUsable(fixed: UInt64?) throws {
        let seed = fixed ?? UInt64.random(in: 0 ... .max)
        var random = SeededRandom(seed: seed)
        let root = try Lab.authority(),
            device = try root.issue(
                Lab.device(), publicKey: Lab.key(.rsa2048).publicKey, serial: .random(using: &random))
        let entries = RevokedEntries((0..<5).map { _ in RevokedEntriesTests.entry(&random) })
        let list = try RevocationListTests.list(root, entries)
        let request = try CertificateRequest.create(key: Lab.key(), commonName: "acme/dev-1")
        let seeds = try [
            device.der, device.pem(), root.certificate.der, list.der, list.pem(), request.der, request.pem(),
            Lab.key().publicKeyInfo, Lab.key(.rsa2048).publicKeyInfo, Lab.key().pem(), Lab.key(.ed25519).pem(),
            entries.der,
        ]
        for round in 0..<600 {
            let bytes = Self.mutate(random.pick(seeds), &random)
            do {
                try Self.use(bytes, root.certificate)
            } catch {
                Issue.record("seed \(seed), round \(round): \(error)")
            }
        }
        for round in 0..<200 {
            let bytes = (0..<random.below(300)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            do {
                try Self.use(bytes, root.certificate)
            } catch {
                Issue.record("seed \(seed), round \(round): \(error)")
            }
        }
    }
}
