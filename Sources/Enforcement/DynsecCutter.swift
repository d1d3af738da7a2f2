import Foundation
import MQTT

/// Disconnects by Mosquitto's dynamic security plugin, which kicks all connections of a username that it disables.
///
/// Afterwards the plugin's configuration is as before: a disabled user is enabled again, one that was unknown is
/// deleted. To leave it disabled would keep nobody out: the plugin does not check clients that certificates identify
/// (measured at 2.0.11). Mosquitto 2.1 reports a user's connections, 2.0 does not.
///
/// The settings are for a listener where their user has the plugin's role `admin`.
public struct DynsecCutter: ClientCutter {
    public let broker: BrokerSettings
    /// For connecting, and then for each client.
    public let timeout: Duration
    /// Marks users that this created, so that one that a failure left behind is deleted by the next attempt.
    private static let mark = "refold-cut"
    private static let topic = "$CONTROL/dynamic-security/v1"

    public init(_ broker: BrokerSettings, timeout: Duration = .seconds(5)) {
        self.broker = broker
        self.timeout = timeout
    }

    public func cut(_ clients: [ClientTarget]) -> [CutOutcome] {
        var outcomes: [CutOutcome] = []
        do throws(ExchangeError) {
            let exchange = try MQTTExchange(broker, deadline: Deadline(in: timeout))
            let code = try exchange.connect(
                clientID: broker.clientID, username: broker.username, password: broker.password)
            guard code == 0 else { throw .unreachable("\(CanaryProbe.Refusal.connack(code: code))") }
            try exchange.subscribe(Self.topic + "/response")
            for client in clients {
                exchange.deadline = Deadline(in: timeout)
                outcomes.append(try cut(client, exchange))
            }
            exchange.disconnect()
        } catch {
            var text = "dynamic security at \(broker.address): \(error.text)"
            if error == .timedOut { text += "; does its user have the role admin, and is the plugin loaded?" }
            let failure = CutOutcome.failed(error: text)
            outcomes += Array(repeating: failure, count: clients.count - outcomes.count)
        }
        return outcomes
    }

    private func cut(_ client: ClientTarget, _ exchange: MQTTExchange) throws(ExchangeError) -> CutOutcome {
        guard let username = client.username, !username.isEmpty else {
            return .failed(error: "no username is known: dynamic security disconnects by username only")
        }
        var before = try send("getClient", username, exchange).data?.client
        let isCreated = before == nil || before?.textname == Self.mark
        if before == nil {
            if let error = try send("createClient", username, exchange).error { return refused("createClient", error) }
            before = try send("getClient", username, exchange).data?.client
        }
        if let error = try send("disableClient", username, exchange).error { return refused("disableClient", error) }
        var rest = before?.connections?.count
        let kicked = Deadline(in: timeout / 2)
        // The plugin kicks after it has answered.
        while let count = rest, count > 0, kicked.milliseconds > 0 {
            usleep(5000)
            rest = try send("getClient", username, exchange).data?.client?.connections?.count
        }
        exchange.deadline = Deadline(in: timeout)
        let restore = isCreated ? "deleteClient" : before?.disabled == true ? nil : "enableClient"
        if let restore, let error = try send(restore, username, exchange).error { return refused(restore, error) }
        switch (before?.connections?.count, rest) {
        case (0, _): return .wasNotConnected
        case (_, let rest?) where rest > 0: return .stillConnected(reason: "the broker reports \(rest) connections")
        case (let count?, _): return .cut(evidence: "disableClient closed \(count) connections, getClient reports none")
        case (nil, _):
            return .cut(evidence: "the broker confirmed disableClient; this version does not report connections")
        }
    }

    private func refused(_ command: String, _ error: String) -> CutOutcome {
        .failed(error: "dynamic security at \(broker.address) refused \(command): \(error)")
    }

    // MARK: Commands

    private struct Request: Encodable {
        struct Command: Encodable {
            let command: String
            let username: String
            let correlationData: String
            let textname: String?
        }
        let commands: [Command]
    }

    private struct Answer: Decodable {
        struct Response: Decodable {
            struct Client: Decodable {
                struct Connection: Decodable {}
                let disabled: Bool?
                let textname: String?
                let connections: [Connection]?
            }
            struct Contents: Decodable { let client: Client? }
            let error: String?
            let correlationData: String?
            let data: Contents?
        }
        let responses: [Response]
    }

    private func send(
        _ command: String, _ username: String, _ exchange: MQTTExchange
    ) throws(ExchangeError) -> Answer.Response {
        // Answers to other administrators arrive on the same topic.
        let id = String(UInt64.random(in: .min ... .max), radix: 16)
        let request = Request(commands: [
            .init(
                command: command, username: username, correlationData: id,
                textname: command == "createClient" ? Self.mark : nil)
        ])
        guard let json = try? JSONEncoder().encode(request) else { throw .unreachable("cannot encode \(command)") }
        try exchange.publish(Self.topic, Array(json))
        while true {
            let payload = try exchange.receiveMessage()
            let answer = try? JSONDecoder().decode(Answer.self, from: Data(payload))
            if let response = answer?.responses.first(where: { $0.correlationData == id }) { return response }
        }
    }
}
