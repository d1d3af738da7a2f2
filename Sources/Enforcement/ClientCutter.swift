import MQTT

/// A client whose certificate is revoked. MQTT carries no certificate, so that it is known by what it connects with.
public struct ClientTarget: Hashable, Sendable {
    public var clientID: String?
    /// The certificate's common name where the broker takes that for the username (Mosquitto
    /// `use_identity_as_username`, EMQX `peer_cert_as_username = cn`).
    public var username: String?

    public init(clientID: String? = nil, username: String? = nil) {
        self.clientID = clientID
        self.username = username
    }
}

public enum CutOutcome: Sendable, Equatable {
    /// - Parameter evidence: what the broker reported, and what it does not report.
    case cut(evidence: String)
    /// The broker reported that there was no connection.
    case wasNotConnected
    case stillConnected(reason: String)
    /// Not attempted to the end: the client may be connected. Try again.
    case failed(error: String)
}

/// Disconnects clients that are connected. Brokers verify a certificate at the handshake only, so that a client whose
/// certificate is revoked stays connected. Call it after the CRL is proved: until then the client connects again.
public protocol ClientCutter: Sendable {
    /// Blocks.
    /// - Returns: an outcome for each client, in their order.
    func cut(_ clients: [ClientTarget]) -> [CutOutcome]
}

extension ClientCutter {
    public func cut(_ client: ClientTarget) -> CutOutcome { cut([client])[0] }
}

/// Circuit breaker: after three failures in a row, later attempts of the batch fail without a new timeout.
struct ConsecutiveFailures {
    private var count = 0
    private var last: String?
    private static let countMax = 3

    /// The outcome of `body`; without calling it, the last failure after three in a row.
    mutating func attempt(_ body: () -> CutOutcome) -> CutOutcome {
        if count >= Self.countMax, let last { return .failed(error: last) }
        let outcome = body()
        if case .failed(let error) = outcome {
            (count, last) = (count + 1, error)
        } else {
            count = 0
        }
        return outcome
    }
}

/// Connects with the client's id to a listener that does not ask for its certificate, and disconnects in order. The
/// broker must close the connection that it has under this id (MQTT 3.1.1, 3.1.4-2; 5.0, 3.1.4-3).
///
/// Side effects: the client's session with its subscriptions and queued messages is discarded (clean session), and its
/// will is published. The broker does not report whether there was a connection. Credentials of the settings are used;
/// their client id is not.
public struct TakeoverCutter: ClientCutter {
    public let broker: BrokerSettings
    /// For each client.
    public let timeout: Duration

    public init(_ broker: BrokerSettings, timeout: Duration = .seconds(5)) {
        self.broker = broker
        self.timeout = timeout
    }

    public func cut(_ clients: [ClientTarget]) -> [CutOutcome] {
        var failures = ConsecutiveFailures()
        return clients.map { client in
            guard let clientID = client.clientID, !clientID.isEmpty else {
                return .failed(error: "no client id is known: only a client id can be taken over")
            }
            return failures.attempt { takeOver(clientID) }
        }
    }

    private func takeOver(_ clientID: String) -> CutOutcome {
        do throws(ExchangeError) {
            let exchange = try MQTTExchange(broker, deadline: Deadline(in: timeout))
            let code = try exchange.connect(
                clientID: clientID, username: broker.username, password: broker.password)
            guard code == 0 else {
                let refusal = CanaryProbe.Refusal.connack(code: code)
                return .failed(
                    error: "\(broker.address) refused the takeover of \(clientID.debugDescription): \(refusal)")
            }
            exchange.disconnect()
            return .cut(
                evidence: "the broker accepted a takeover of the client id, which closes any earlier connection")
        } catch {
            return .failed(error: "cannot take over \(clientID.debugDescription) at \(broker.address): \(error.text)")
        }
    }
}
