import COpenSSL
import Testing
@testable import Primitives

struct DigestTests {
    /// FIPS 180-2, appendix B.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ])
    func sha256IsThatOfFIPS180(text: String, hex: String) {
        #expect(SHA256.digest(text.utf8).description == hex)
    }

    /// Every length around the edges of blocks and of the padding, against OpenSSL's own finish; at once and in pieces.
    @Test func paddingMatchesOpenSSLAtEveryLength() {
        for count in Array(0...300) + [1023, 1024, 65_535] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
            var expected = [UInt8](repeating: 0, count: 32)
            EVP_Digest(bytes, bytes.count, &expected, nil, EVP_sha256(), nil)
            #expect(SHA256.digest(bytes).bytes == expected, "\(count) bytes")
            var stream = SHA256.Stream()
            for piece in [bytes.prefix(count / 3), bytes.dropFirst(count / 3)] {
                Array(piece).withUnsafeBytes { stream.update($0) }
            }
            #expect(stream.finish().bytes == expected, "\(count) bytes in pieces")
        }
    }

    @Test func digestsRoundTripThroughHex() {
        let digest = SHA256.digest("abc".utf8), hex = digest.description
        #expect(Digest(hex: hex) == digest && Digest(digest.bytes) == digest)
        for bad in [hex.uppercased(), String(hex.dropLast()), hex + "0", hex + "00", "", String(hex.dropLast()) + "g"] {
            #expect(Digest(hex: bad) == nil, "\(bad)")
        }
        #expect(Digest([1, 2, 3]) == nil)
    }
}
