import Decisions
import Decoding
import EventModel

// The rows of the certificates projection. The rules are in Certificates.swift.

enum CertificateTables {
    static let authorities = 0, certificates = 1, crls = 2, events = 3

    static let descriptor = ProjectionDescriptor(
        name: "certificates", version: 1,
        tables: [AuthorityState.table, CertificateState.table, CRLRow.table, CertificateEventRow.table])
}

extension AuthorityAdded.Key: Field {}

struct AuthorityState: RowState {
    static let table = Table("certificate_authorities_v1", write: .upsert, Self.self)

    enum Status: String, Field {
        case active = "ACTIVE"
        case replaced = "REPLACED"
        case retired = "RETIRED"
    }

    /// `authority.added` was seen.
    var isKnown = false
    var tenant = "", subject = "", spkiSHA256 = ""
    var key = AuthorityAdded.Key.none
    var notBefore = Timestamp(microseconds: 0), notAfter = Timestamp(microseconds: 0)
    var replaces: String?
    var replacedBy: String?
    var retiredAt = OptionalTime()
    var addedAt = OptionalTime(), addedBy = "", addedPosition = Position(0)
    var crlNumber: Int64?
    var crlThisUpdate = OptionalTime(), crlNextUpdate = OptionalTime()
    var lastPosition = Position(0)

    var status: Status { retiredAt.value != nil ? .retired : replacedBy != nil ? .replaced : .active }

    mutating func columns(_ row: inout some RowVisitor, _ key: inout Bytes, _ arena: inout ByteArena) {
        var status = status
        row.key("id", &key)
        row.value("tenant_id", &tenant)
        row.value("subject", &subject)
        row.value("spki_sha256", &spkiSHA256)
        row.value("key_location", &self.key)
        row.value("not_before", &notBefore)
        row.value("not_after", &notAfter)
        row.value("status", &status)
        row.value("replaces", &replaces)
        row.value("replaced_by", &replacedBy)
        row.value("retired_at", &retiredAt)
        row.value("added_at", &addedAt)
        row.value("added_by", &addedBy)
        row.value("added_position", &addedPosition)
        row.value("crl_number", &crlNumber)
        row.value("crl_this_update", &crlThisUpdate)
        row.value("crl_next_update", &crlNextUpdate)
        row.value("last_position", &lastPosition)
    }

    mutating func didLoad(_ key: Bytes) { isKnown = true }
}

/// The key of a certificate's row. In memory a byte 0 stands between its parts: no text of PostgreSQL has one.
struct CertificateKey: RowKey {
    var authority = Bytes.none, serial = Bytes.none

    init() {}
    init(_ key: Bytes) {
        guard let end = key.firstIndex(of: 0) else { preconditionFailure("no key of a certificate") }
        authority = Bytes(rebasing: key[..<end])
        serial = Bytes(rebasing: key[(end + 1)...])
    }

    func append(to key: inout [UInt8]) { Self.append(authority, serial, to: &key) }

    static func append(_ authority: some Sequence<UInt8>, _ serial: some Sequence<UInt8>, to key: inout [UInt8]) {
        key.append(contentsOf: authority)
        key.append(0)
        key.append(contentsOf: serial)
    }
}

struct CertificateState: RowState {
    static let table = Table("device_certificates_v1", write: .upsert, Self.self)

    enum Status: String, Field {
        case active = "ACTIVE"
        case superseded = "SUPERSEDED"
        case held = "HELD"
        case revoked = "REVOKED"
    }

    /// `certificate.issued` or `certificate.imported` was seen.
    var isKnown = false
    var status = Status.active
    var isImported = false
    var tenant = ByteRef(), device = ByteRef(), commonName = ByteRef(), keyAlgorithm = ByteRef()
    var spkiSHA256 = ByteRef(), sha256 = ByteRef()
    var renews = ByteRef(), replacedBy = ByteRef(), reason = ByteRef(), addedBy = ByteRef()
    var notBefore = Timestamp(microseconds: 0), notAfter = Timestamp(microseconds: 0)
    var supersededAt = OptionalTime(), revokedAt = OptionalTime()
    var addedAt = OptionalTime(), addedPosition = Position(0)
    var lastPosition = Position(0)

    mutating func columns(_ row: inout some RowVisitor, _ key: inout CertificateKey, _ arena: inout ByteArena) {
        var origin = isImported ? CertificateAdded.Origin.imported : .issued
        row.key("authority_id", &key.authority)
        row.key("serial", &key.serial)
        row.text("tenant_id", &tenant, &arena)
        row.text("device_id", &device, &arena)
        row.text("common_name", &commonName, &arena)
        row.value("status", &status)
        row.text("key_algorithm", &keyAlgorithm, &arena)
        row.value("not_before", &notBefore)
        row.value("not_after", &notAfter)
        row.text("spki_sha256", &spkiSHA256, &arena)
        row.text("sha256", &sha256, &arena)
        row.value("origin", &origin)
        row.text("renews", &renews, &arena)
        row.text("replaced_by", &replacedBy, &arena)
        row.value("superseded_at", &supersededAt)
        row.value("revoked_at", &revokedAt)
        row.text("reason", &reason, &arena)
        row.value("added_at", &addedAt)
        row.text("added_by", &addedBy, &arena)
        row.value("added_position", &addedPosition)
        row.value("last_position", &lastPosition)
        isImported = origin == .imported
    }

    mutating func didLoad(_ key: CertificateKey) { isKnown = true }
}

extension CertificateAdded.Origin: Field {}

/// An issued CRL.
struct CRLRow: TableRow {
    static let table = Table("crls_v1", write: .insert, Self.self)

    var authority = "", number: Int64 = 0, tenant = ""
    var thisUpdate = Timestamp(microseconds: 0), nextUpdate = Timestamp(microseconds: 0)
    var entries: Int64 = 0, canary: String?, sha256 = ""
    var at = OptionalTime(), actor = "", position = Position(0)

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("authority_id", &authority)
        row.key("number", &number)
        row.value("tenant_id", &tenant)
        row.value("this_update", &thisUpdate)
        row.value("next_update", &nextUpdate)
        row.value("entries", &entries)
        row.value("canary_serial", &canary)
        row.value("sha256", &sha256)
        row.value("at", &at)
        row.value("actor", &actor)
        row.value("position", &position)
    }
}

/// A decision about a certificate, an authority or a CRL, whether or not it changed another row.
struct CertificateEventRow: TableRow {
    static let table = Table("certificate_events_v1", write: .insert, Self.self)

    var position = Position(0), tenant = "", at = OptionalTime(), type = "", authority = ""
    var serial: String?, device: String?, crlNumber: Int64?, reason: String?, note: String?, related: String?
    var actor = ""

    mutating func columns(_ row: inout some RowVisitor) {
        row.key("position", &position)
        row.value("tenant_id", &tenant)
        row.value("at", &at)
        row.value("event_type", &type)
        row.value("authority_id", &authority)
        row.value("serial", &serial)
        row.value("device_id", &device)
        row.value("crl_number", &crlNumber)
        row.value("reason", &reason)
        row.value("note", &note)
        row.value("related", &related)
        row.value("actor", &actor)
    }

    init() {}

    /// Nil for decisions about anything else.
    init?(_ decision: any Decision) {
        switch decision {
        case let event as AuthorityAdded:
            (tenant, authority, related, actor) = (event.tenantID, event.id, event.replaces, event.actor)
        case let event as AuthorityRetired:
            (tenant, authority, actor) = (event.tenantID, event.id, event.actor)
        case let event as CertificateAdded:
            (tenant, authority, serial, device) = (event.tenantID, event.authority, event.serial, event.deviceID)
            (related, actor) = (event.renews, event.actor)
        case let event as CertificateChanged:
            (tenant, authority, serial, device) = (event.tenantID, event.authority, event.serial, event.deviceID)
            (reason, note, related, actor) = (event.reason, event.note, event.replacedBy, event.actor)
        case let event as CRLIssued:
            (tenant, authority, actor) = (event.tenantID, event.authority, event.actor)
            crlNumber = Int64(clamping: event.number)
        case let event as CRLRefused:
            (tenant, authority, reason, actor) = (event.tenantID, event.authority, event.reason, event.actor)
            crlNumber = Int64(clamping: event.number)
        case let event as CRLEnforced:
            (tenant, authority, reason, actor) = (event.tenantID, event.authority, event.error, event.actor)
            (related, crlNumber) = (event.broker, Int64(clamping: event.number))
        case let event as ClientCut:
            (tenant, authority, serial, device) = (event.tenantID, event.authority, event.serial, event.deviceID)
            (reason, note, related, actor) = (event.outcome.rawValue, event.evidence, event.broker, event.actor)
            crlNumber = Int64(clamping: event.number)
        case let event as ClientBanLifted:
            (tenant, authority, serial, device) = (event.tenantID, event.authority, event.serial, event.deviceID)
            (related, crlNumber, actor) = (event.broker, event.number.map { Int64(clamping: $0) }, event.actor)
        case let event as AuthorityRenewal:
            (tenant, authority, actor) = (event.tenantID, event.authority, event.actor)
        case let event as CertificateRenewal:
            (tenant, authority, serial, device) = (event.tenantID, event.authority, event.serial, event.deviceID)
            (reason, related, actor) = (event.reason, event.issued, event.actor)
        default: return nil
        }
    }
}
