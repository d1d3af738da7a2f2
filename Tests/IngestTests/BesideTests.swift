import Ingest
import MQTT
import Testing

/// Connections beside ingest's: those of two logs never share a client id.
struct BesideTests {
    @Test func anotherLogsConnectionHasAnotherClientID() {
        let settings = BrokerSettings(name: "b", host: "h", port: 1, clientID: "shared")
        let ids = ["0123456789abcdef", "fedcba9876543210"].map { settings.beside("commands", logID: $0).clientID }
        #expect(ids == ["shared-0123456789ab-commands", "shared-fedcba987654-commands"])
    }

    @Test func theLogsIDIsNotRepeated() {
        let settings = BrokerSettings(name: "b", host: "h", port: 1, clientID: "refold-n1-0123456789ab")
        #expect(
            settings.beside("checkpoint", logID: "0123456789abcdef").clientID == "refold-n1-0123456789ab-checkpoint")
    }
}
