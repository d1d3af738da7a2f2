import EventModel
import Primitives

/// What a device gets on `tenant/{t}/device/{d}/certificate`. One command has one spelling: what the broker brings back
/// to us is recognised by its bytes.
public struct RenewalCommand: Sendable, Equatable {
    public enum Action: Sendable, Equatable {
        /// Make a new key and send a certificate request.
        case renew(expires: Timestamp)
        /// Use this certificate from now on. `pem` is its own, `chain` that of the authorities above it.
        case install(pem: String, chain: String)
    }

    public var action: Action
    /// Position of the renewal's first request. The device's answers name it.
    public var renewal: Position
    public var authority: String
    /// Of the certificate to renew, or to install.
    public var serial: String
    /// Position of the decision: the `command_id`.
    public var command: Position

    public init(_ action: Action, renewal: Position, authority: String, serial: String, command: Position) {
        (self.action, self.renewal, self.authority) = (action, renewal, authority)
        (self.serial, self.command) = (serial, command)
    }

    /// The last level of its topic.
    public static let channel = "certificate"

    /// Of its deliveries and of the decisions about the device's renewal.
    public static func subject(_ tenantID: String, _ deviceID: String) -> String { "renewal:\(tenantID)/\(deviceID)" }

    /// The JSON on the wire, in UTF-8.
    public var payload: [UInt8] {
        var bytes = Array("{\"action\":".utf8)
        func field(_ name: String, _ value: String) {
            bytes += ",\"\(name)\":".utf8
            JSONString.append(value, to: &bytes)
        }
        switch action {
        case .renew: bytes += "\"certificate_renew\"".utf8
        case .install: bytes += "\"certificate_install\"".utf8
        }
        bytes += ",\"renewal_id\":\(renewal)".utf8
        field("authority", authority)
        field("serial", serial)
        switch action {
        case .renew(let expires): field("expires", expires.description)
        case .install(let pem, let chain):
            field("certificate", pem)
            field("chain", chain)
        }
        bytes += ",\"command_id\":\(command)}".utf8
        return bytes
    }

    /// The broker keeps it until the renewal ends: a device that connects later, or without a session, finds it.
    func delivery(tenantID: String, deviceID: String) -> Delivery {
        Delivery(
            id: command, subject: Self.subject(tenantID, deviceID), tenantID: tenantID, deviceID: deviceID,
            channel: Self.channel, payload: payload, isRetained: true)
    }
}

/// A device's certificate request, on `…/certificate/request`.
public struct RenewalRequest: Decodable, Sendable {
    public let renewal: UInt64
    /// PEM.
    public let csr: String

    enum CodingKeys: String, CodingKey { case renewal = "renewal_id", csr }
}

/// A device's report that it uses the new certificate, on `…/certificate/installed`.
public struct InstallReport: Decodable, Sendable {
    public let renewal: UInt64
    /// Of the new certificate, in hex.
    public let serial: String

    enum CodingKeys: String, CodingKey { case renewal = "renewal_id", serial }
}
