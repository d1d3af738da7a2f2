import CMosquitto
import MQTT
import Threading

/// Connects once with a client certificate and reports whether the broker accepts it: TLS handshake, CONNECT, CONNACK,
/// DISCONNECT. A revoked canary that is refused with `certificateRevoked` and a live one that is accepted prove that
/// a CRL is in force.
public struct CanaryProbe: Sendable {
    public enum Refusal: Sendable, Equatable, CustomStringConvertible {
        /// TLS alert 44.
        case certificateRevoked
        /// Any other fatal TLS alert, e.g. 45 when the CRL expired, 48 when the issuer is not trusted or has no CRL.
        case tlsAlert(code: UInt8, name: String)
        /// Return code (3.1.1) or reason code (5.0).
        case connack(code: UInt8)

        static let unknownAuthority = Refusal.tlsAlert(code: 48, name: TLSAlert.name(48))

        public var description: String {
            switch self {
            case .certificateRevoked: "certificate revoked (TLS alert 44)"
            case .tlsAlert(let code, let name): "\(name) (TLS alert \(code))"
            case .connack(let code):
                "CONNACK \(code): "
                    + String(
                        cString: code < 0x80
                            ? mosquitto_connack_string(Int32(code)) : mosquitto_reason_string(Int32(code)))
            }
        }
    }

    public enum Outcome: Sendable, Equatable {
        case accepted
        case refused(Refusal)
        /// No verdict on the certificate: no connection, a connection closed without an alert, or no MQTT broker.
        case unreachable(String)
        /// The broker's own certificate was not accepted. Nothing is proved.
        case brokerUntrusted(String)
        case timedOut
    }

    public let broker: BrokerSettings
    /// For the whole exchange, name resolution included.
    public let timeout: Duration

    /// - Parameter broker: where devices connect. Without `tls` the system's CAs verify the broker. The client
    ///   certificate of `tls` is not used; a username and password are sent.
    public init(_ broker: BrokerSettings, timeout: Duration = .seconds(5)) {
        self.broker = broker
        self.timeout = timeout
    }

    /// Blocks the calling thread until the outcome is known, for as long as `timeout`.
    /// - Parameter clientID: nobody else's. The session is clean and ends with the connection.
    public func perform(_ identity: ClientIdentity, clientID: String) -> Outcome {
        var settings = broker
        settings.tls = settings.tls ?? BrokerSettings.TLS()
        do throws(ExchangeError) {
            let exchange = try MQTTExchange(settings, identity: identity, deadline: Deadline(in: timeout))
            let code = try exchange.connect(
                clientID: clientID, username: settings.username, password: settings.password)
            guard code == 0 else { return .refused(.connack(code: code)) }
            exchange.disconnect()
            return .accepted
        } catch {
            return switch error {
            case .unreachable(let reason): .unreachable(reason)
            case .untrusted(let reason): .brokerUntrusted(reason)
            case .alert(TLSAlert.certificateRevoked): .refused(.certificateRevoked)
            case .alert(let code): .refused(.tlsAlert(code: code, name: TLSAlert.name(code)))
            case .timedOut: .timedOut
            }
        }
    }

    /// The same on a thread of its own.
    public func run(_ identity: ClientIdentity, clientID: String) async -> Outcome {
        do {
            return try await onOwnThread("canary") { perform(identity, clientID: clientID) }
        } catch {
            return .unreachable("\(error)")
        }
    }
}
