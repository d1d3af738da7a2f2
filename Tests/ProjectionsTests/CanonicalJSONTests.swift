import Postgres
import Primitives
import TestSupport
import Testing

@testable import Projections

/// One value has one spelling, and PostgreSQL's spelling of it comes to the same.
@Suite struct CanonicalJSONTests {
    private static func canonical(_ json: String) -> String {
        var output: [UInt8] = []
        Array(json.utf8).withUnsafeBytes { CanonicalJSON.append($0, to: &output) }
        return String(decoding: output, as: UTF8.self)
    }

    @Test(arguments: [
        ("{}", "{}"), (" [ ] ", "[]"), ("null", "null"), ("[true , false]", "[true,false]"),
        (#"{"b":1, "a":2}"#, #"{"a":2,"b":1}"#), (#"{"a":1,"a":{"x":2}}"#, #"{"a":{"x":2}}"#),
        (#"{"ab":1,"a":2,"":3}"#, #"{"":3,"a":2,"ab":1}"#), (#"{"\u0061":1,"a":2}"#, #"{"a":2}"#),
        (#""\u00e9\/\t\u001f\"\\""#, #""é/\t\u001f\"\\""#), (#""\ud83d\ude00""#, "\"😀\""),
        ("0", "0"), ("-0", "0"), ("-0.0e5", "0"), ("1.50", "15e-1"), ("15e-1", "15e-1"), ("100", "100"),
        ("1e2", "100"), ("1E+2", "100"), ("-12.5", "-125e-1"), ("1000000000000000000", "1000000000000000000"),
        ("1e19", "1e19"), ("10000000000000000000", "1e19"), ("0.001", "1e-3"),
        ("12345678901234567890.5", "123456789012345678905e-1"),
    ])
    func spellings(json: String, expected: String) {
        #expect(Self.canonical(json) == expected)
        #expect(Self.canonical(expected) == expected, "it is its own canonical form")
    }

    /// Random values by seed: ours, and what jsonb makes of them.
    @Test(arguments: 1...4)
    func jsonbComesToTheSame(seed: UInt64) throws {
        let connection = try Connection(DatabaseTarget(try PostgresServer.shared.get().url()))
        var random = SeededRandom(seed: seed)
        let values = (0..<600).map { _ in Self.value(&random, 0) }
        var parameters = Parameters()
        parameters.textArray(values)
        let result = try connection.query(
            "SELECT v::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS t (v, i) ORDER BY i", parameters)
        for (index, value) in values.enumerated() {
            let theirs = try #require(result.text(index, 0))
            #expect(Self.canonical(theirs) == Self.canonical(value), "seed \(seed): \(value)")
        }
    }

    private static func value(_ random: inout SeededRandom, _ depth: Int) -> String {
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
        func string() -> String {
            let parts = [
                "a", "b", "é", "\\u00e9", "\\n", "\\/", "/", "\\\\", "\\\"", "\\ud83d\\ude00", "😀", "\\u007f", " ",
            ]
            return "\"" + (0..<number(0..<4)).map { _ in parts[number(0..<parts.count)] }.joined() + "\""
        }
        switch number(0..<(depth > 3 ? 6 : 8)) {
        case 0: return ["null", "true", "false"][number(0..<3)]
        case 1: return string()
        case 2: return "\(number(-1000..<1000))"
        case 3: return "\(number(-99..<99)).\(number(0..<9))\(number(0..<9))0"
        case 4: return "\(number(-9..<9))e\(number(-30..<30))"
        case 5: return "\(number(0..<9))\(String(repeating: "0", count: number(1..<25)))".replacing(/^0+/, with: "0")
        case 6: return "[" + (0..<number(0..<4)).map { _ in value(&random, depth + 1) }.joined(separator: " ,") + "]"
        default:
            return "{ "
                + (0..<number(0..<5)).map { _ in string() + ": " + value(&random, depth + 1) }
                .joined(separator: ", ") + "}"
        }
    }
}
