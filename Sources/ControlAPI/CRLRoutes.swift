import Certificates
import Decisions
import EventModel
import HTTPTypes
import Hummingbird
import Issuing
import NIOCore
import PKI
import Primitives

// CRLs: their state for operators, and their bytes for whoever verifies certificates.

extension ControlAPI {
    var crlRoutes: [Route] {
        [
            // RFC 5280, 4.2.1.13: the distribution point of every certificate. A CRL is signed and public.
            .get("/crl/{file}", .open) { request, context in
                try request.allowQuery()
                return try await file(context.parameters.get("file") ?? "", request)
            },
            .get("\(Self.tenantPath)/crls") { request, context in
                try request.allowQuery()
                let tenant = try context.id("tenant")
                let enforcements = try await system.certificates.enforcements()
                let rows = try await system.certificates.authorities()
                    .filter { $0.isOf(tenant) }
                    .compactMap { authority in
                        authority.lastCRL.map {
                            CRLRow($0, pending: authority.isChanged, enforcements, isOwn: $0.tenantID == tenant)
                        }
                    }
                return try .json(Items(items: rows))
            },
            .get("\(Self.tenantPath)/enforcement") { request, context in
                try request.allowQuery()
                let tenant = try context.id("tenant")
                let authorities = try await system.certificates.authorities()
                    .filter { $0.isOf(tenant) }
                let rows = try await system.certificates.enforcements().compactMap { status in
                    authorities.first { $0.added.id == status.key.authority }.map {
                        EnforcementRow(status, newest: $0.lastCRL, isOwn: $0.added.tenantID == tenant)
                    }
                }
                return try .json(Items(items: rows))
            },
            .get("\(Self.tenantPath)/crls/{authority}") { request, context in
                try request.allowQuery("at")
                return try await crl(
                    context.parameters.get("authority") ?? "", of: try context.id("tenant"), at: try request.moment())
            },
            .post("/api/v1/authorities/{authority}/crl", .write(.admin)) { request, context in
                let id = context.parameters.get("authority") ?? ""
                guard try await system.certificates.authorities().contains(where: { $0.added.id == id }) else {
                    throw Problem(.notFound, "not_found", "there is no authority \(id)")
                }
                let event = try await system.crls.issue(id).event
                let enforcements = try await system.certificates.enforcements()
                return try .json(CRLRow(event, pending: false, enforcements, isOwn: true), status: .created)
            },
        ]
    }

    /// - Parameter moment: nil: now.
    private func crl(_ authority: String, of tenant: String, at moment: PointInTime?) async throws -> Response {
        // Checks the tenant before the expensive read of the log. Authorities keep their tenant.
        let isKnown = try await system.certificates.authorities().contains {
            $0.added.id == authority && $0.isOf(tenant)
        }
        guard isKnown else { throw Problem(.notFound, "not_found", "there is no authority \(authority)") }
        let when = moment == nil ? "" : " as of that time"
        let none = Problem(.notFound, "not_found", "the authority \(authority) has no CRL\(when)")
        guard let moment else {
            guard let crl = try await system.crls.current(authority) else { throw none }
            return try .json(CRLDocument(crl.event, crl.list))
        }
        guard let slot = LimitedSlot(crlRebuilds) else {
            throw Problem.unavailable(
                "too_many_rebuilds", "\(crlRebuilds.max) requests wait for CRLs of the past already",
                retryAfterSeconds: 5)
        }
        defer { withExtendedLifetime(slot) {} }
        do {
            guard let past = try await system.past.crl(authority, at: moment) else { throw none }
            var document = try CRLDocument(past.event, past.list)
            document.position = past.position.rawValue
            document.asOf = .init(past)
            return try .json(document)
        } catch let error as PKIError {
            // Not the caller's fault, whatever the code.
            throw Problem(.internalServerError, "log_unreadable", error.description)
        }
    }

    /// `{authority}.crl` is DER (RFC 5280, 4.2.1.13), `{authority}.pem` is for Mosquitto and EMQX.
    private func file(_ name: String, _ request: Request) async throws -> Response {
        let isPEM = name.hasSuffix(".pem")
        guard isPEM || name.hasSuffix(".crl") else {
            throw Problem(.notFound, "not_found", "there is no CRL \(name); take {authority}.crl or {authority}.pem")
        }
        let authority = String(name.dropLast(4))
        guard let crl = try await system.crls.current(authority) else {
            let isKnown = try await system.certificates.authorities().contains { $0.added.id == authority }
            throw Problem(
                .notFound, "not_found",
                isKnown ? "the authority \(authority) has no CRL" : "there is no authority \(authority)")
        }
        return try .kept(
            [.contentType: isPEM ? "application/x-pem-file" : "application/pkix-crl"],
            tag: "\"\(crl.event.sha256)\(isPEM ? "-pem" : "")\"", request
        ) { ByteBuffer(bytes: isPEM ? try crl.list.pem() : crl.list.der) }
    }
}

extension CertificateAuthority {
    /// Of the tenant, or of all tenants.
    func isOf(_ tenant: String) -> Bool { [tenant, Envelope.everyTenant].contains(added.tenantID) }
}

/// One CRL with its bytes.
private struct CRLDocument: Encodable {
    struct AsOf: Encodable {
        @Nullable var position: UInt64?
        let time: String

        init(_ past: PastCRL) { (position, time) = (past.asOfPosition, past.asOfTime.description) }
    }

    let authority: String
    let number: UInt64
    let thisUpdate: String
    let nextUpdate: String
    let entries: Int64
    let sha256: String
    let pem: String
    /// Of the event that issued it; absent in the newest one.
    var position: UInt64?
    var asOf: AsOf?

    enum CodingKeys: String, CodingKey {
        case authority, number, thisUpdate = "this_update", nextUpdate = "next_update", entries, sha256, pem, position
        case asOf = "as_of"
    }

    init(_ event: CRLIssued, _ list: RevocationList) throws(PKIError) {
        (authority, number, entries, sha256) = (event.authority, event.number, event.entries, event.sha256)
        (thisUpdate, nextUpdate) = (event.thisUpdate.description, event.nextUpdate.description)
        pem = String(decoding: try list.pem(), as: UTF8.self)
    }
}

/// How far an authority's CRLs have come at a broker.
struct EnforcementRow: Encodable, Sendable {
    let broker: String
    let authority: String
    let state: EnforcementState
    /// Of the newest CRL.
    let number: UInt64?
    let thisUpdate: String?
    let nextUpdate: String?
    let written: UInt64
    let writtenAt: String?
    let reloaded: UInt64
    let reloadedAt: String?
    let proved: UInt64
    let provedAt: String?
    let provedMilliseconds: Int64?
    let uncut: Int
    let banned: Int
    /// Why the newest CRL is not proved, or clients are not disconnected.
    let error: String?
    /// When the error of the proof was recorded.
    let errorAt: String?

    enum CodingKeys: String, CodingKey {
        case broker, authority, state, number, thisUpdate = "this_update"
        case nextUpdate = "next_update", written, writtenAt = "written_at", reloaded
        case reloadedAt = "reloaded_at", proved, provedAt = "proved_at", provedMilliseconds = "proved_ms", uncut
        case banned, error, errorAt = "error_at"
    }

    /// - Parameters:
    ///   - newest: the authority's newest CRL.
    ///   - isOwn: errors of an authority of all tenants may name devices of any of them.
    init(_ status: EnforcementStatus, newest: CRLIssued?, isOwn: Bool) {
        let enforcement = status.enforcement
        (broker, authority) = (status.key.broker, status.key.authority)
        (uncut, banned) = (status.uncut, status.banned)
        number = newest?.number
        (thisUpdate, nextUpdate) = (newest?.thisUpdate.description, newest?.nextUpdate.description)
        state = status.state
        (written, writtenAt) = (enforcement.written, enforcement.writtenAt?.description)
        (reloaded, reloadedAt) = (enforcement.reloaded, enforcement.reloadedAt?.description)
        (proved, provedAt) = (enforcement.proved, enforcement.provedAt?.description)
        provedMilliseconds = enforcement.provedMilliseconds
        error = isOwn ? status.error : nil
        errorAt = enforcement.error == nil ? nil : enforcement.errorAt?.description
    }
}

struct CRLRow: Encodable, Sendable {
    let authority: String
    let number: UInt64
    let thisUpdate: String
    let nextUpdate: String
    let entries: Int64
    let sha256: String
    /// Certificates were revoked or released since: the next CRL is due.
    let isOutdated: Bool
    let brokers: [EnforcementRow]

    enum CodingKeys: String, CodingKey {
        case authority, number, thisUpdate = "this_update", nextUpdate = "next_update", entries, sha256
        case isOutdated = "is_outdated", brokers
    }

    init(_ event: CRLIssued, pending: Bool, _ enforcements: [EnforcementStatus], isOwn: Bool) {
        brokers = enforcements.filter { $0.key.authority == event.authority }
            .map { EnforcementRow($0, newest: event, isOwn: isOwn) }
        (authority, number, entries, sha256) = (event.authority, event.number, event.entries, event.sha256)
        (thisUpdate, nextUpdate) = (event.thisUpdate.description, event.nextUpdate.description)
        isOutdated = pending
    }
}
