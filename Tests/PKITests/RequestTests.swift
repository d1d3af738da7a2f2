import Foundation
import Testing
@testable import PKI

struct RequestTests {
    @Test(arguments: KeyAlgorithm.allCases)
    func ourRequestsAreRead(algorithm: KeyAlgorithm) throws {
        let key = try Lab.key(algorithm)
        let request = try CertificateRequest.create(key: key, commonName: "acme/dev-1")
        #expect(request.subjectCommonName == "acme/dev-1")
        #expect(request.subjectText == "CN=acme/dev-1")
        #expect(request.publicKeyInfo == key.publicKeyInfo)
        #expect(request.publicKey.name == algorithm.rawValue)
        #expect(try CertificateRequest(pem: request.pem()) == request)
    }

    @Test func requestsOfOpenSSLAreRead() throws {
        let pem = try Lab.run([
            "sh", "-c",
            "openssl req -new -newkey rsa:3072 -nodes -keyout /dev/null -subj '/O=Acme/CN=dev-9' "
                + "-addext subjectAltName=DNS:dev-9 2>/dev/null",
        ]).output
        let request = try CertificateRequest(pem: Array(("Subject: a comment\n" + pem).utf8))
        #expect(request.publicKey.name == "RSA-3072")
        #expect(request.subjectCommonName == "dev-9")
        #expect(request.subjectText == "CN=dev-9,O=Acme")
    }

    /// What a device sends with a key that is too weak, and what it is told.
    @Test(arguments: [
        ("rsa -pkeyopt rsa_keygen_bits:1024", "RSA modulus of 1024 bits is too short"),
        ("rsa -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3", "public exponent 3 is not"),
        ("ec -pkeyopt ec_paramgen_curve:secp224r1", "secp224r1 are not supported"),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", "secp256k1 are not supported"),
        (
            "ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "EC without a named curve are not supported"
        ),
        ("ed448", "ED448 are not supported"),
        ("rsa-pss -pkeyopt rsa_keygen_bits:2048", "RSASSA-PSS are not supported"),
    ])
    func weakKeysAreRefused(options: String, text: String) throws {
        let pem = try Lab.run([
            "sh", "-c",
            "(openssl genpkey -algorithm \(options) | openssl req -new -key /dev/stdin -subj /CN=x) 2>/dev/null",
        ]).output
        let refused = failure { try CertificateRequest(pem: Array(pem.utf8)) }
        #expect(refused.code == .weak && refused.text.contains(text), "\(refused)")
    }

    @Test func p521AndSHA1() throws {
        func request(_ curve: String, _ digest: String) throws -> [UInt8] {
            let command = """
                openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:\(curve) 2>/dev/null | \
                openssl req -new -key /dev/stdin -subj /CN=x -\(digest) 2>/dev/null
                """
            return Array(try Lab.run(["sh", "-c", command]).output.utf8)
        }
        #expect(try CertificateRequest(pem: request("P-521", "sha512")).publicKey.name == "P-521")
        let refused = failure { try CertificateRequest(pem: request("P-256", "sha1")) }
        #expect(refused.code == .weak && refused.text.contains("ecdsa-with-SHA1"), "\(refused)")
    }

    @Test func aRequestWithAWrongSignatureIsRefused() throws {
        let request = try CertificateRequest.create(key: Lab.key(), commonName: "acme/dev-1")
        let at = try #require(request.der.firstRange(of: Array("dev-1".utf8))).lowerBound
        var der = request.der
        der[at] = UInt8(ascii: "D")
        let changed = failure { try CertificateRequest(der: der) }
        #expect(changed.code == .untrusted && changed.text.contains("signature does not verify"), "\(changed)")
        // Another's key: no proof that the sender has it.
        let stolen = try Lab.key(.p384).publicKey
        struct Thief: Signer {
            let publicKeyInfo: [UInt8]
            let key: PrivateKey
            var signatureAlgorithm: [UInt8] { key.signatureAlgorithm }
            var mustVerify: Bool { key.mustVerify }
            func sign(_ tbs: [UInt8]) throws(PKIError) -> [UInt8] { try key.sign(tbs) }
        }
        let thief = Thief(publicKeyInfo: stolen.info, key: try Lab.key())
        #expect(failure { try CertificateRequest.create(key: thief, commonName: "x") }.code == .untrusted)
    }

    @Test func formsThatAreNoRequestsAreRefused() throws {
        #expect(failure { try CertificateRequest(der: []) }.code == .malformed)
        #expect(
            failure { try CertificateRequest(pem: Array("hello".utf8)) }.text.contains("-----BEGIN CERTIFICATE REQUEST")
        )
        let certificate = try Lab.authority().certificate
        #expect(failure { try CertificateRequest(der: certificate.der) }.code == .malformed)
        #expect(failure { try CertificateRequest(der: [UInt8](repeating: 0x30, count: 20_000)) }.text.contains("limit"))
        let request = try CertificateRequest.create(key: Lab.key(), commonName: "x")
        #expect(failure { try CertificateRequest(der: request.der + [0]) }.code == .malformed)
        #expect(failure { try CertificateRequest(pem: request.pem() + request.pem()) }.code == .malformed)
        #expect(failure { try CertificateRequest.create(key: Lab.key(), commonName: "") }.code == .invalid)
        let long = String(repeating: "x", count: 65)
        #expect(
            failure { try CertificateRequest.create(key: Lab.key(), commonName: long) }.text.contains("65 characters"))
    }
}
