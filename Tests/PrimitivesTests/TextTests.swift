import Foundation
import Primitives
import Testing

struct TextTests {
    @Test func hexHasTwoDigitsAByte() {
        #expect(Hex.encode([0x00, 0x0F, 0xA0, 0xFF]) == "000fa0ff")
        #expect(Hex.encode(UInt32(0xBEEF)) == "0000beef" && Hex.encode(UInt64.max) == "ffffffffffffffff")
        #expect(Hex.encode(UInt8(7)) == "07" && Hex.encode([]) == "")
        #expect(Hex.decode("000FA0ff") == [0x00, 0x0F, 0xA0, 0xFF] && Hex.decode("") == [])
        for bad in ["0", "0g", "0x10", "+1", "１２", "00 "] { #expect(Hex.decode(bad) == nil, "\(bad)") }
    }

    @Test func base64HasOneForm() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            #expect(Base64.encode(Array(bytes.utf8)) == text)
            #expect(Base64.decode(Array(text.utf8)) == Array(bytes.utf8))
        }
        for bad in ["Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zm9v\n", "Zm 9", "Zg==Zg==", "Zm-_"] {
            #expect(Base64.decode(Array(bad.utf8)) == nil, "\(bad)")
        }
    }

    /// RFC 8785, 3.2.2.2.
    @Test(arguments: [
        ("", #""""#), ("a/é€😀\u{7F}\u{2028}", "\"a/é€😀\u{7F}\u{2028}\""), ("\"\\", #""\"\\""#),
        ("\u{08}\t\n\u{0C}\r", #""\b\t\n\f\r""#), ("\0\u{1F}", #""\u0000\u001f""#),
    ])
    func aJSONStringHasOneForm(text: String, json: String) throws {
        #expect(JSONString.encode(text) == json)
        #expect(try JSONDecoder().decode(String.self, from: Data(json.utf8)) == text)
    }

    /// The first outputs for seed 1234567, from the generator's reference implementation.
    @Test func theSeedDeterminesTheNumbers() {
        var random = SeededRandom(seed: 1_234_567)
        #expect(
            (0..<3).map { _ in random.next() } == [
                6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
            ])
        let drawn = Set((0..<1_000).map { _ in random.below(7) })
        #expect(drawn == Set(0..<7))
        let heads = (0..<1_000).count { _ in random.chance(0.25) }
        #expect((150...350).contains(heads))
        #expect(!random.chance(0) && random.chance(1))
    }

    @Test func histogramBoundsAreInclusive() {
        var histogram = Histogram(bounds: [1, 2.5])
        for value in [-1, 0, 1, 1.5, 2.5, 2.6, .infinity] { histogram.record(value) }
        #expect(histogram.counts == [3, 2, 2] && histogram.count == 7)
    }

    @Test func clocksCountMicroseconds() {
        let wall = SystemTime.wallMicroseconds(), now = Int64(Date().timeIntervalSince1970 * 1e6)
        #expect(abs(wall - now) < 60_000_000)
        let before = SystemTime.monotonicMicroseconds()
        #expect(SystemTime.bootMicroseconds() >= before)
        usleep(2_000)
        #expect(SystemTime.monotonicMicroseconds() - before >= 2_000)
    }
}
