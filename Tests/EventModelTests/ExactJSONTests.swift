import EventModel
import Testing

struct ExactJSONTests {
    /// JSONTestSuite's borders: what is accepted, and what a number stays.
    @Test(arguments: [
        ("1e309", true), ("-0", true), ("0.5", true), ("1E+2", true), ("01", false), ("1.", false),
        (".5", false), ("+1", false), ("1e", false), ("NaN", false), ("-", false),
        ("[1,]", false), ("[]", true), ("{}", true),
        (#"{"a":1,"a":2}"#, true),
        (#"{"a"}"#, false), (#"{"a":1,}"#, false), ("", false), (" 1 ", true), ("1 2", false), (#""\ud800""#, false),
        (#""\ud83d\ude00""#, true), ("\"\u{01}\"", false), (#""\x""#, false), ("tru", false), ("[[]", false),
    ])
    func acceptsRFC8259AndNothingElse(_ text: String, _ isJSON: Bool) {
        #expect((ExactJSON(text) != nil) == isJSON, "\(text)")
    }

    @Test func bytesThatAreNoUTF8AreRefused() {
        #expect(ExactJSON([0x22, 0xFF, 0x22]) == nil)
    }

    @Test func nothingIsLost() throws {
        #expect(ExactJSON("1.50") == .number("1.50"))
        let twice = try #require(ExactJSON(#"{"t":1,"t":2}"#))
        #expect(twice["t"] == .number("2") && twice.uniqueMembers == nil)
        #expect(ExactJSON(#"{"a":18446744073709551615}"#)?.uniqueMembers?["a"]?.uint64 == .max)
        #expect(ExactJSON("18446744073709551616")?.uint64 == nil && ExactJSON("1.0")?.uint64 == nil)
    }

    @Test func nestingIsBounded() {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(ExactJSON(nested(ExactJSON.depthMax)) != nil)
        #expect(ExactJSON(nested(ExactJSON.depthMax + 1)) == nil)
        #expect(ExactJSON(String(repeating: "[", count: 1_000_000)) == nil)
    }

    /// Each right side is what PostgreSQL 15 answers to `select ('{"v":' || $1 || '}')::jsonb->>'v'`.
    @Test(arguments: [
        ("1.10", "1.10"), ("1e2", "100"), ("15e-1", "1.5"), ("-0", "0"), ("-0.0", "0.0"), ("-1E-3", "-0.001"),
        ("1.50e1", "15.0"), ("0e5", "0"), ("12.5e-3", "0.0125"), ("1e20", "100000000000000000000"),
        (#""a\"b""#, "a\"b"),
        ("true", "true"), (#"{"bb":1,"a":[1, 2.0],"a":[]}"#, #"{"a": [], "bb": 1}"#),
        (#"["\u0001\/é"]"#, #"["\u0001/é"]"#),
        // PostgreSQL refuses these; they stay as written.
        ("1e-9223372036854775808", "1e-9223372036854775808"), ("1.5e9223372036854775807", "1.5e9223372036854775807"),
        ("1e99999999999999999999", "1e99999999999999999999"), ("1e200001", "1e200001"),
    ])
    func textIsThatOfJsonb(_ json: String, _ text: String) {
        #expect(ExactJSON(json)?.jsonbText == text)
    }
}
