import Foundation
import Primitives
import Testing
@testable import PKI

/// Authorities and keys that the tests share.
enum Lab {
    /// 2026-06-01T00:00:00Z
    static let now: Int64 = 1_780_272_000
    static let day: Int64 = 86_400
    static let keys: [KeyAlgorithm: PrivateKey] = {
        var keys: [KeyAlgorithm: PrivateKey] = [:]
        for algorithm in KeyAlgorithm.allCases { keys[algorithm] = try? PrivateKey.generate(algorithm) }
        return keys
    }()

    static func key(_ algorithm: KeyAlgorithm = .p256) throws -> PrivateKey { try #require(keys[algorithm]) }

    static func authority(
        _ name: String = "Lab Root", _ algorithm: KeyAlgorithm = .p256, pathLength: Int? = nil,
        notBefore: Int64 = now - day, notAfter: Int64 = now + 3650 * day
    ) throws -> CertificateIssuer {
        let profile = CertificateProfile(
            .authority(pathLength: pathLength),
            subject: try DistinguishedName([(.organization, "Lab"), (.commonName, name)]), notBefore: notBefore,
            notAfter: notAfter)
        let key = try key(algorithm)
        return try CertificateIssuer(
            certificate: CertificateIssuer.selfSigned(profile, signer: key, serial: .random()), signer: key)
    }

    static func intermediate(below parent: CertificateIssuer, _ name: String = "Lab Issuing") throws
        -> CertificateIssuer
    {
        let key = try PrivateKey.generate()
        let profile = CertificateProfile(
            .authority(pathLength: 0), subject: try DistinguishedName(commonName: name), notBefore: now - day,
            notAfter: now + 1000 * day)
        return try CertificateIssuer(
            certificate: parent.issue(profile, publicKey: key.publicKey, serial: .random()), signer: key)
    }

    static func device(
        _ name: String = "acme/dev-1", notBefore: Int64 = now, notAfter: Int64 = now + 365 * day
    ) throws -> CertificateProfile {
        CertificateProfile(
            .tlsClient, subject: try DistinguishedName(commonName: name), notBefore: notBefore, notAfter: notAfter,
            alternativeNames: [.dns("dev-1.acme.example"), .uri("https://acme.example/dev-1")],
            crlDistributionPoint: "http://refold.example/crl/1.crl")
    }

    static func withFolder<R>(_ body: (String) throws -> R) throws -> R {
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "refold-pki-\(UInt64.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try body(folder.path)
    }

    /// Exit code, and standard output and error, of a program that is found in PATH.
    static func run(_ arguments: [String]) throws -> (code: Int32, output: String) {
        let process = Process(), pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        (process.standardOutput, process.standardError) = (pipe, pipe)
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}

/// The code and text of the error that `body` throws.
func failure<R>(_ body: () throws -> R) -> (code: PKIError.Code?, text: String) {
    do {
        _ = try body()
        return (nil, "no error")
    } catch let error as PKIError {
        return (error.code, error.description)
    } catch {
        return (nil, "\(error)")
    }
}
