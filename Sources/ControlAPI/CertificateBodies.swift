import Certificates
import EventModel
import Issuing
import PKI

// The JSON of requests and answers about certificates, as schemas/openapi.yaml names it.

struct AuthorityBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let id: String
    let keyAlgorithm: String?
    let commonName: String?
    let organization: String?
    let validDays: Int64?
    let issuedBy: String?
    let replaces: String?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case id, keyAlgorithm = "key_algorithm", commonName = "common_name", organization, validDays = "valid_days"
        case issuedBy = "issued_by", replaces
    }

    func new(_ tenant: String) throws(Problem) -> NewAuthority {
        var new = NewAuthority(id: id, tenantID: tenant)
        if let keyAlgorithm { new.algorithm = try KeyAlgorithm(named: keyAlgorithm) }
        (new.commonName, new.organization) = (commonName, organization)
        if let validDays { new.validitySeconds = try seconds(validDays) }
        (new.issuedBy, new.replaces) = (issuedBy, replaces)
        return new
    }
}

struct ForeignAuthorityBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    let id: String
    let certificates: String
    let key: String?
    let passphrase: String?
    let signCommand: Bool?
    let replaces: String?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case id, certificates, key, passphrase, signCommand = "sign_command", replaces
    }

    func foreign(_ tenant: String) -> ForeignAuthority {
        var foreign = ForeignAuthority(id: id, tenantID: tenant, certificates: Array(certificates.utf8))
        foreign.key = key.map { Array($0.utf8) }
        foreign.passphrase = passphrase.map { Array($0.utf8) }
        foreign.usesSignCommand = signCommand ?? false
        foreign.replaces = replaces
        return foreign
    }
}

/// One certificate, or `items`.
struct CertificatesBody: BodyFields {
    static let fields = Item.fields + ["items"]
    let all: [Item]

    struct Item: BodyFields, Encodable {
        static let fields = CodingKeys.allCases.map(\.rawValue)
        let device: String
        let csr: String?
        let generateKey: String?
        let authority: String?
        let validDays: Int64?
        let dns: [String]?
        let uris: [String]?
        let renews: String?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case device, csr, generateKey = "generate_key", authority, validDays = "valid_days", dns, uris, renews
        }

        func new(_ tenant: String) throws(Problem) -> NewCertificate {
            let key: NewCertificate.Key
            switch (csr, generateKey) {
            case (let csr?, nil): key = .request(Array(csr.utf8))
            case (nil, let algorithm?): key = .generated(try KeyAlgorithm(named: algorithm))
            default:
                throw Problem(
                    .unprocessableContent, "invalid_value",
                    "send csr, a PEM certificate request, or generate_key, the algorithm of a key to make here")
            }
            var new = NewCertificate(tenantID: tenant, deviceID: device, key: key)
            new.authority = authority
            if let validDays { new.validitySeconds = try seconds(validDays) }
            new.alternativeNames = (dns ?? []).map { .dns($0) } + (uris ?? []).map { .uri($0) }
            if let renews {
                guard let reference = CertificateReference(renews) else {
                    throw Problem(.unprocessableContent, "invalid_value", "renews must be AUTHORITY/SERIAL")
                }
                new.renews = reference
            }
            return new
        }
    }

    init(from decoder: any Decoder) throws { all = try Item.oneOrItems(decoder) }

    /// Equal for equal bodies.
    var text: String { String(decoding: eventJSON(all), as: UTF8.self) }
}

struct CertificateImportBody: BodyFields {
    static let fields = Item.fields + ["items"]
    let all: [Item]

    struct Item: BodyFields, Encodable {
        static let fields = ["certificates", "device"]
        let certificates: String
        let device: String?
    }

    init(from decoder: any Decoder) throws { all = try Item.oneOrItems(decoder) }

    var text: String { String(decoding: eventJSON(all), as: UTF8.self) }
}

extension BodyFields {
    /// A body that is one item, or an object with nothing but an array `items` of them.
    static func oneOrItems(_ decoder: any Decoder) throws -> [Self] {
        let items = AnyKey(stringValue: "items"), body = try decoder.container(keyedBy: AnyKey.self)
        guard body.contains(items) else { return [try Self(from: decoder)] }
        if let other = body.allKeys.map(\.stringValue).filter({ $0 != "items" }).min() {
            throw DecodingError.dataCorrupted(
                .init(codingPath: [AnyKey(stringValue: other)], debugDescription: "belongs into each of the items"))
        }
        return try body.decode([Strict<Self>].self, forKey: items).map(\.value)
    }
}

struct CertificateChangeBody: BodyFields {
    static let fields = ["reason", "note"]
    static let whenEmpty: CertificateChangeBody? = CertificateChangeBody(reason: nil, note: nil)
    let reason: String?
    let note: String?

    func change(_ verb: CertificateVerb) throws(Problem) -> CertificateChange {
        if let note, note.utf8.count > 4_096 {
            throw Problem(.unprocessableContent, "invalid_value", "note has at most 4096 bytes")
        }
        guard verb == .revoke || reason == nil else {
            throw Problem(.unprocessableContent, "invalid_value", "only a revocation has a reason; send a note")
        }
        switch verb {
        case .hold: return CertificateChange(.hold, note: note)
        case .release: return CertificateChange(.release, note: note)
        case .revoke:
            let possible = RevocationReason.allCases.filter { $0 != .certificateHold }
            guard let reason = possible.first(where: { $0.rawValue == self.reason ?? "unspecified" }) else {
                let all = possible.map(\.rawValue).joined(separator: ", ")
                throw Problem(.unprocessableContent, "invalid_value", "reason must be one of: \(all)")
            }
            return CertificateChange(.revoke(reason), note: note)
        }
    }
}

extension KeyAlgorithm {
    fileprivate init(named name: String) throws(Problem) {
        guard let algorithm = KeyAlgorithm(rawValue: name) else {
            let all = KeyAlgorithm.allCases.map(\.rawValue).joined(separator: ", ")
            throw Problem(.unprocessableContent, "invalid_value", "the key algorithm must be one of: \(all)")
        }
        self = algorithm
    }
}

private func seconds(_ days: Int64) throws(Problem) -> Int64 {
    guard (1...36_500).contains(days) else {
        throw Problem(.unprocessableContent, "invalid_value", "valid_days must be 1 to 36500")
    }
    return days * 86_400
}

// MARK: Answers

struct AuthorityRow: Encodable, Sendable {
    let id: String
    let tenant: String
    let subject: String
    let status: String
    let key: String
    let spkiSHA256: String
    let notBefore: String
    let notAfter: String
    let replaces: String?
    let replacedBy: String?
    let revoked: Int
    let crlNumber: UInt64?
    let crlNextUpdate: String?
    /// PEM, with those above it.
    let certificate: String
    var position: UInt64?

    enum CodingKeys: String, CodingKey {
        case id, tenant, subject, status, key, spkiSHA256 = "spki_sha256", notBefore = "not_before"
        case notAfter = "not_after", replaces, replacedBy = "replaced_by", revoked, crlNumber = "crl_number"
        case crlNextUpdate = "crl_next_update", certificate, position
    }

    init(_ authority: CertificateAuthority) {
        let added = authority.added
        (id, tenant, subject) = (added.id, added.tenantID, added.subject)
        status = authority.retiredAt != nil ? "RETIRED" : authority.replacedBy != nil ? "REPLACED" : "ACTIVE"
        (key, spkiSHA256) = (added.key.rawValue, added.spkiSHA256)
        (notBefore, notAfter) = (added.notBefore.description, added.notAfter.description)
        (replaces, replacedBy, revoked) = (added.replaces, authority.replacedBy, authority.revokedCount)
        (crlNumber, crlNextUpdate) = (authority.lastCRL?.number, authority.lastCRL?.nextUpdate.description)
        certificate = added.pem
    }
}

struct CertificateRow: Encodable, Sendable {
    let authority: String
    let serial: String
    let tenant: String
    let device: String
    let status: String
    let reason: String?
    let notBefore: String
    let notAfter: String
    let spkiSHA256: String
    let renews: String?
    let replacedBy: String?
    let changedAt: String?
    /// The open renewal.
    let renewal: RenewalRow?
    /// PEM, with the authorities above it.
    var certificate: String?
    /// PEM. Handed out once.
    var privateKey: String?

    enum CodingKeys: String, CodingKey {
        case authority, serial, tenant, device, status, reason, notBefore = "not_before", notAfter = "not_after"
        case spkiSHA256 = "spki_sha256", renews, replacedBy = "replaced_by", changedAt = "changed_at", renewal,
            certificate
        case privateKey = "private_key"
    }

    init(_ certificate: DeviceCertificate) {
        (authority, serial) = (certificate.reference.authority, certificate.reference.serial.description)
        (tenant, device, status) = (certificate.tenantID, certificate.deviceID, certificate.status.name)
        reason = certificate.reason?.rawValue
        (notBefore, notAfter) = (certificate.notBefore.description, certificate.notAfter.description)
        spkiSHA256 = certificate.spkiSHA256.description
        (renews, replacedBy) = (certificate.renews?.description, certificate.replacedBy?.description)
        changedAt = certificate.changedAt.description
        renewal = certificate.renewal.map(RenewalRow.init)
    }

    init(_ issued: NewlyIssued) {
        (authority, serial) = (issued.reference.authority, issued.reference.serial.description)
        (tenant, device, status) = (issued.tenantID, issued.deviceID, CertificateStatus.active.name)
        (reason, renews, replacedBy, changedAt) = (nil, issued.renews?.description, nil, nil)
        renewal = nil
        notBefore = Timestamp(seconds: issued.certificate.notBefore).description
        notAfter = Timestamp(seconds: issued.certificate.notAfter).description
        spkiSHA256 = issued.certificate.spkiSHA256.description
        certificate = issued.pem
        privateKey = issued.privateKey.map { String(decoding: $0, as: UTF8.self) }
    }
}

struct CertificateItems: Encodable, Sendable {
    let items: [CertificateRow]
    let position: UInt64
}

struct CertificatePage: Encodable, Sendable {
    let items: [CertificateRow]
    let next: UInt32?

    enum CodingKeys: String, CodingKey { case items, next }

    func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(items, forKey: .items)
        try fields.encode(next, forKey: .next)
    }
}

struct RenewalRow: Encodable, Sendable {
    let id: UInt64
    let status: String
    let attempt: Int64
    let requestedAt: String
    /// The certificate to renew, and the new one.
    let certificate: String
    let issued: String?
    /// Why the device's last message was refused.
    let error: String?

    enum CodingKeys: String, CodingKey {
        case id, status, attempt, requestedAt = "requested_at", certificate, issued, error
    }

    init(_ renewal: Renewal) {
        (id, status, attempt) = (renewal.id.rawValue, renewal.status.rawValue, renewal.attempt)
        (requestedAt, certificate) = (renewal.requestedAt.description, renewal.certificate.description)
        (issued, error) = (renewal.issued?.description, renewal.error)
    }
}

/// RFC 9773, section 4.2.
struct RenewalInfo: Encodable, Sendable {
    struct Window: Encodable, Sendable {
        let start: String
        let end: String
    }
    let suggestedWindow: Window

    init(_ start: Timestamp, _ end: Timestamp) {
        suggestedWindow = Window(start: start.description, end: end.description)
    }
}
