import EventModel
import Testing

@testable import Projections

/// `device_status`, rule by rule. Event i is received at second i.
@Suite struct DeviceStatusTests {
    private func row(_ columns: String, _ build: (inout History) -> Void) -> String {
        var history = History()
        build(&history)
        return history.rows("device_status", "device_status", columns.split(separator: " ").map(String.init))
            .joined(separator: " | ")
    }

    @Test func everyAcceptedMessageIsActivityAlsoOneThatDoesNotDecode() {
        #expect(
            row(
                "message_count telemetry_count heartbeat_count ack_count first_seen_at last_seen_at last_position"
            ) {
                $0.message("heartbeat", "{}")
                $0.message("telemetry", "not json")
                $0.message("telemetry", #"{"metrics":{"a":1}}"#)
                $0.message("logs/boot", "anything")
                $0.message("commands/ack", #"{"command_id":"c","status":"done"}"#)
                $0.message("heartbeat", #"{"seq":"x"}"#)
            } == "6 1 1 1 @0 @5 5")
    }

    @Test func timesAreReceivedAtAndNeverThePayloads() {
        #expect(
            row("last_telemetry_at last_heartbeat_at last_ack_at") {
                $0.message("telemetry", #"{"ts":"1999-01-01T00:00:00Z","metrics":{}}"#)
                $0.message("heartbeat", #"{"ts":"2999-01-01T00:00:00Z"}"#)
                $0.message("commands/ack", #"{"command_id":"c","status":"done"}"#)
            } == "@0 @1 @2")
    }

    @Test func theGatesVerdictsAreRejectedAndNoActivity() {
        #expect(
            row("message_count rejected_count first_seen_at last_seen_at last_position") {
                $0.message("telemetry", "{", verdict: .payloadTooLarge, flags: .truncated)
                $0.message("ota", "{}", verdict: .foreignCommand)
                $0.message("rejected", #"{"count":40,"rejected":[]}"#, kind: .rejection, verdict: .rateLimited)
                $0.add("nonsense", "{}", "main", .message, .badTopicFormat)
            } == "0 42 null null 2")
    }

    @Test func replayedMessagesFoldIntoTheShadowOnly() {
        #expect(
            row("device_id message_count reported_version rejected_count last_seen_at") {
                $0.message("telemetry", #"{"metrics":{"a":1}}"#, device: "d2", flags: .retained)
                $0.message("ota", "{}", device: "d3", verdict: .foreignCommand, flags: .retained)
                $0.message("shadow/reported", "broken", device: "d4", flags: .retained)
                $0.message("shadow/reported", #"{"version":1,"reported":{}}"#, flags: .retained)
                $0.message("connection", #"{"status":"CONNECTED"}"#, flags: .retained)
            } == "d1 0 1 0 null")
    }

    @Test func metricsMergeByName() {
        #expect(
            row("last_metrics") {
                $0.message("telemetry", #"{"metrics":{"a":1,"b":"x"}}"#)
                $0.message("telemetry", #"{"metrics":{"b":true}}"#)
                $0.message("telemetry", #"{"metrics":{"b":false}}"#)
                $0.message("telemetry", #"{"metrics":{"c":3,"\u0061":2}}"#)
                $0.message("telemetry", #"{"metrics":{}}"#)
            } == #"{"a":2,"b":false,"c":3}"#)
    }

    @Test func metricsOfOneShapeReplaceOnlyWhatTheyName() {
        #expect(
            row("last_metrics") {
                $0.message("telemetry", #"{"metrics":{"a":1,"b":1}}"#)
                for value in 2...4 { $0.message("telemetry", #"{"metrics":{"b":\#(value)}}"#) }
            } == #"{"a":1,"b":4}"#)
    }

    @Test func siteAndSequenceAreTheLastThatWereGiven() {
        #expect(
            row("site_id last_seq") {
                $0.message("telemetry", #"{"metrics":{},"seq":9,"site_id":"north"}"#)
                $0.message("heartbeat", #"{"seq":4}"#)
                $0.message("heartbeat", #"{"site_id":null}"#)
            } == "north 4")
    }

    @Test func aHigherShadowVersionWinsAndALowerOneIsNoted() {
        #expect(
            row("reported_version reported_state reported_rejected_position last_position") {
                $0.message("shadow/reported", #"{"version":-1,"reported":{"firmware_version":"1.0","x":1}}"#)
                $0.message("shadow/reported", #"{"version":5,"reported":{"firmware_version":"2.0"}}"#)
                $0.message("shadow/reported", #"{"version":5,"reported":{"firmware_version":"2.1"}}"#)
                $0.message("shadow/reported", #"{"version":4,"reported":{}}"#)
                $0.message("shadow/reported", #"{"version":"9","reported":{}}"#)
            } == #"5 {"firmware_version":"2.0"} 3 4"#)
    }

    @Test func theLastAcknowledgementStands() {
        #expect(
            row("last_command_id last_command_status last_ack_at ack_count") {
                $0.message("commands/ack", #"{"command_id":"a longer name than the next","status":"accepted"}"#)
                $0.message("commands/ack", #"{"command_id":"c2","status":"a status of any words"}"#)
            } == "c2 a status of any words @1 2")
    }

    @Test func connectionsAreWhatTheDeviceSays() {
        #expect(
            row("device_id connected last_connected_at last_disconnected_at") {
                $0.message("connection", #"{"status":"CONNECTED"}"#)
                $0.message("connection", #"{"status":"connection_lost"}"#)
                $0.message("connection", #"{"status":"CONNECTED"}"#, device: "d2")
                $0.message("heartbeat", "{}", device: "d3")
            } == "d1 false @0 @1 | d2 true @2 null | d3 null null null")
    }

    @Test func devicesOfOneNameInTwoTenantsAreTwo() {
        #expect(
            row("tenant_id device_id message_count") {
                $0.message("heartbeat", "{}", tenant: "a", device: "x")
                $0.message("heartbeat", "{}", tenant: "b", device: "x")
                $0.message("heartbeat", "{}", tenant: "b", device: "x")
            } == "a x 1 | b x 2")
    }
}
