import EventModel

// The life of a device certificate, on the record. A certificate is identified by its authority and its serial number,
// which is unique for each issuer (RFC 5280, section 4.1.2.2).

/// A certificate that an authority of ours has signed, or one that was issued elsewhere by a known authority. It is
/// handed out once this is durable.
public struct CertificateAdded: Codable, Sendable, Equatable {
    public enum Origin: String, Codable, Sendable {
        case issued, imported
    }

    /// The renewal over MQTT that the certificate answers.
    public struct Renewal: Codable, Sendable, Equatable {
        /// Position of the renewal's first request.
        public var id: UInt64
        /// Position of the device's certificate request.
        public var request: UInt64
        /// The authorities above the certificate, its issuer first, in base64 of their DER: the device gets them too.
        public var chain: [String]

        public init(id: UInt64, request: UInt64, chain: [String]) {
            (self.id, self.request, self.chain) = (id, request, chain)
        }
    }

    public var origin: Origin
    /// The authority's id.
    public var authority: String
    /// In lower-case hex, without leading zeros.
    public var serial: String
    public var tenantID: String
    public var deviceID: String
    public var commonName: String
    /// X.509 DER in base64.
    public var certificate: String
    /// SHA-256 of the DER, in hex.
    public var sha256: String
    /// SHA-256 of its SubjectPublicKeyInfo, in hex.
    public var spkiSHA256: String
    /// `P-256`, `RSA-2048`, …
    public var keyAlgorithm: String
    public var notBefore: Timestamp
    public var notAfter: Timestamp
    /// The certificate of the same device that it is to replace: `authority/serial`.
    public var renews: String?
    public var renewal: Renewal?
    public var actor: String
    public var idempotencyKey: String?
    /// SHA-256 of the command, in hex: the same key with another command is refused.
    public var requestDigest: String?

    public init(
        _ origin: Origin, authority: String, serial: String, tenantID: String, deviceID: String, commonName: String,
        certificate: String, sha256: String, spkiSHA256: String, keyAlgorithm: String, notBefore: Timestamp,
        notAfter: Timestamp, actor: String
    ) {
        (self.origin, self.authority, self.serial) = (origin, authority, serial)
        (self.tenantID, self.deviceID, self.commonName) = (tenantID, deviceID, commonName)
        (self.certificate, self.sha256, self.spkiSHA256) = (certificate, sha256, spkiSHA256)
        (self.keyAlgorithm, self.notBefore, self.notAfter) = (keyAlgorithm, notBefore, notAfter)
        self.actor = actor
    }

    enum CodingKeys: String, CodingKey {
        case origin, authority, serial, tenantID = "tenant_id", deviceID = "device_id", commonName = "common_name"
        case certificate, sha256, spkiSHA256 = "spki_sha256", keyAlgorithm = "key_algorithm", notBefore = "not_before"
        case notAfter = "not_after", renews, renewal, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

/// A change in the life of a certificate.
public struct CertificateChanged: Codable, Sendable, Equatable {
    public enum Change: String, Codable, Sendable, CaseIterable {
        /// Its device uses a newer one. Brokers accept it until it expires or is revoked.
        case superseded
        /// Final. Every later CRL of the authority has an entry for it until it has expired.
        case revoked
        /// As revoked, until it is released (`certificateHold`).
        case held
        /// Live again: the next CRL has no entry for it.
        case released
    }

    public var change: Change
    public var authority: String
    public var serial: String
    public var tenantID: String
    public var deviceID: String
    /// Of a revocation: `keyCompromise`, … (RFC 5280, section 5.3.1).
    public var reason: String?
    /// Of a superseded one: the newer certificate, `authority/serial`.
    public var replacedBy: String?
    /// For people.
    public var note: String?
    public var actor: String
    public var idempotencyKey: String?
    public var requestDigest: String?

    public init(
        _ change: Change, authority: String, serial: String, tenantID: String, deviceID: String, actor: String
    ) {
        (self.change, self.authority, self.serial) = (change, authority, serial)
        (self.tenantID, self.deviceID, self.actor) = (tenantID, deviceID, actor)
    }

    enum CodingKeys: String, CodingKey {
        case change, authority, serial, tenantID = "tenant_id", deviceID = "device_id", reason
        case replacedBy = "replaced_by", note, actor, idempotencyKey = "idempotency_key"
        case requestDigest = "request_sha256"
    }
}

extension Envelope {
    /// Of a decision about one certificate of a device.
    init(
        tenantID: String, actor: String, certificate authority: String, _ serial: String, deviceID: String,
        idempotencyKey: String? = nil, requestDigest: String? = nil
    ) {
        self.init(
            tenantID: tenantID, actor: actor, subject: "certificate:\(authority)/\(serial)",
            idempotencyKey: idempotencyKey, requestDigest: requestDigest)
        devices = [deviceID]
    }
}

extension CertificateAdded: Decision {
    public static var schemas: [String] {
        [CertificateSchema.certificateIssued.rawValue, CertificateSchema.certificateImported.rawValue]
    }
    public var schema: CertificateSchema { origin == .issued ? .certificateIssued : .certificateImported }
    public var envelope: Envelope {
        Envelope(
            tenantID: tenantID, actor: actor, certificate: authority, serial, deviceID: deviceID,
            idempotencyKey: idempotencyKey, requestDigest: requestDigest)
    }
    public var summary: String {
        let renewal = renews.map { ", which renews \($0)" } ?? ""
        return "\(origin) the certificate \(serial) of \(authority) for \(deviceID)\(renewal), valid until \(notAfter)"
    }
}

extension CertificateChanged: Decision {
    public static var schemas: [String] {
        [
            CertificateSchema.certificateSuperseded, .certificateRevoked, .certificateHeld, .certificateReleased,
        ].map(\.rawValue)
    }
    public var schema: CertificateSchema {
        switch change {
        case .superseded: .certificateSuperseded
        case .revoked: .certificateRevoked
        case .held: .certificateHeld
        case .released: .certificateReleased
        }
    }
    public var envelope: Envelope {
        Envelope(
            tenantID: tenantID, actor: actor, certificate: authority, serial, deviceID: deviceID,
            idempotencyKey: idempotencyKey, requestDigest: requestDigest)
    }
    public var summary: String {
        let certificate = "the certificate \(serial) of \(authority) for \(deviceID)"
        return switch change {
        case .superseded: "marked \(certificate) as replaced by \(replacedBy ?? "a newer one")"
        case .revoked: "revoked \(certificate) (\(reason ?? "unspecified"))"
        case .held: "put \(certificate) on hold"
        case .released: "released \(certificate) from hold"
        }
    }
}
