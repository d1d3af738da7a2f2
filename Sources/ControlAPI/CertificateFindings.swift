import Certificates
import EventModel
import Hummingbird
import Issuing

/// The standing audit of certificates.
public protocol CertificateAuditing: Sendable {
    /// - Throws: as `DeciderService.query`.
    func report() async throws -> CertificateAudit.Report
    /// About one certificate; nil: it is not on the record, or its tenant is another.
    func report(about reference: CertificateReference, tenantID: String) async throws -> CertificateAudit.Report?
}

extension CertificateAudit: CertificateAuditing {}

extension ControlAPI {
    var certificateFindingRoutes: [Route] {
        [
            .get("\(Self.tenantPath)/certificates/findings") { request, context in
                try request.allowQuery("code", "authority", "serial")
                let codes = try request.findingCodes(), tenant = try context.id("tenant")
                guard let reference = try request.certificateQuery() else {
                    let report = try await system.certificateAudit.report()
                    return try .json(FindingsBody(report, tenant: tenant, codes, isOfOne: false))
                }
                let report = try await system.certificateAudit.report(about: reference, tenantID: tenant)
                guard let report else { throw Problem(.notFound, "not_found", "there is no certificate \(reference)") }
                return try .json(FindingsBody(report, tenant: tenant, codes, isOfOne: true))
            }
        ]
    }
}

extension Request {
    /// `code`: one or several, separated by commas; all when it is not given.
    fileprivate func findingCodes() throws(Problem) -> [CertificateFinding.Code] {
        let all = CertificateFinding.Code.allCases
        guard let words = query("code")?.split(separator: ",", omittingEmptySubsequences: false) else { return all }
        let codes = all.filter { words.contains($0.rawValue[...]) }
        guard codes.count == words.count else {
            let names = all.map(\.rawValue).joined(separator: ", ")
            throw Problem(
                .badRequest, "query_invalid",
                "code must be one or more of these, each once, separated by commas: \(names)")
        }
        return codes
    }

    /// `authority` and `serial`; nil: neither is given.
    fileprivate func certificateQuery() throws(Problem) -> CertificateReference? {
        let (authority, serial) = (query("authority"), query("serial"))
        if authority == nil, serial == nil { return nil }
        guard let authority, let serial, let reference = CertificateReference("\(authority)/\(serial)") else {
            throw Problem(.badRequest, "query_invalid", "authority and serial name one certificate: give both")
        }
        return reference
    }
}

private struct FindingsBody: Encodable {
    let auditedAt: String
    /// Why findings about devices that send are missing.
    @Nullable var sendersUnknown: String?
    let counts: [String: Int]
    /// Nil in a report about one certificate.
    var expiries: Expiries?
    let items: [FindingRow]

    struct Expiries: Encodable {
        let weeks: [Int]
        let later: Int
    }

    enum CodingKeys: String, CodingKey {
        case auditedAt = "audited_at", sendersUnknown = "senders_unknown", counts, expiries, items
    }

    init(_ report: CertificateAudit.Report, tenant: String, _ codes: [CertificateFinding.Code], isOfOne: Bool) {
        auditedAt = report.at.description
        counts = report.counts(of: tenant).reduce(into: [:]) { $0[$1.key.rawValue] = $1.value }
        if !isOfOne {
            let some = report.expiries[tenant] ?? CertificateExpiries()
            expiries = Expiries(weeks: some.weeks, later: some.later)
        }
        items = report.findings(of: tenant).filter { codes.contains($0.code) }.map(FindingRow.init)
        sendersUnknown = report.sendersUnknown
    }
}

private struct FindingRow: Encodable {
    struct Evidence: Encodable {
        let what: String
        let position: UInt64
    }

    let code: String
    let severity: String
    var authority: String?
    var serial: String?
    var device: String?
    let since: String
    let text: String
    let remedy: String
    let evidence: [Evidence]

    init(_ finding: CertificateFinding) {
        (code, severity) = (finding.code.rawValue, finding.severity.rawValue)
        switch finding.subject {
        case .certificate(let reference, let deviceID):
            (authority, serial, device) = (reference.authority, reference.serial.description, deviceID)
        case .device(let deviceID): device = deviceID
        case .authority(let id): authority = id
        }
        (since, text, remedy) = (finding.since.description, finding.text, finding.code.remedy)
        evidence = finding.evidence.map { .init(what: $0.what, position: $0.position.rawValue) }
    }
}
