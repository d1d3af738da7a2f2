import EventModel

// Events of certificate revocation lists. A list's entries follow from the certificate events before it. With the
// fields and the signature in the event, every published list can be rebuilt bit for bit.

/// An authority signed a full CRL. It is published once this is durable.
public struct CRLIssued: Codable, Sendable, Equatable {
    /// A certificate that the list revokes, made for it: a broker that refuses it has this list in force. Its entry
    /// stays until it has expired.
    public struct Canary: Codable, Sendable, Equatable {
        public var serial: String
        public var notAfter: Timestamp

        public init(serial: String, notAfter: Timestamp) { (self.serial, self.notAfter) = (serial, notAfter) }

        enum CodingKeys: String, CodingKey {
            case serial, notAfter = "not_after"
        }
    }

    public var authority: String
    public var tenantID: String
    /// CRL number (RFC 5280, section 5.2.3): strictly rising for each authority.
    public var number: UInt64
    /// Whole seconds; strictly rising for each authority.
    public var thisUpdate: Timestamp
    /// Whole seconds. Brokers refuse every client after it.
    public var nextUpdate: Timestamp
    /// Revoked certificates that it lists, canaries included.
    public var entries: Int64
    public var canary: Canary?
    /// SHA-256 of the part that is signed (`tbsCertList`), in hex.
    public var tbsSHA256: String
    /// The signature's bytes in base64.
    public var signature: String
    /// SHA-256 of the whole list in DER, in hex.
    public var sha256: String
    /// Number of the log's events that its entries follow from.
    public var end: UInt64
    public var actor: String

    public init(
        authority: String, tenantID: String, number: UInt64, thisUpdate: Timestamp, nextUpdate: Timestamp,
        entries: Int64, canary: Canary?, tbsSHA256: String, signature: String, sha256: String, end: UInt64,
        actor: String
    ) {
        (self.authority, self.tenantID, self.number) = (authority, tenantID, number)
        (self.thisUpdate, self.nextUpdate, self.entries) = (thisUpdate, nextUpdate, entries)
        (self.canary, self.tbsSHA256, self.signature) = (canary, tbsSHA256, signature)
        (self.sha256, self.end, self.actor) = (sha256, end, actor)
    }

    enum CodingKeys: String, CodingKey {
        case authority, tenantID = "tenant_id", number, thisUpdate = "this_update", nextUpdate = "next_update", entries
        case canary, tbsSHA256 = "tbs_sha256", signature, sha256, end, actor
    }
}

/// A CRL was not published, because it is not what the events before it make. The brokers keep the one before.
public struct CRLRefused: Codable, Sendable, Equatable {
    public var authority: String
    public var tenantID: String
    public var number: UInt64
    /// A sentence for people.
    public var reason: String
    public var actor: String

    public init(authority: String, tenantID: String, number: UInt64, reason: String, actor: String) {
        (self.authority, self.tenantID, self.number) = (authority, tenantID, number)
        (self.reason, self.actor) = (reason, actor)
    }

    enum CodingKeys: String, CodingKey {
        case authority, tenantID = "tenant_id", number, reason, actor
    }
}

/// How far a CRL has come at a broker.
public struct CRLEnforced: Codable, Sendable, Equatable {
    public enum Step: String, Codable, Sendable, CaseIterable {
        /// It is in the broker's CRL file, durably.
        case written
        /// The reload command has succeeded.
        case reloaded
        /// The broker refused the canary of this CRL and accepted a live one.
        case proved
        /// Writing, reloading or proving failed, or a later proof did: `error` is the reason.
        case unproved
        /// Clients of certificates that it revokes could not be disconnected, or bans could not be lifted: `error` is
        /// the reason.
        case uncut
    }

    public var step: Step
    public var broker: String
    public var authority: String
    public var tenantID: String
    public var number: UInt64
    /// Of a proof: since the CRL was issued.
    public var milliseconds: Int64?
    /// Of a proof: revoked certificates of the authority whose clients may be connected at the broker.
    public var remaining: Int64?
    /// Of a written one: the broker bans clients by their names until the CRL is proved.
    public var bans: Bool?
    /// A sentence for people.
    public var error: String?
    public var actor: String

    public init(
        _ step: Step, broker: String, authority: String, tenantID: String, number: UInt64, actor: String
    ) {
        (self.step, self.broker, self.authority) = (step, broker, authority)
        (self.tenantID, self.number, self.actor) = (tenantID, number, actor)
    }

    enum CodingKeys: String, CodingKey {
        case step, broker, authority, tenantID = "tenant_id", number, milliseconds, remaining, bans, error, actor
    }
}

extension CRLEnforced: Decision {
    public static var schemas: [String] {
        [CertificateSchema.crlWritten, .crlReloaded, .crlProved, .crlUnproved, .crlUncut].map(\.rawValue)
    }
    public var schema: CertificateSchema {
        switch step {
        case .written: .crlWritten
        case .reloaded: .crlReloaded
        case .proved: .crlProved
        case .unproved: .crlUnproved
        case .uncut: .crlUncut
        }
    }
    public var envelope: Envelope {
        Envelope(tenantID: tenantID, actor: actor, subject: "enforcement:\(broker)/\(authority)")
    }
    public var summary: String {
        let list = "the CRL \(number) of \(authority)"
        return switch step {
        case .written: "wrote \(list) for the broker \(broker)"
        case .reloaded: "made the broker \(broker) read \(list)"
        case .proved: "proved that \(list) is in force at the broker \(broker)"
        case .unproved: "could not prove \(list) at the broker \(broker): \(error ?? "unknown")"
        case .uncut: "could not disconnect clients that \(list) revokes at the broker \(broker): \(error ?? "unknown")"
        }
    }
}

extension CRLIssued: Decision {
    public static var schemas: [String] { [CertificateSchema.crlIssued.rawValue] }
    public var envelope: Envelope { Envelope(tenantID: tenantID, actor: actor, subject: "crl:\(authority)") }
    public var summary: String {
        "issued the CRL \(number) of \(authority) with \(counted(Int(clamping: entries), "entry", "entries")), "
            + "valid until \(nextUpdate)"
    }
}

extension CRLRefused: Decision {
    public static var schemas: [String] { [CertificateSchema.crlRefused.rawValue] }
    public var envelope: Envelope { Envelope(tenantID: tenantID, actor: actor, subject: "crl:\(authority)") }
    public var summary: String { "refused to publish the CRL \(number) of \(authority): \(reason)" }
}
