import EventModel
import Postgres
import TestSupport
import Testing

@testable import Decoding

/// Whatever decoding accepts, PostgreSQL must take as jsonb and as text: one row that it refuses would stall a
/// projection. And what decoding refuses, jsonb must refuse too, but for the two bounds that are ours.
@Suite struct JSONBCompatibilityTests {
    private static func connect() throws -> Connection {
        let connection = try Connection(DatabaseTarget(try PostgresServer.shared.get().url()))
        try connection.exec(
            """
            CREATE FUNCTION pg_temp.holds(value text) RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN
                -- Written and read back, as a row's state is.
                RETURN length(jsonb_send(value::jsonb)) > 0
                    AND length(textsend(coalesce(value::jsonb ->> 'x', ''))) >= 0;
            EXCEPTION WHEN OTHERS THEN
                RETURN false;
            END $$
            """)
        return connection
    }

    /// Which of the texts jsonb holds.
    private static func holds(_ texts: [String], _ connection: Connection) throws -> [Bool] {
        var parameters = Parameters()
        parameters.textArray(texts)
        let result = try connection.query(
            "SELECT pg_temp.holds(value) FROM unnest($1::text[]) WITH ORDINALITY AS t (value, i) ORDER BY i",
            parameters)
        return (0..<result.rowCount).map { result.bool($0, 0) ?? false }
    }

    private static func refusal(_ text: String, _ decoder: FactDecoder) -> Undecodable.Reason? {
        withRecord("tenant/a/device/d/heartbeat", Array(text.utf8)) { record in
            guard case .undecodable(let why) = decoder.decode(record, topic: DeviceTopic(record.topic)!)
            else { return nil }
            return why.reason
        }
    }

    @Test func theEdgesOfNumbersAndText() throws {
        let connection = try Self.connect(), decoder = FactDecoder()
        let digits = { String(repeating: "9", count: $0) }
        let values = [
            "1e131071", "1e131072", "-9.9e131071", "0.1e131072", "0.1e131073", "0.0001e131075", "10e131070",
            "10e131071",
            "1e-16383", "1e-16384", "0.1e-16382", "0.1e-16383", "0e-16384", "0e-16383", "0.0e-16382", "0.0e-16383",
            "100e-16384", "1e99999", "1e-99999", digits(131_072), digits(131_073), "0." + digits(16_383),
            "0." + digits(16_384), "1." + digits(16_383), "0e131073", "1e1000000000", "1e-1000000000", "-0", "-0.0e-5",
            #""\u0000""#, #""\ud800""#, #""\udc00""#, #""\ud83d\ude00""#, #""\ud83d\ud83d""#, #""\uffff""#,
            #""\ufffe""#,
            #"{"\u0000":1}"#, #"{"\ud800":1}"#, "\"\u{7F}\"", "\"\u{10FFFF}\"", #""\\u0000""#, #""\\\u0041""#,
        ]
        let texts = values.map { "{\"x\":\($0)}" }
        for (value, held) in zip(values, try Self.holds(texts, connection)) {
            let refused = Self.refusal("{\"x\":\(value)}", decoder)
            #expect((refused == nil) == held, "\(value.prefix(30)) (\(value.utf8.count) bytes): \(held)")
        }
    }

    @Test func deeplyNestedAsFarAsWeAccept() throws {
        let connection = try Self.connect(), decoder = FactDecoder()
        let deepest = "{\"x\":" + String(repeating: "[", count: 511) + String(repeating: "]", count: 511) + "}"
        #expect(Self.refusal(deepest, decoder) == nil)
        #expect(try Self.holds([deepest], connection) == [true])
    }

    /// Random text near JSON's edges, by seed.
    @Test(arguments: 1...8)
    func randomText(seed: UInt64) throws {
        let connection = try Self.connect(), decoder = FactDecoder()
        var random = Generator(state: seed)
        let texts = (0..<4000).map { _ in random.text() }
        var accepted = 0
        for (text, held) in zip(texts, try Self.holds(texts, connection)) {
            let refused = Self.refusal(text, decoder)
            if refused == nil { accepted += 1 }
            if refused == .notAnObject { continue }
            #expect((refused == nil || refused == .invalidType) == held, "seed \(seed): \(text)")
        }
        #expect(accepted > 200, "the generator makes too little that is accepted: \(accepted)")
    }

    private struct Generator {
        /// Xorshift (Marsaglia 2003): the same texts for a seed, everywhere.
        var state: UInt64

        mutating func below(_ bound: Int) -> Int {
            state = state == 0 ? 88_172_645_463_325_252 : state
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(bound))
        }

        mutating func text() -> String {
            var text = "{\"x\":" + value(0) + "}"
            // Half of them are damaged by one character.
            if below(2) == 0 {
                let characters = Array(text)
                let place = below(characters.count)
                let damage = [
                    "", "\"", "\\", "{", "]", ",", ":", " ", "0", "e", "-", "\u{1}", "é", "n", "\n",
                ][below(15)]
                text =
                    String(characters[..<place]) + damage
                    + String(characters[min(place + below(2), characters.count)...])
            }
            return text
        }

        mutating func value(_ depth: Int) -> String {
            switch below(depth > 4 ? 6 : 9) {
            case 0: return ["true", "false", "null"][below(3)]
            case 1: return number()
            case 2, 3, 4: return string()
            case 5: return String(below(1000))
            case 6:
                return "["
                    + (0..<below(4)).map { _ in value(depth + 1) }.joined(
                        separator: [",", " , ", ",\n"][below(3)]) + "]"
            default:
                return "{" + (0..<below(4)).map { _ in string() + ":" + value(depth + 1) }.joined(separator: ",") + "}"
            }
        }

        mutating func number() -> String {
            let sign = ["", "-"][below(2)], whole = ["0", "1", "12", "900719925474099312345"][below(4)]
            let fraction = ["", ".0", ".5", ".123456789012345678901"][below(4)]
            let exponent = ["", "e5", "E+7", "e-3", "e131071", "e131072", "e-16383", "e-16384", "e200000"][below(9)]
            return sign + whole + fraction + exponent
        }

        mutating func string() -> String {
            let parts = (0..<below(4)).map { _ in
                [
                    "a", "é", "😀", "\\n", "\\\"", "\\\\", "\\/", "\\u0041", "\\u00e9", "\\ud83d\\ude00",
                    "\\u0001", "x y",
                    "\u{7F}", "\\u0000", "\\ud83d", "\\ude00", "名", "{}[],:",
                ][below(below(3) == 0 ? 18 : 13)]
            }
            return "\"" + parts.joined() + "\""
        }
    }
}
