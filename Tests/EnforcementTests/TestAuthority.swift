import COpenSSL
import Enforcement
import Foundation
import TestSupport

/// A CA of the tests: certificates by openssl(1), CRLs by its library.
final class TestAuthority: Sendable {
    struct Issued: Sendable {
        let identity: ClientIdentity
        let certFile: String
        let keyFile: String
        let serial: UInt64
    }

    let folder: String
    let name: String
    var certFile: String { "\(folder)/\(name).pem" }
    private var keyFile: String { "\(folder)/\(name).key" }

    /// Takes over the CA of `TestCertificates` when it has that name.
    init(_ name: String, in folder: String) throws {
        (self.name, self.folder) = (name, folder)
        guard access(certFile, R_OK) != 0 else { return }
        try openssl(
            ["req", "-x509", "-subj", "/CN=\(name)", "-addext", "basicConstraints=critical,CA:TRUE"]
                + Self.newKey(keyFile) + ["-out", certFile])
    }

    private static func newKey(_ path: String) -> [String] {
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", path]
    }

    /// - Parameter crlURL: the certificate's CRL distribution point.
    func issue(_ commonName: String, serial: UInt64, crlURL: String? = nil) throws -> Issued {
        let base = "\(folder)/\(name)-\(serial)"
        try openssl(
            [
                "req", "-x509", "-CA", certFile, "-CAkey", keyFile, "-set_serial", String(serial), "-subj",
                // A slash within a name is escaped.
                "/CN=\(commonName.replacingOccurrences(of: "/", with: "\\/"))", "-addext",
                "basicConstraints=critical,CA:FALSE",
            ] + (crlURL.map { ["-addext", "crlDistributionPoints=URI:\($0)"] } ?? []) + Self.newKey(base + ".key")
                + ["-out", base + ".pem"])
        let identity = try ClientIdentity(
            certificatesPEM: bytes(base + ".pem"), keyPEM: bytes(base + ".key"))
        return Issued(identity: identity, certFile: base + ".pem", keyFile: base + ".key", serial: serial)
    }

    func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }

    private func openssl(_ arguments: [String]) throws {
        let log = folder + "/openssl.log"
        let child = try ChildProcess(["/usr/bin/openssl"] + arguments, log: log)
        child.wait()
        guard child.exitCode == 0 else {
            throw SystemError((try? String(contentsOfFile: log, encoding: .utf8)) ?? "openssl failed")
        }
    }

    // MARK: CRLs

    /// DER.
    /// - Parameters:
    ///   - from, until: seconds from now.
    ///   - isHold: reason certificateHold.
    ///   - base: makes it a delta CRL to the CRL of this number (RFC 5280, 5.2.4).
    func crl(
        _ revoked: [UInt64], number: Int = 1, from: Int = -60, until: Int = 86_400, base: Int? = nil,
        isHold: Bool = false
    ) throws -> [UInt8] {
        let certificate = try readPEM(certFile) { PEM_read_bio_X509($0, nil, nil, nil) }
        let key = try readPEM(keyFile) { PEM_read_bio_PrivateKey($0, nil, nil, nil) }
        let crl = X509_CRL_new()
        defer {
            X509_free(certificate)
            EVP_PKEY_free(key)
            X509_CRL_free(crl)
        }
        X509_CRL_set_version(crl, 1)
        X509_CRL_set_issuer_name(crl, X509_get_subject_name(certificate))
        let updated = ASN1_TIME_set(nil, time(nil) + from), next = ASN1_TIME_set(nil, time(nil) + until)
        X509_CRL_set1_lastUpdate(crl, updated)
        X509_CRL_set1_nextUpdate(crl, next)
        let serialNumber = ASN1_INTEGER_new()
        for serial in revoked {
            let entry = X509_REVOKED_new()
            ASN1_INTEGER_set_uint64(serialNumber, serial)
            X509_REVOKED_set_serialNumber(entry, serialNumber)
            X509_REVOKED_set_revocationDate(entry, updated)
            if isHold, let reason = ASN1_ENUMERATED_new() {
                ASN1_ENUMERATED_set(reason, 6)  // RFC 5280, 5.3.1
                X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, reason, 0, 0)
                ASN1_ENUMERATED_free(reason)
            }
            X509_CRL_add0_revoked(crl, entry)
        }
        for (id, value, isCritical) in [(NID_crl_number, number, 0), (NID_delta_crl, base ?? -1, 1)] where value >= 0 {
            ASN1_INTEGER_set(serialNumber, value)
            X509_CRL_add1_ext_i2d(crl, id, serialNumber, Int32(isCritical), 0)
        }
        X509_CRL_sort(crl)
        ASN1_INTEGER_free(serialNumber)
        ASN1_TIME_free(updated)
        ASN1_TIME_free(next)
        guard X509_CRL_sign(crl, key, EVP_sha256()) > 0 else { throw SystemError("cannot sign a CRL") }
        var der: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509_CRL(crl, &der)
        defer { CRYPTO_free(der, nil, 0) }
        guard count > 0, let der else { throw SystemError("cannot encode a CRL") }
        return Array(UnsafeBufferPointer(start: der, count: Int(count)))
    }

    private func readPEM<T>(_ path: String, _ read: (OpaquePointer?) -> T?) throws -> T {
        let bio = BIO_new_file(path, "r")
        defer { BIO_free(bio) }
        guard let value = read(bio) else { throw SystemError("cannot read \(path)") }
        return value
    }
}
