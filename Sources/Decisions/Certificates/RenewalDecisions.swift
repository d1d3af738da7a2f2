import EventModel
import Primitives

// Renewals of device certificates, on the record. The new certificate itself is `certificate.issued/1`.

/// When certificates are renewed without an operator's command. On the record, because the decisions follow from it.
public struct RenewalPolicy: Codable, Sendable, Equatable {
    /// Certificates that were issued here are renewed as they become due.
    public var isEnabled = false
    /// Share of its life after which a certificate is due, in percent.
    public var afterPercent: Int64 = 67
    /// From the issue of the new certificate until the old one counts as superseded, without a report of the device.
    public var graceSeconds: Int64 = 7 * 86_400

    public init() {}

    enum CodingKeys: String, CodingKey {
        case isEnabled = "enabled", afterPercent = "after_percent", graceSeconds = "grace_seconds"
    }
}

/// The settings of renewals have changed.
public struct RenewalPolicySet: Codable, Sendable, Equatable {
    public var policy: RenewalPolicy
    public var actor: String

    public init(_ policy: RenewalPolicy, actor: String) { (self.policy, self.actor) = (policy, actor) }
}

/// An operator has all certificates of an authority renewed now: those of one tenant, or of all of them.
public struct AuthorityRenewal: Codable, Sendable, Equatable {
    public var authority: String
    public var tenantID: String
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(authority: String, tenantID: String, actor: String) {
        (self.authority, self.tenantID, self.actor) = (authority, tenantID, actor)
    }

    enum CodingKeys: String, CodingKey {
        case authority = "id", tenantID = "tenant_id", actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// A step of the renewal of a device's certificate over MQTT.
public struct CertificateRenewal: Codable, Sendable, Equatable {
    public enum Step: String, Codable, Sendable, CaseIterable {
        /// The device is asked for a certificate request. The first one opens the renewal.
        case requested
        /// All brokers have acknowledged the last command of the renewal.
        case delivered
        /// A message of the device was refused; the renewal stays open.
        case refused
        /// The new certificate is sent again, because the device repeated its request.
        case resent
        /// The device has reported that it uses the new certificate. Ends the renewal.
        case installed
        /// Ends the renewal without a report of the device.
        case failed
    }

    public var step: Step
    /// Of the certificate that is renewed.
    public var authority: String
    public var serial: String
    public var tenantID: String
    public var deviceID: String
    /// Position of the first request; nil in that one.
    public var renewal: UInt64?
    /// Of a request: 1 is the first one.
    public var attempt: Int64?
    /// Of a request: expiry of the certificate.
    public var notAfter: Timestamp?
    /// Position of the device's message that it follows from.
    public var cause: UInt64?
    /// Of what is delivered: its `command_id`.
    public var command: UInt64?
    /// Of `resent` and `installed`: the new certificate, `authority/serial`.
    public var issued: String?
    /// Of `resent`: X.509 DER of the new certificate in base64.
    public var certificate: String?
    /// Of `resent`: the authorities above it, its issuer first, each as `certificate`.
    public var chain: [String]?
    /// Of `refused` and `failed`: a sentence for people.
    public var reason: String?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(
        _ step: Step, authority: String, serial: String, tenantID: String, deviceID: String, renewal: UInt64?,
        actor: String
    ) {
        (self.step, self.authority, self.serial) = (step, authority, serial)
        (self.tenantID, self.deviceID, self.renewal, self.actor) = (tenantID, deviceID, renewal, actor)
    }

    enum CodingKeys: String, CodingKey {
        case step, authority, serial, tenantID = "tenant_id", deviceID = "device_id", renewal, attempt
        case notAfter = "not_after", cause, command, issued, certificate, chain, reason, actor
        case idempotencyKey = "idempotency_key", requestDigest = "request_sha256"
    }
}

extension RenewalPolicySet: Decision {
    public static var schemas: [String] { [CertificateSchema.renewalPolicySet.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: Envelope.everyTenant, actor: actor, subject: "renewal:policy")
    }
    public var summary: String {
        guard policy.isEnabled else { return "switched the renewal of certificates off" }
        return "set the renewal of certificates to \(policy.afterPercent) percent of their life, with "
            + "\(policy.graceSeconds) s for the device's report"
    }
}

extension AuthorityRenewal: Decision {
    public static var schemas: [String] { [CertificateSchema.authorityRenewalOrdered.rawValue] }
    public var envelope: Envelope {
        Envelope(
            tenantID: tenantID, actor: actor, subject: "authority:\(authority)", idempotencyKey: idempotencyKey,
            requestDigest: requestDigest)
    }
    public var summary: String { "ordered the renewal of all certificates of \(authority)" }
}

extension CertificateRenewal: Decision {
    public static var schemas: [String] {
        [
            CertificateSchema.renewalRequested, .renewalDelivered, .renewalRefused, .renewalResent, .renewalInstalled,
            .renewalFailed,
        ].map(\.rawValue)
    }
    public var schema: CertificateSchema {
        switch step {
        case .requested: .renewalRequested
        case .delivered: .renewalDelivered
        case .refused: .renewalRefused
        case .resent: .renewalResent
        case .installed: .renewalInstalled
        case .failed: .renewalFailed
        }
    }
    public var envelope: Envelope {
        var envelope = Envelope(
            tenantID: tenantID, actor: actor, subject: RenewalCommand.subject(tenantID, deviceID),
            idempotencyKey: idempotencyKey, requestDigest: requestDigest)
        envelope.devices = [deviceID]
        envelope.isAudited = actor != EngineActor.name
        return envelope
    }
    public var summary: String {
        let certificate = "the certificate \(serial) of \(authority) for \(deviceID)"
        return switch step {
        case .requested: "requested the renewal of \(certificate) (attempt \(attempt ?? 1))"
        case .delivered: "delivered a command about the renewal of \(certificate) to the brokers"
        case .refused: "refused a message of \(deviceID) about the renewal of \(certificate): \(reason ?? "unknown")"
        case .resent: "sent \(issued ?? "the new certificate") for \(certificate) again"
        case .installed: "ended the renewal of \(certificate): the device uses \(issued ?? "the new one")"
        case .failed: "ended the renewal of \(certificate): \(reason ?? "unknown")"
        }
    }

    public static var causesDeliveries: Bool { true }
    public func deliveries(at position: Position) -> [Delivery] {
        let action: RenewalCommand.Action
        var name = (authority: authority, serial: serial)
        switch step {
        case .requested:
            guard let notAfter else { return [] }
            action = .renew(expires: notAfter)
        case .resent:
            guard let certificate, let issued, let slash = issued.lastIndex(of: "/") else { return [] }
            name = (String(issued[..<slash]), String(issued[issued.index(after: slash)...]))
            action = .install(certificate, chain ?? [])
        case .delivered, .refused, .installed, .failed: return []
        }
        let command = RenewalCommand(
            action, renewal: renewal.map { Position($0) } ?? position, authority: name.authority, serial: name.serial,
            command: position)
        return [command.delivery(tenantID: tenantID, deviceID: deviceID)]
    }
}

extension CertificateAdded {
    public static var causesDeliveries: Bool { true }
    public func deliveries(at position: Position) -> [Delivery] {
        guard let renewal else { return [] }
        let command = RenewalCommand(
            .install(certificate, renewal.chain), renewal: Position(renewal.id), authority: authority, serial: serial,
            command: position)
        return [command.delivery(tenantID: tenantID, deviceID: deviceID)]
    }
}

extension RenewalCommand.Action {
    /// Of DER in base64.
    fileprivate static func install(_ certificate: String, _ chain: [String]) -> Self {
        .install(
            pem: PEMText.certificate(base64: certificate), chain: chain.map(PEMText.certificate).joined())
    }
}
