import EventModel
import Testing

@testable import Decoding

private func decoder() -> FactDecoder { FactDecoder() }

/// What a payload on `tenant/acme/device/d1/{rest}` decodes to, in words that a table can hold.
private func decode(_ rest: String, _ payload: [UInt8]) -> String {
    let decoder = FactDecoder()
    return withRecord("tenant/acme/device/d1/\(rest)", payload) { record in
        // A fact may point into its decoder.
        withExtendedLifetime(decoder) { describe(decoder.decode(record, topic: DeviceTopic(record.topic)!)) }
    }
}

private func decode(_ rest: String, _ payload: String) -> String { decode(rest, Array(payload.utf8)) }

private func text(_ bytes: Bytes?) -> String { bytes.map { String(decoding: $0, as: UTF8.self) } ?? "-" }

private func describe(_ fact: MessageFact) -> String {
    switch fact {
    case .telemetry(let t): "telemetry \(text(t.siteID)) \(t.sequence.map(String.init) ?? "-") \(text(t.metrics))"
    case .heartbeat(let h): "heartbeat \(text(h.siteID)) \(h.sequence.map(String.init) ?? "-")"
    case .shadow(let s): "shadow \(s.version) \(text(s.reported))"
    case .commandAck(let a): "ack \(text(a.commandID)) \(text(a.status)) \(text(a.details))"
    case .otaStatus(let o):
        "ota \(o.campaignID) \(o.status.rawValue) \(o.progress.map { "\($0)" } ?? "-") \(text(o.error))"
    case .connection(let c): "connection \(c.status.rawValue)"
    case .none: "none"
    case .undecodable(let u): u.reason.rawValue + (u.field.map { " " + $0.rawValue } ?? "")
    }
}

@Suite struct FactDecoderTests {
    @Test(arguments: [
        (
            "telemetry", #"{"ts":"2026-01-01T00:00:00Z","site_id":"s1","seq":7,"metrics":{"t":1.5,"on":true,"m":"x"}}"#,
            #"telemetry s1 7 {"t":1.5,"on":true,"m":"x"}"#
        ),
        ("telemetry", #"{"metrics":{}}"#, "telemetry - - {}"),
        ("telemetry", " {\n\"metrics\" : { \"a\" : 1 } , \"seq\" : -5 }\t\r\n", #"telemetry - -5 { "a" : 1 }"#),
        (
            "telemetry", #"{"metrics":{"a":1},"extra":[1,{"x":[]},null,"y"],"more":{"deep":{}}}"#,
            #"telemetry - - {"a":1}"#
        ),
        ("telemetry", #"{"metrics":{"a":1},"site_id":null,"seq":null,"ts":null}"#, #"telemetry - - {"a":1}"#),
        (
            "telemetry", #"{"metrics":{"a":1},"site_id":"\u00e9\n\"\\\ud83d\ude00/\/"}"#,
            "telemetry é\n\"\\😀// - {\"a\":1}"
        ),
        ("telemetry", #"{"m\u0065trics":{"a":1}}"#, #"telemetry - - {"a":1}"#),
        ("telemetry", #"{"metrics":5,"metrics":{"a":1},"seq":"x","seq":2}"#, #"telemetry - 2 {"a":1}"#),
        ("telemetry", #"{"metrics":{"a":1},"tenant_id":"acme","device_id":"d1"}"#, #"telemetry - - {"a":1}"#),
        ("telemetry", #"{"metrics":{"a":1},"tenant_id":"\u0061cme","device_id":null}"#, #"telemetry - - {"a":1}"#),
        (
            "telemetry", #"{"metrics":{"a":1},"tenant_id":"other","device_id":"d1"}"#,
            "TENANT_MISMATCH_TOPIC_VS_PAYLOAD tenant_id"
        ),
        ("telemetry", #"{"metrics":{"a":1},"device_id":"d2"}"#, "DEVICE_MISMATCH_TOPIC_VS_PAYLOAD device_id"),
        ("telemetry", #"{"metrics":{"a":1},"tenant_id":5}"#, "INVALID_TYPE tenant_id"),
        ("telemetry", "{}", "MISSING_FIELD metrics"),
        ("telemetry", #"{"metrics":null}"#, "MISSING_FIELD metrics"),
        ("telemetry", #"{"metrics":[1]}"#, "INVALID_TYPE metrics"),
        ("telemetry", #"{"metrics":{"a":null}}"#, "INVALID_TYPE metrics"),
        ("telemetry", #"{"metrics":{"a":{"b":1}}}"#, "INVALID_TYPE metrics"),
        ("telemetry", #"{"metrics":{"a":[1]}}"#, "INVALID_TYPE metrics"),
        ("telemetry", #"{"metrics":{},"seq":1.0}"#, "INVALID_TYPE seq"),
        ("telemetry", #"{"metrics":{},"seq":1e3}"#, "INVALID_TYPE seq"),
        ("telemetry", #"{"metrics":{},"seq":"1"}"#, "INVALID_TYPE seq"),
        ("telemetry", #"{"metrics":{},"seq":9223372036854775807}"#, "telemetry - 9223372036854775807 {}"),
        ("telemetry", #"{"metrics":{},"seq":-9223372036854775808}"#, "telemetry - -9223372036854775808 {}"),
        ("telemetry", #"{"metrics":{},"seq":9223372036854775808}"#, "INVALID_TYPE seq"),
        ("telemetry", #"{"metrics":{},"seq":true}"#, "INVALID_TYPE seq"),
        ("telemetry", #"{"metrics":{},"ts":5}"#, "INVALID_TYPE ts"),
        ("telemetry", #"{"metrics":{},"site_id":5}"#, "INVALID_TYPE site_id"),
        ("telemetry", "[]", "NOT_AN_OBJECT"), ("telemetry", "5", "NOT_AN_OBJECT"),
        ("telemetry", "\"x\"", "NOT_AN_OBJECT"),
        ("telemetry", "null", "NOT_AN_OBJECT"),
        ("heartbeat", #"{"ts":"x","site_id":"","seq":0}"#, "heartbeat  0"),
        ("heartbeat", "{}", "heartbeat - -"),
        (
            "shadow/reported", #"{"version":3,"reported":{"firmware_version":"1.2","a":[{}]}}"#,
            #"shadow 3 {"firmware_version":"1.2","a":[{}]}"#
        ),
        ("shadow/reported", #"{"reported":{}}"#, "MISSING_FIELD version"),
        ("shadow/reported", #"{"version":3}"#, "MISSING_FIELD reported"),
        ("shadow/reported", #"{"version":"3","reported":{}}"#, "INVALID_TYPE version"),
        ("shadow/reported", #"{"version":3,"reported":[]}"#, "INVALID_TYPE reported"),
        ("commands/ack", #"{"command_id":"c1","status":"done","details":{"x":1}}"#, #"ack c1 done {"x":1}"#),
        ("commands/ack", #"{"command_id":"c1","status":""}"#, "ack c1  -"),
        ("commands/ack", #"{"status":"done"}"#, "MISSING_FIELD command_id"),
        ("commands/ack", #"{"command_id":"c1"}"#, "MISSING_FIELD status"),
        ("commands/ack", #"{"command_id":1,"status":"done"}"#, "INVALID_TYPE command_id"),
        ("commands/ack", #"{"command_id":"c","status":"done","details":"x"}"#, "INVALID_TYPE details"),
        ("ota/status", #"{"campaign_id":7,"status":"DOWNLOADING","progress":12.5}"#, "ota 7 DOWNLOADING 12.5 -"),
        ("ota/status", #"{"campaign_id":7,"status":"success","progress":1000}"#, "ota 7 SUCCESS 100.0 -"),
        ("ota/status", #"{"campaign_id":7,"status":"FaIlEd","progress":-3,"error":"disk"}"#, "ota 7 FAILED 0.0 disk"),
        ("ota/status", #"{"campaign_id":7,"status":"INSTALLING","progress":1e400}"#, "ota 7 INSTALLING 100.0 -"),
        ("ota/status", #"{"campaign_id":7,"status":"INSTALLING","progress":-1e400}"#, "ota 7 INSTALLING 0.0 -"),
        ("ota/status", #"{"campaign_id":7,"status":"INSTALLING","progress":1e-400}"#, "ota 7 INSTALLING 0.0 -"),
        ("ota/status", #"{"campaign_id":"7","status":"SUCCESS"}"#, "INVALID_TYPE campaign_id"),
        ("ota/status", #"{"campaign_id":7.0,"status":"SUCCESS"}"#, "INVALID_TYPE campaign_id"),
        ("ota/status", #"{"status":"SUCCESS"}"#, "MISSING_FIELD campaign_id"),
        ("ota/status", #"{"campaign_id":7}"#, "MISSING_FIELD status"),
        ("ota/status", #"{"campaign_id":7,"status":"PENDING"}"#, "INVALID_VALUE status"),
        ("ota/status", #"{"campaign_id":7,"status":"SUCCESS","progress":"9"}"#, "INVALID_TYPE progress"),
        ("ota/status", #"{"campaign_id":7,"status":"SUCCESS","error":9}"#, "INVALID_TYPE error"),
        ("connection", #"{"status":"CONNECTED"}"#, "connection CONNECTED"),
        ("connection", #"{"status":"connection_lost","x":1}"#, "connection CONNECTION_LOST"),
        ("connection", #"{"status":"UP"}"#, "INVALID_VALUE status"),
        ("connection", #"{"status":true}"#, "INVALID_TYPE status"),
        ("connection", "{}", "MISSING_FIELD status"),
        ("ota", "not json", "none"), ("logs/x", "not json", "none"),
    ])
    func fields(rest: String, payload: String, expected: String) { #expect(decode(rest, payload) == expected) }

    /// Every one inside a field that no fold looks at: a payload is JSON only if all of it is.
    @Test(arguments: [
        "", " ", "{", "}", "{}}", "{} {}", "{},", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}",
        "{1:1}", "{\"a\" 1}",
        "{\"a\":1 \"b\":2}", "[1,]", "[,1]", "[1 2]", "[", "]", "{\"a\":[1,{\"b\":]}", "{\"a\":[}",
        "{\"a\":{]}", "{\"a\":1]",
        "{\"a\":tru}", "{\"a\":truex}", "{\"a\":true\"b\"}", "{\"a\":nul}", "{\"a\":True}", "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-}", "{\"a\":+1}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":1e}", "{\"a\":1e+}",
        "{\"a\":0x10}",
        "{\"a\":1_000}", "{\"a\":--1}", "{\"a\":1\"b\"}", "{\"a\":-01}", "{\"a\":1.2.3}", "{\"a\":1a}", "{\"a\":'x'}",
        "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\u12G4\"}", "{\"a\":\"\\\"}", "{\"a\":\"x}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\u{1}\"}", "{\"a\":\"x\"y}", "{\"a\":\"x\"\"y\"}", "\u{FEFF}{}", "{}\u{0}", "\u{0}{}",
        "{\"a\":1}x", "{\"a\"::1}",
        "{\"a\":1,,\"b\":2}", "[[]", "[]]", "{\"a\":1}/* */", "{\"a\":\u{A0}1}", "{\"a\":1;\"b\":2}", "\"",
        "tru", "-", "nullnull",
    ])
    func notJSON(payload: String) {
        #expect(decode("heartbeat", payload) == "INVALID_JSON")
        #expect(decode("heartbeat", "{\"x\":" + payload + "}") == "INVALID_JSON")
    }

    @Test(
        arguments: [
            [0x80], [0xC0, 0x80], [0xC1, 0xBF], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF0, 0x80, 0x80, 0x80],
            [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xE2, 0x82], [0xFF], [0xFE],
        ] as [[UInt8]])
    func notUTF8(bytes: [UInt8]) {
        #expect(decode("heartbeat", Array("{\"a\":\"".utf8) + bytes + Array("\"}".utf8)) == "INVALID_JSON")
        #expect(decode("heartbeat", Array("{\"".utf8) + bytes + Array("\":1}".utf8)) == "INVALID_JSON")
    }

    @Test(arguments: [
        #""\u0000""#, #""a\u0000b""#, #""\ud800""#, #""\udc00""#, #""\ud800x""#, #""\ud800\u0041""#, #""\udc00\ud800""#,
        #""\ud83d\ud83d\ude00""#, "1e200000", "-1e200000", "1e131072", "1e-16384", "1e99999999999999999999",
        "1e-99999999999999999999", #"{"\u0000":1}"#, #"{"\ud800":1}"#,
        String(repeating: "[", count: 512) + String(repeating: "]", count: 512),
        "[" + Array(repeating: "1e131000", count: 9).joined(separator: ",") + "]",
    ])
    func whatPostgreSQLCannotHold(value: String) {
        #expect(decode("heartbeat", "{\"x\":\(value)}") == "INVALID_VALUE")
        #expect(decode("telemetry", "{\"x\":[\(value)],\"metrics\":[]}") == "INVALID_VALUE")
        #expect(
            decode("telemetry", "{\"x\":[\(value)],\"metrics\":{}} x") == "INVALID_JSON",
            "invalid JSON comes first")
    }

    @Test(arguments: [
        "1e131071", "1e-16383", "0e10", "-0", "0.0", "1E5", "1e+5", String(repeating: "9", count: 400),
        String(repeating: "[", count: 511) + String(repeating: "]", count: 511), #""\ud83d\ude00""#, "\"\u{10FFFF}\"",
        "\"\u{7F}\"",
    ])
    func whatPostgreSQLHolds(value: String) { #expect(decode("heartbeat", "{\"x\":\(value)}") == "heartbeat - -") }

    /// The parser's memory grows with the payload and is used again for the next.
    @Test func longAndShortPayloadsInTurn() {
        let decoder = FactDecoder()
        for count in [1, 100_000, 3, 300_000, 64, 63, 65] {
            let value = String(repeating: "\\u00e9x", count: count)
            withRecord("tenant/a/device/d/heartbeat", Array("{\"site_id\":\"\(value)\"}".utf8)) { record in
                guard case .heartbeat(let fact) = decoder.decode(record, topic: DeviceTopic(record.topic)!) else {
                    Issue.record("did not decode")
                    return
                }
                #expect(fact.siteID?.count == count * 3)
            }
        }
    }

    @Test func shapesTellNamesAndTheirOrder() {
        func shape(_ metrics: String) -> UInt64 {
            withRecord("tenant/a/device/d/telemetry", Array("{\"metrics\":\(metrics)}".utf8)) { record in
                guard case .telemetry(let fact) = decoder().decode(record, topic: DeviceTopic(record.topic)!)
                else { return 0 }
                return fact.shape
            }
        }
        #expect(shape(#"{"a":1,"b":2}"#) == shape(#"{"a":true, "b":"x"}"#))
        let different = [
            #"{}"#, #"{"a":1}"#, #"{"b":1}"#, #"{"a":1,"b":2}"#, #"{"b":1,"a":2}"#, #"{"ab":1}"#,
            #"{"a":1,"b":2,"c":3}"#,
            #"{"":1}"#, #"{"":1,"a":1}"#, #"{"abcdefgh":1}"#, #"{"abcdefghi":1}"#, #"{"abcdefgh":1,"i":1}"#,
        ].map(shape)
        #expect(Set(different).count == different.count)
        #expect(shape(#"{"\u0061":1}"#) == 0)
    }

    @Test(arguments: [
        (#"{"a":1,"b":2}"#, #"{"b":3}"#, #"{"a":1,"b":3}"#, false),
        (#"{"a":1}"#, #"{"b":"x"}"#, #"{"a":1,"b":"x"}"#, false),
        (#"{"a":1}"#, #"{}"#, #"{"a":1}"#, false),
        (#"{}"#, #"{"a":1}"#, #"{"a":1}"#, true),
        (#"{"a":1,"b":2}"#, #"{"b":3,"a":4,"c":5}"#, #"{"b":3,"a":4,"c":5}"#, true),
        (#"{ "a" : 1 , "b" : "," }"#, #"{ "c" : "}" }"#, #"{"a" : 1,"b" : ",","c" : "}"}"#, false),
        (#"{"\u0061":1,"b":2}"#, #"{"a":3}"#, #"{"b":2,"a":3}"#, false),
        (#"{"a":1,"b":2}"#, #"{"\u0061":3}"#, #"{"b":2,"\u0061":3}"#, false),
    ])
    func metricsMergeByName(older: String, newer: String, expected: String, isOnlyNewer: Bool) {
        let decoder = FactDecoder()
        let (merged, only) = Array(older.utf8).withUnsafeBytes { older in
            Array(newer.utf8).withUnsafeBytes { newer in
                let result = decoder.merge(metrics: older, with: newer)
                return (text(result.merged), result.isOnlyNewer)
            }
        }
        #expect(merged == expected)
        #expect(only == isOnlyNewer)
    }

    @Test(
        arguments: [
            (#"{"count":3,"rejected":[]}"#, 3), ("{}", nil), (#"{"count":-1}"#, nil), (#"{"count":"3"}"#, nil),
        ] as [(String, Int64?)])
    func rejections(payload: String, expected: Int64?) {
        let count = withRecord(
            "tenant/a/device/d/rejected", Array(payload.utf8), kind: .rejection, verdict: .rateLimited
        ) {
            decoder().rejectedCount($0)
        }
        #expect(count == expected)
    }
}
