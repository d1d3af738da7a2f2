import EventModel

// Connected clients of certificates that were revoked or put on hold, on the record. Brokers verify a certificate when
// a client connects, and not again.

/// The client of a revoked certificate was disconnected at a broker, or was not.
public struct ClientCut: Codable, Sendable, Equatable {
    public enum Outcome: String, Codable, Sendable, CaseIterable {
        case cut
        case wasNotConnected = "was_not_connected"
        /// The broker still lists it: the cut is repeated.
        case stillConnected = "still_connected"

        /// In sentences.
        var text: String {
            switch self {
            case .cut: "disconnected"
            case .wasNotConnected: "was not connected"
            case .stillConnected: "is still connected"
            }
        }
    }

    public var broker: String
    public var authority: String
    public var serial: String
    public var tenantID: String
    public var deviceID: String
    /// The CRL that keeps it out: proved to be in force, or, where `isBanned`, not yet.
    public var number: UInt64
    public var outcome: Outcome
    /// What the broker reported, and what it does not report.
    public var evidence: String?
    /// Since the revocation.
    public var milliseconds: Int64?
    /// The broker refuses it by its name until the CRL is proved to be in force.
    public var isBanned: Bool?
    /// Revoked certificates of the authority whose clients may be connected at the broker after this.
    public var remaining: Int64?
    public var actor: String

    public init(
        broker: String, authority: String, serial: String, tenantID: String, deviceID: String, number: UInt64,
        outcome: Outcome, evidence: String?, isBanned: Bool?, actor: String
    ) {
        (self.broker, self.authority, self.serial) = (broker, authority, serial)
        (self.tenantID, self.deviceID, self.number) = (tenantID, deviceID, number)
        (self.outcome, self.evidence, self.isBanned, self.actor) = (outcome, evidence, isBanned, actor)
    }

    enum CodingKeys: String, CodingKey {
        case broker, authority, serial, tenantID = "tenant_id", deviceID = "device_id", number, outcome, evidence
        case milliseconds, isBanned = "banned", remaining, actor
    }
}

/// A ban of `ClientCut` was lifted: the CRL is in force, or the certificate was released from hold.
public struct ClientBanLifted: Codable, Sendable, Equatable {
    public var broker: String
    public var authority: String
    public var serial: String
    public var tenantID: String
    public var deviceID: String
    /// Of the CRL at the broker; nil in older logs.
    public var number: UInt64?
    /// Revoked certificates of the authority whose clients may be connected at the broker.
    public var remaining: Int64?
    public var actor: String

    public init(
        broker: String, authority: String, serial: String, tenantID: String, deviceID: String, number: UInt64,
        actor: String
    ) {
        (self.broker, self.authority, self.serial) = (broker, authority, serial)
        (self.tenantID, self.deviceID, self.number, self.actor) = (tenantID, deviceID, number, actor)
    }

    enum CodingKeys: String, CodingKey {
        case broker, authority, serial, tenantID = "tenant_id", deviceID = "device_id", number, remaining, actor
    }
}

extension ClientCut: Decision {
    public static var schemas: [String] { [CertificateSchema.clientCut.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, certificate: authority, serial, deviceID: deviceID)
    }
    public var summary: String {
        "the client of the revoked certificate \(serial) of \(authority) for \(deviceID) \(outcome.text) at the broker "
            + "\(broker)"
    }
}

extension ClientBanLifted: Decision {
    public static var schemas: [String] { [CertificateSchema.clientBanLifted.rawValue] }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, certificate: authority, serial, deviceID: deviceID)
    }
    public var summary: String {
        "lifted the ban of \(deviceID) at the broker \(broker): the certificate \(serial) of \(authority) is refused "
            + "by the CRL, or was released"
    }
}
