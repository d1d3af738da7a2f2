import EventModel
import Testing

@testable import Projections

@Suite struct OtherProjectionTests {
    @Test func connectionEvents() {
        var history = History()
        history.message("connection", #"{"status":"connected","ip":"10.0.0.1"}"#)
        history.message("connection", #"{"status":"CONNECTED"}"#, flags: .retained)
        history.message("connection", #"{"status":"UP"}"#)
        history.message("connection", #"{"status":"CONNECTION_LOST"}"#, tenant: "b", device: "x")
        let columns = ["position", "tenant_id", "device_id", "event_type", "at", "details"]
        #expect(
            history.rows("device_connection_events", "device_connection_events", columns) == [
                #"0 acme d1 CONNECTED @0 {"ip":"10.0.0.1","status":"connected"}"#,
                #"3 b x CONNECTION_LOST @3 {"status":"CONNECTION_LOST"}"#,
            ])
    }

    @Test func deadLettersOfTheGateAndOfDecoding() {
        var history = History()
        history.message("telemetry", "nonsense")
        history.message("telemetry", #"{"metrics":{}}"#)
        history.message("heartbeat", #"{"tenant_id":"other"}"#)
        history.message("ota", "x", verdict: .foreignCommand)
        history.add("a/b\u{0}c", "x", "main", .message, .badTopicFormat)
        history.message("rejected", #"{"count":3}"#, kind: .rejection, verdict: .rateLimited)
        history.message("logs", "nonsense")
        history.message("shadow/reported", "[]", flags: .retained)
        history.add("campaign.created/1", "{}", "", .decision)
        history.add("campaign.unheard_of/9", "{}", "", .decision)
        let columns = ["position", "projection", "tenant_id", "device_id", "topic", "reason", "payload", "status"]
        #expect(
            history.rows("dead_letters", "dead_letters", columns) == [
                "0 decoding acme d1 tenant/acme/device/d1/telemetry INVALID_JSON nonsense NEW",
                "2 decoding acme d1 tenant/acme/device/d1/heartbeat TENANT_MISMATCH_TOPIC_VS_PAYLOAD "
                    + #"{"tenant_id":"other"} NEW"#,
                "3 ingest acme d1 tenant/acme/device/d1/ota FOREIGN_COMMAND x NEW",
                "4 ingest null null a/b\u{FFFD}c BAD_TOPIC_FORMAT x NEW",
                #"5 ingest acme d1 tenant/acme/device/d1/rejected RATE_LIMITED {"count":3} NEW"#,
                "7 decoding acme d1 tenant/acme/device/d1/shadow/reported NOT_AN_OBJECT [] NEW",
                "8 decoding null null campaign.created/1 MISSING_FIELD {} NEW",
            ])
    }

    @Test func gapsInTheLogAreOnTheAuditRecord() throws {
        var history = History()
        history.message("heartbeat", "{}")
        try history.system(
            .lossAccepted,
            LossAccepted(
                from: 7, to: 9, segment: "x.seg", firstByte: 4096, lastByte: 8191, damage: "the checksum is wrong",
                reason: "no backup", operatorName: "kim"))
        try history.system(
            .segmentsRemoved,
            SegmentsRemoved(
                from: 0, to: 6, segments: ["w.seg"], archived: true, reason: "age"))
        history.add("log.clock_stepped/1", "{}", "", .system)
        let columns = ["position", "tenant_id", "actor", "action", "subject"]
        #expect(
            history.rows("audit_logs", "audit_logs", columns) == [
                "1 * kim log.loss_accepted log:7-9", "2 * retention log.segments_removed log:0-6",
            ])
    }

    @Test func brokerConnections() throws {
        var history = History()
        var event = BrokerEvent(clientID: "refold-n1")
        event.address = "host\"x:1883"
        event.protocolVersion = "5.0"
        event.sessionPresent = true
        event.filters = ["a", "b"]
        event.granted = [1, 135]
        event.reason = "held"
        try history.broker(.connected, event)
        try history.broker(.subscribed, event)
        history.message("heartbeat", "broken")
        history.message("heartbeat", "{}", flags: .retained)
        history.message("x", "{}", verdict: .foreignCommand)
        history.message("rejected", #"{"count":10}"#, kind: .rejection, verdict: .rateLimited)
        history.message("heartbeat", "{}", broker: "second")
        try history.broker(.sessionLost, event)
        try history.broker(.subscriptionRefused, event)
        try history.broker(.disconnected, event)
        let columns = [
            "broker_name", "connected", "last_connected_at", "last_disconnected_at", "connection_error",
            "messages_received", "last_message_at", "subscribed_topics_count", "sessions_lost", "client_id",
            "broker_info", "updated_at",
        ]
        #expect(
            history.rows("mqtt_connection_status", "mqtt_connection_status", columns) == [
                #"main false @0 @9 held 13 @5 1 1 refold-n1 "#
                    + #"{"address":"host\"x:1883","protocol_version":"5.0","session_present":true} @9"#,
                "second false null null null 1 @6 0 0 null null @6",
            ])
    }

    @Test func theCatalogIsConsistent() {
        #expect(Set(Catalog.entries.map(\.name)).count == Catalog.entries.count)
        for entry in Catalog.entries {
            for table in entry.descriptor.tables {
                #expect(table.columns.contains { $0.role == .key }, "\(table.name) has no key")
                #expect(Set(table.columns.map(\.name)).count == table.columns.count)
            }
            #expect(entry.makeFold(.all).descriptor.name == entry.name)
        }
    }
}

@Suite struct JSONMemberTests {
    @Test(
        arguments: [
            (#"{"a":1,"plan":{"x":[1,"}"],"plan":2},"b":{}}"#, #"{"x":[1,"}"],"plan":2}"#),
            (#"{ "plan" : "a\"}," , "b":1}"#, #""a\"},""#), (#"{"plan":1,"plan":[ 2 ]}"#, "[ 2 ]"),
            (#"{"b":{"plan":1},"c":["plan",{"plan":2}]}"#, nil), (#"{"plan":null}"#, nil), ("{}", nil),
            (#"["plan"]"#, nil),
            (#"{"b":"plan","c":3}"#, nil), (#"{"plan":-1.5e3}"#, "-1.5e3"),
        ] as [(String, String?)])
    func found(json: String, member: String?) {
        let found = Array(json.utf8).withUnsafeBytes { bytes in
            jsonMember("plan", of: bytes).map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(found == member)
    }
}
