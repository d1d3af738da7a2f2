import Foundation
import Primitives
import Synchronization
import Testing
@testable import PKI

struct CertificateTests {
    @Test func aRootIsAnAuthority() throws {
        let root = try Lab.authority(pathLength: 1).certificate
        #expect(root.isCA && root.pathLength == 1 && root.canSignCRLs && root.canSignCertificates)
        #expect(!root.canSignTLSHandshakes)
        #expect(root.issuerText == "CN=Lab Root,O=Lab" && root.subject == root.issuer)
        #expect(root.commonName == "Lab Root")
        #expect(root.subjectKeyIdentifier?.count == 20 && root.authorityKeyIdentifier == nil)
        #expect(root.signatureAlgorithm == "ecdsa-with-SHA256")
        try root.verify(signedBy: root)
        try root.verifyChain(trust: [root], at: Lab.now)
    }

    @Test(arguments: KeyAlgorithm.allCases)
    func aDeviceAuthenticatesATLSClient(algorithm: KeyAlgorithm) throws {
        let root = try Lab.authority("Root", algorithm)
        let serial = try #require(SerialNumber("ff00000000000000000000000000000000000001"))
        let device = try root.issue(Lab.device(), publicKey: Lab.key(algorithm).publicKey, serial: serial)
        #expect(!device.isCA && device.pathLength == nil && !device.canSignCRLs && device.canSignTLSHandshakes)
        #expect(device.serial == serial)
        #expect(device.notBefore == Lab.now && device.notAfter == Lab.now + 365 * Lab.day)
        #expect(device.subjectText == "CN=acme/dev-1" && device.commonName == "acme/dev-1")
        #expect(device.alternativeNames == [.dns("dev-1.acme.example"), .uri("https://acme.example/dev-1")])
        #expect(device.crlDistributionPoints == ["http://refold.example/crl/1.crl"])
        #expect(device.authorityKeyIdentifier == root.certificate.subjectKeyIdentifier)
        #expect(device.spkiSHA256 == SHA256.digest(try Lab.key(algorithm).publicKeyInfo))
        #expect(device.sha256 == SHA256.digest(device.der))
        try device.verify(signedBy: root.certificate)
        try device.verifyChain(trust: [root.certificate], at: Lab.now, purpose: .tlsClient)
        #expect(try Certificate(pem: device.pem()) == device)
    }

    @Test func aChainIsVerifiedWithOpenSSLsTexts() throws {
        let root = try Lab.authority(), other = try Lab.authority("Other", .p384)
        let issuing = try Lab.intermediate(below: root)
        let device = try issuing.issue(Lab.device(), publicKey: Lab.key(.rsa2048).publicKey, serial: .random())
        try device.verifyChain(
            trust: [other.certificate, root.certificate], intermediates: [issuing.certificate], at: Lab.now)
        func refused(_ trust: [CertificateIssuer], _ intermediates: [CertificateIssuer], _ time: Int64) -> String {
            failure {
                try device.verifyChain(
                    trust: trust.map(\.certificate), intermediates: intermediates.map(\.certificate), at: time,
                    purpose: .tlsClient)
            }.text
        }
        #expect(refused([root], [issuing], Lab.now) == "no error")
        #expect(
            refused([root], [], Lab.now).contains("unable to get local issuer certificate (depth 0, CN=acme/dev-1)"))
        #expect(refused([other], [issuing], Lab.now).contains("unable to get local issuer certificate (depth 1"))
        #expect(refused([root], [issuing], Lab.now + 400 * Lab.day).contains("certificate has expired (depth 0"))
        #expect(refused([root], [issuing], Lab.now - 10).contains("certificate is not yet valid (depth 0"))
        #expect(refused([], [], Lab.now).contains("unable to get local issuer"))
        let purpose = failure {
            try issuing.certificate.verifyChain(trust: [root.certificate], at: Lab.now, purpose: .tlsClient)
        }
        #expect(purpose.code == .untrusted, "an authority's key must not authenticate a client")
    }

    @Test func aCertificateOfAnotherIssuerIsRefused() throws {
        let root = try Lab.authority(), sameName = try Lab.authority("Lab Root", .p384)
        let device = try root.issue(Lab.device(), publicKey: Lab.key().publicKey, serial: .random())
        let other = failure { try device.verify(signedBy: Lab.authority("Other").certificate) }
        #expect(other.code == .untrusted && other.text.contains("issuer mismatch"), "\(other.text)")
        #expect(failure { try device.verify(signedBy: sameName.certificate) }.text.contains("key"))
        #expect(failure { try device.verify(signedBy: device) }.text.contains("may not sign certificates"))
        var der = device.der
        der[der.count - 1] ^= 1
        let changed = failure { try Certificate(der: der).verify(signedBy: root.certificate) }
        #expect(changed.code == .untrusted || changed.code == .malformed, "\(changed)")
    }

    @Test func datesAtTheEdges() throws {
        let root = try Lab.authority(notBefore: DERTime.earliest, notAfter: DERTime.latest)
        for (begin, end) in [
            (DERTime.earliest, DERTime.latest), (2_524_607_999, 2_524_608_000), (Lab.now, Lab.now),
        ] {
            let device = try root.issue(
                Lab.device(notBefore: begin, notAfter: end), publicKey: Lab.key().publicKey, serial: .random())
            #expect(device.notBefore == begin && device.notAfter == end)
        }
        for (begin, end) in [
            (DERTime.earliest - 1, Lab.now), (Lab.now, DERTime.latest + 1), (Lab.now, Lab.now - 1), (.min, .max),
        ] {
            #expect(
                failure {
                    try root.issue(
                        Lab.device(notBefore: begin, notAfter: end), publicKey: Lab.key().publicKey, serial: .random())
                }.code == .invalid)
        }
    }

    @Test func profilesThatBreakRFC5280AreRefused() throws {
        let root = try Lab.authority()
        func refused(_ change: (inout CertificateProfile) -> Void) throws -> (code: PKIError.Code?, text: String) {
            var profile = try Lab.device()
            change(&profile)
            return failure { try root.issue(profile, publicKey: Lab.key().publicKey, serial: .random()) }
        }
        for name in ["", "-a", "a..b", "a b", "ä", "*.a", String(repeating: "a", count: 64), "a\0b"] {
            #expect(try refused { $0.alternativeNames = [.dns(name)] }.text.contains("not a DNS name"), "\(name)")
        }
        for uri in ["", "x", ":", "a:", "1:a", "a:b c", "a:ö", "a:\"", "a:\n"] {
            #expect(try refused { $0.alternativeNames = [.uri(uri)] }.text.contains("not a URI"), "\(uri)")
        }
        #expect(try refused { $0.alternativeNames = [.email("a@b")] }.code == .unsupported)
        #expect(try refused { $0.alternativeNames = Array(repeating: .dns("a"), count: 33) }.code == .invalid)
        #expect(try refused { $0.crlDistributionPoint = "https://a/b" }.text.contains("http://"))
        #expect(try refused { $0.kind = .authority(pathLength: -1) }.code == .invalid)
        #expect(failure { try DistinguishedName([]) }.code == .invalid)
        #expect(failure { try DistinguishedName(commonName: "a\0b") }.text.contains("control character"))
        #expect(failure { try DistinguishedName([(.country, "de")]) }.text.contains("capital letters"))
        #expect(try DistinguishedName(commonName: String(repeating: "ü", count: 64)).attributes.count == 1)
    }

    @Test func anIssuerMustBeAbleToIssue() throws {
        let root = try Lab.authority(), issuing = try Lab.intermediate(below: root)
        #expect(issuing.certificate.pathLength == 0)
        #expect(failure { try Lab.intermediate(below: issuing) }.text.contains("path length is 0"))
        let device = try root.issue(Lab.device(), publicKey: Lab.key().publicKey, serial: .random())
        let key = try Lab.key(), other = try Lab.key(.ed25519)
        #expect(failure { try CertificateIssuer(certificate: device, signer: key) }.text.contains("may not sign"))
        let wrong = failure { try CertificateIssuer(certificate: root.certificate, signer: other) }
        #expect(wrong.code == .untrusted && wrong.text.contains("does not belong to the certificate"))
        #expect(
            failure { try CertificateIssuer.selfSigned(Lab.device(), signer: key, serial: .random()) }.code == .invalid)
    }

    /// Signs wrongly from a signature on: the key in memory is damaged, or a processor miscalculates.
    private final class FaultySigner: Signer {
        let key: PrivateKey
        private let rightCount: Int
        private let count = Mutex(0)

        init(_ key: PrivateKey, rightCount: Int) { (self.key, self.rightCount) = (key, rightCount) }

        var publicKeyInfo: [UInt8] { key.publicKeyInfo }
        var signatureAlgorithm: [UInt8] { key.signatureAlgorithm }
        var mustVerify: Bool { key.mustVerify }
        func sign(_ tbs: [UInt8]) throws(PKIError) -> [UInt8] {
            let isRight = count.withLock { count in
                count += 1
                return count <= rightCount
            }
            return try key.sign(isRight ? tbs : tbs + [0])
        }
    }

    @Test(arguments: KeyAlgorithm.allCases) func wrongSignaturesAreFound(algorithm: KeyAlgorithm) throws {
        let authority = try Lab.authority("Faulty", algorithm).certificate, key = try Lab.key(algorithm)
        func issued(rightCount: Int) throws -> Int {
            let issuer = try CertificateIssuer(
                certificate: authority, signer: FaultySigner(key, rightCount: rightCount))
            var count = 0
            for _ in 0..<3 {
                let made = Result {
                    try issuer.issue(Lab.device(), publicKey: Lab.key().publicKey, serial: .random())
                }
                switch made {
                case .success: count += 1
                case .failure(let error): #expect((error as? PKIError)?.code == .untrusted)
                }
            }
            return count
        }
        #expect(try issued(rightCount: 0) == 0, "none is verified yet")
        let isRandomised = algorithm == .p256 || algorithm == .p384
        #expect(try issued(rightCount: 1) == (isRandomised ? 3 : 1))
    }

    @Test func namesInAnyScript() throws {
        let root = try Lab.authority()
        for name in ["größe/设备-1", "a,b+c=\"d\"\\#;<>", " leading", "مرحبا"] {
            var profile = try Lab.device()
            profile.subject = try DistinguishedName([(.country, "DE"), (.organizationalUnit, "x"), (.commonName, name)])
            let issued = try root.issue(profile, publicKey: Lab.key().publicKey, serial: .random())
            #expect(issued.commonName == name)
        }
    }

    @Test func aFileHoldsSeveralCertificates() throws {
        let root = try Lab.authority(), issuing = try Lab.intermediate(below: root)
        let text =
            try Array("# comment\n".utf8) + issuing.certificate.pem() + Array("\n\ntext\n".utf8)
            + root.certificate.pem()
        #expect(try Certificate.chain(pem: text) == [issuing.certificate, root.certificate])
        #expect(
            failure { try Certificate(pem: text, what: "ca.pem") }.text
                == "ca.pem: 2 certificates where one is expected")
        #expect(failure { try Certificate.chain(pem: Array("nothing".utf8)) }.text.contains("no PEM block"))
        var cut = try root.certificate.pem()
        cut.removeLast(60)
        #expect(failure { try Certificate.chain(pem: cut) }.code == .malformed)
        #expect(failure { try Certificate.chain(pem: [UInt8](repeating: 10, count: 5 << 20)) }.text.contains("limit"))
    }

    /// What openssl writes: serial 0, and a certificate without a key identifier as issuer.
    @Test func certificatesOfOpenSSL() throws {
        func made(_ options: String) throws -> [UInt8] {
            let command =
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null "
                + "-subj /CN=x \(options) 2>/dev/null"
            return Array(try Lab.run(["sh", "-c", command]).output.utf8)
        }
        #expect(try Certificate(pem: made("-days 10")).isCA)
        #expect(failure { try Certificate(pem: made("-set_serial 0")) }.text.contains("serial number is not positive"))
        #expect(failure { try Certificate(pem: made("-set_serial -5")) }.text.contains("serial number is not positive"))
        let twice = "-addext basicConstraints=critical,CA:TRUE,pathlen:-1"
        #expect(failure { try Certificate(pem: made(twice)) }.code != nil)
        let names = try Certificate(pem: made("-addext subjectAltName=email:a@b.c,IP:1.2.3.4,RID:1.2.3"))
            .alternativeNames
        #expect(names == [.email("a@b.c"), .address([1, 2, 3, 4]), .other(8)])
    }
}
