import Foundation
import Testing
@testable import PKI

struct KeyTests {
    @Test(arguments: KeyAlgorithm.allCases)
    func aKeySignsAndIsRestoredFromPEM(algorithm: KeyAlgorithm) throws {
        let key = try Lab.key(algorithm), message = Array("to be signed".utf8)
        #expect(key.algorithm == algorithm)
        #expect(key.publicKey.name == algorithm.rawValue)
        #expect(key.publicKey.weakness == nil)
        let restored = try PrivateKey(pem: key.pem())
        #expect(restored.publicKeyInfo == key.publicKeyInfo)
        let signature = try restored.sign(message)
        #expect(key.publicKey.verify(signature, of: message))
        #expect(!key.publicKey.verify(signature, of: message + [0]))
        #expect(!key.publicKey.verify([], of: message))
        #expect(key.publicKey.keyIdentifier.count == 20)
        #expect(try PublicKey(info: key.publicKeyInfo) == key.publicKey)
    }

    /// Points of a curve are decoded without OpenSSL's decoder, which takes longer than a verification. Every other
    /// form goes to it.
    @Test(arguments: [KeyAlgorithm.p256, .p384]) func pointsAreCheckedToLieOnTheirCurve(algorithm: KeyAlgorithm) throws
    {
        let key = try Lab.key(algorithm), info = key.publicKeyInfo, message = Array("to be signed".utf8)
        let bytes = algorithm == .p256 ? 32 : 48, point = info.count - 2 * bytes - 1
        let signature = try key.sign(message)
        #expect(CurveTemplate.key(info) != nil)
        for _ in 0..<20 {
            let other = try PrivateKey.generate(algorithm)
            let found = try #require(CurveTemplate.key(other.publicKeyInfo))
            let decoded = PublicKey(found, info: other.publicKeyInfo)
            #expect(decoded.name == algorithm.rawValue && decoded.weakness == nil)
            let theirs = try other.sign(message)
            #expect(decoded.verify(theirs, of: message) && !decoded.verify(signature, of: message))
        }
        // One bit of y: not on the curve.
        var off = info
        off[info.count - 1] ^= 1
        // Beyond the field.
        var beyond = info
        for index in point + 1..<info.count { beyond[index] = 0xFF }
        for bad in [off, beyond, info.dropLast(1) + [], info + [0]] {
            #expect(CurveTemplate.key(bad) == nil)
            #expect(failure { try PublicKey(info: bad) }.code == .malformed)
        }
        // Hybrid: as OpenSSL judges it.
        var hybrid = info
        hybrid[point] = 6 | info[info.count - 1] & 1
        #expect(CurveTemplate.key(hybrid) == nil)
        // The header of the other curve.
        let other = try Lab.key(algorithm == .p256 ? .p384 : .p256).publicKeyInfo
        #expect(CurveTemplate.key(Array(other.prefix(26)) + Array(info.dropFirst(26))) == nil)
    }

    @Test func aCompressedPointIsRead() throws {
        try Lab.withFolder { folder in
            let key = try Lab.key(), pem = "\(folder)/key.pem"
            try key.create(pem)
            let made = try Lab.run([
                "openssl", "pkey", "-in", pem, "-pubout", "-ec_conv_form", "compressed", "-outform", "DER", "-out",
                "\(folder)/public.der",
            ])
            #expect(made.code == 0, "\(made.output)")
            let info = try Array(Data(contentsOf: URL(fileURLWithPath: "\(folder)/public.der")))
            #expect(info.count == 59 && CurveTemplate.key(info) == nil)
            let read = try PublicKey(info: info), message = Array("to be signed".utf8)
            let signature = try key.sign(message)
            #expect(read.name == "P-256" && read.verify(signature, of: message))
        }
    }

    @Test func anEncryptedKeyNeedsItsPassphrase() throws {
        let key = try Lab.key(), pem = try key.pem(passphrase: Array("correct horse".utf8))
        #expect(String(decoding: pem, as: UTF8.self).hasPrefix("-----BEGIN ENCRYPTED PRIVATE KEY-----"))
        #expect(try PrivateKey(pem: pem, passphrase: Array("correct horse".utf8)).publicKeyInfo == key.publicKeyInfo)
        let wrong = failure { try PrivateKey(pem: pem, passphrase: Array("battery".utf8), what: "key file ca.key") }
        #expect(wrong.code == .passphrase)
        #expect(wrong.text == "key file ca.key: cannot decrypt the key: the passphrase is wrong")
        let none = failure { try PrivateKey(pem: pem) }
        #expect(none.code == .passphrase && none.text.contains("configure its passphrase"))
        #expect(failure { try key.pem(passphrase: []) }.code == .passphrase)
    }

    /// As `openssl` writes them: SEC 1 with its parameters, PKCS #1, and PKCS #8 with the parameters that we write.
    @Test func keysOfOpenSSLAreRead() throws {
        try Lab.withFolder { folder in
            let commands = [
                "openssl ecparam -name prime256v1 -genkey -out \(folder)/sec1.pem",
                "openssl ecparam -name secp384r1 -genkey -noout -out \(folder)/p384.pem",
                "openssl genrsa -traditional -out \(folder)/pkcs1.pem 2048",
                "openssl genrsa -traditional -aes128 -passout pass:old -out \(folder)/legacy.pem 2048",
                "openssl genpkey -algorithm ed25519 -aes-256-cbc -pass pass:secret -out \(folder)/ed.pem",
            ]
            let made = try Lab.run(["sh", "-c", commands.joined(separator: " && ")])
            #expect(made.code == 0, "\(made.output)")
            func key(_ name: String, _ passphrase: String? = nil) throws -> PrivateKey {
                let bytes = try Array(Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(name).pem")))
                return try PrivateKey(pem: bytes, passphrase: passphrase.map { Array($0.utf8) })
            }
            #expect(try key("sec1").algorithm == .p256)
            #expect(try key("p384").algorithm == .p384)
            #expect(try key("pkcs1").algorithm == .rsa2048)
            #expect(try key("legacy", "old").algorithm == .rsa2048)
            #expect(failure { try key("legacy", "new") }.code == .passphrase)
            #expect(try key("ed", "secret").algorithm == .ed25519)
            let ours = "\(folder)/ours.pem"
            try Lab.key(.p384).create(ours, passphrase: Array("pass word".utf8))
            let read = try Lab.run(["openssl", "pkey", "-in", ours, "-passin", "pass:pass word", "-text", "-noout"])
            #expect(read.code == 0 && read.output.contains("P-384"), "\(read.output)")
            let parameters = try Lab.run(["openssl", "asn1parse", "-in", ours]).output
            for word in ["PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc"] { #expect(parameters.contains(word)) }
        }
    }

    @Test func weakAndUnknownKeysAreRefused() throws {
        try Lab.withFolder { folder in
            let kinds: [(String, PKIError.Code, String)] = [
                ("genrsa 1024", .unsupported, "RSA-1024"),
                ("ecparam -name secp256k1 -genkey -noout", .unsupported, "secp256k1"),
                ("genpkey -algorithm X25519", .unsupported, "X25519"),
            ]
            for (command, code, word) in kinds {
                let pem = try Lab.run(["sh", "-c", "openssl \(command) 2>/dev/null"]).output
                let refused = failure { try PrivateKey(pem: Array(pem.utf8)) }
                #expect(refused.code == code && refused.text.contains(word), "\(refused)")
            }
        }
        let garbage = failure { try PrivateKey(pem: Array("-----BEGIN PRIVATE KEY-----\nAAAA\n".utf8)) }
        #expect(garbage.code == .malformed && garbage.text.contains("no private key in PEM form"), "\(garbage)")
        #expect(failure { try PrivateKey(pem: [UInt8](repeating: 65, count: 100_000)) }.text.contains("limit"))
    }

    @Test func aKeyFileIsPrivateAndNeverReplaced() throws {
        try Lab.withFolder { folder in
            let path = folder + "/ca.key", key = try Lab.key()
            try key.create(path)
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            #expect(try PrivateKey.load(path).publicKeyInfo == key.publicKeyInfo)
            let again = failure { try key.create(path) }
            #expect(again.code == .file && again.text.contains("never overwritten"), "\(again)")
            for mode in [0o640, 0o604, 0o644] {
                try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
                let refused = failure { try PrivateKey.load(path) }
                #expect(refused.code == .file)
                #expect(refused.text.contains("mode 0\(String(mode, radix: 8))"), "\(refused.text)")
                #expect(refused.text.contains("chmod 600 \(path)"), "\(refused.text)")
            }
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            if geteuid() == 0 {
                chown(path, 12345, 0)
                #expect(failure { try PrivateKey.load(path) }.text.contains("belongs to user 12345"))
            }
            #expect(failure { try PrivateKey.load(folder) }.text.contains("not a regular file"))
            #expect(failure { try PrivateKey.load(folder + "/none") }.text.contains("No such file"))
            #expect(failure { try key.create(folder + "/no/ca.key") }.code == .file)
        }
    }
}

struct CommandSignerTests {
    @Test(arguments: [KeyAlgorithm.p256, .p384, .rsa2048])
    func aCommandSigns(algorithm: KeyAlgorithm) throws {
        try Lab.withFolder { folder in
            let key = try Lab.key(algorithm), path = folder + "/ca.key"
            try key.create(path)
            let digest = algorithm == .p384 ? "sha384" : "sha256"
            let signer = try CommandSigner("openssl dgst -\(digest) -sign '\(path)'", publicKey: key.publicKey)
            #expect(signer.signatureAlgorithm == key.signatureAlgorithm)
            let message = (0..<300_000).map { UInt8(truncatingIfNeeded: $0) }
            #expect(key.publicKey.verify(try signer.sign(message), of: message))
            let issuer = try CertificateIssuer(
                certificate: Lab.authority("Command", algorithm).certificate, signer: signer)
            let issued = try issuer.issue(Lab.device(), publicKey: Lab.key().publicKey, serial: .random())
            try issued.verify(signedBy: issuer.certificate)
        }
    }

    @Test func aCommandThatFailsSaysWhatItPrinted() throws {
        let key = try Lab.key().publicKey
        func refused(_ command: String, seconds: Int = 10) -> (code: PKIError.Code?, text: String) {
            failure { try CommandSigner(command, publicKey: key, timeoutSeconds: seconds).sign([1, 2, 3]) }
        }
        let exit = refused("echo 'slot 3 is locked' >&2; exit 4")
        #expect(exit.code == .command && exit.text.hasSuffix("failed: exit code 4: slot 3 is locked"), "\(exit.text)")
        #expect(refused("sleep 60", seconds: 1).text.contains("killed after 1 s"))
        #expect(refused("cat /dev/zero").text.contains("more than 1024 bytes"))
        let text = refused("echo signed!")
        #expect(text.code == .command && text.text.contains("\"signed!\\n\""), "\(text.text)")
        #expect(text.text.contains("not a raw signature by the authority's key (P-256 with SHA256)"))
        #expect(refused("true").text.contains("printed 0 bytes"))
        // Closes its input early.
        #expect(refused("exit 0").text.contains("printed 0 bytes"))
        #expect(failure { try CommandSigner("", publicKey: key) }.code == .command)
        try Lab.withFolder { folder in
            try PrivateKey.generate().create(folder + "/other.key")
            #expect(refused("openssl dgst -sha256 -sign '\(folder)/other.key'").text.contains("not a raw signature"))
        }
    }
}
