import Foundation
import Logging
import MQTT
import PrivateServices
import Settings
import Threading

/// The broker and the database of this run: those that the settings name, or private ones inside the data folder.
struct PrivateServerSet: Sendable {
    let brokers: [BrokerSettings]
    let databaseURL: String
    let postgres: PrivatePostgres?
    let mosquitto: PrivateMosquitto?

    static func start(
        for settings: Settings, logID: String, adoptsSession: Bool, logger: Logger
    ) async throws -> PrivateServerSet {
        // Starting servers blocks; a thread of its own may.
        try await onOwnThread("services") {
            var postgres: PrivatePostgres?
            if settings.databaseURL == nil {
                postgres = try PrivatePostgres(folder: settings.data + "/postgres") {
                    logger.error("the private PostgreSQL ended by itself (\($0)); starting it again")
                }
            }
            var mosquitto: PrivateMosquitto?
            if settings.brokers.isEmpty {
                do {
                    mosquitto = try PrivateMosquitto(folder: settings.data + "/mosquitto") {
                        logger.error("the private Mosquitto ended by itself (\($0)); starting it again")
                    }
                } catch {
                    postgres?.stop()
                    throw error
                }
            }
            var brokers =
                mosquitto.map { server in
                    var broker = BrokerSettings(
                        name: "main", host: "127.0.0.1", port: server.port,
                        clientID: settings.clientID(for: nil, logID: logID))
                    (broker.username, broker.password) = (server.username, server.password)
                    return [broker]
                }
                ?? settings.brokers.map { BrokerSettings($0, clientID: settings.clientID(for: $0, logID: logID)) }
            for index in brokers.indices { brokers[index].adoptsSession = adoptsSession }
            return PrivateServerSet(
                brokers: brokers, databaseURL: settings.databaseURL ?? postgres?.url ?? "", postgres: postgres,
                mosquitto: mosquitto)
        }
    }

    func stop() async {
        try? await onOwnThread("services") { [mosquitto, postgres] in
            mosquitto?.stop()
            postgres?.stop()
        }
    }
}

extension Settings {
    /// The broker finds our session by it. With the log's id in it, two logs never share a session, whatever the host's
    /// name. At most 23 bytes without a node's name, which every MQTT 3.1.1 server takes (3.1.3.1).
    func clientID(for broker: Broker?, logID: String) -> String {
        broker?.clientID
            ?? (["refold", node, String(logID.prefix(12))] as [String?]).compactMap(\.self)
            .joined(separator: "-")
    }
}

extension BrokerSettings {
    init(_ broker: Settings.Broker, clientID: String) {
        let tls =
            broker.address.tls
            ? TLS(
                caFile: broker.caFile, certFile: broker.certFile, keyFile: broker.keyFile,
                verify: broker.verify) : nil
        self.init(name: broker.name, host: broker.address.host, port: broker.address.port, clientID: clientID, tls: tls)
        username = broker.username
        password = broker.password
        protocolPreference =
            switch broker.protocolVersion {
            case "5": .v5
            case "3.1.1": .v311
            default: .automatic
            }
        sessionExpirySeconds = broker.sessionExpirySeconds
        receiveMaximum = broker.receiveMaximum
        keepaliveSeconds = broker.keepaliveSeconds
        filters = broker.filters
        sharedGroup = broker.shareGroup
        batchMessagesMax = broker.batchMessagesMax
        lingerMicros = broker.lingerMicros
    }
}
