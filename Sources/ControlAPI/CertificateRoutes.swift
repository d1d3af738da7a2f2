import Access
import Certificates
import Decisions
import EventModel
import FoundationEssentials
import HTTPTypes
import Hummingbird
import Issuing
import PKI

// Device certificates and their authorities: issued, listed, revoked. CRLs are in CRLRoutes.swift.

extension ControlAPI {
    var authorityRoutes: [Route] {
        let own = "\(Self.tenantPath)/authorities", all = "/api/v1/authorities"
        return [
            .get(all, .read(.admin)) { request, _ in
                try request.allowQuery()
                return try await authorities(of: nil)
            },
            .post(all, .write(.admin)) { request, context in
                let body = try await request.json(AuthorityBody.self)
                return try await create(body, tenant: Envelope.everyTenant, request, context)
            },
            .post("\(all)/import", .write(.admin)) { request, context in
                let body = try await request.json(ForeignAuthorityBody.self)
                return try await take(body, tenant: Envelope.everyTenant, request, context)
            },
            .post("\(all)/{authority}/retire", .write(.admin)) { request, context in
                try await retire(tenant: Envelope.everyTenant, request, context)
            },
            .post("\(all)/{authority}/renew", .write(.admin)) { request, context in
                try await renew(tenant: Envelope.everyTenant, request, context)
            },
            .post("\(own)/{authority}/renew") { request, context in
                try await renew(tenant: try context.id("tenant"), request, context)
            },
            .get(own) { request, context in
                try request.allowQuery()
                return try await authorities(of: try context.id("tenant"))
            },
            .post(own, .write(.admin)) { request, context in
                let body = try await request.json(AuthorityBody.self)
                return try await create(body, tenant: try context.id("tenant"), request, context)
            },
            .post("\(own)/import", .write(.admin)) { request, context in
                let body = try await request.json(ForeignAuthorityBody.self)
                return try await take(body, tenant: try context.id("tenant"), request, context)
            },
            .post("\(own)/{authority}/retire", .write(.admin)) { request, context in
                try await retire(tenant: try context.id("tenant"), request, context)
            },
        ]
    }

    var certificateRoutes: [Route] {
        let path = "\(Self.tenantPath)/certificates"
        return [
            .get(path) { request, context in
                try await listCertificates(request, tenant: try context.id("tenant"))
            },
            .post(path) { request, context in
                let body = try await request.json(CertificatesBody.self), tenant = try context.id("tenant")
                let new = try body.all.map { item throws(Problem) in try item.new(tenant) }
                return try await issued(
                    try await system.certificates.issue(new, by: try caller(request, context, tenant, body.text)))
            },
            .post("\(path)/import") { request, context in
                let body = try await request.json(CertificateImportBody.self), tenant = try context.id("tenant")
                return try await changed(
                    try await system.certificates.importCertificates(
                        body.all.map { (Array($0.certificates.utf8), $0.device) }, tenantID: tenant,
                        by: try caller(request, context, tenant, body.text)), created: true)
            },
            .get("\(path)/missing") { request, context in
                try request.allowQuery()
                return try .json(Items(items: await system.uncertified(try context.id("tenant"))))
            },
            .get("\(path)/{authority}/{serial}") { request, context in
                try request.allowQuery()
                return try await show(try context.id("tenant"), try context.certificate())
            },
            .get("\(path)/{authority}/{serial}/renewal-info") { request, context in
                try request.allowQuery()
                let reference = try context.certificate()
                guard
                    let window = try await system.certificates.renewalWindow(
                        reference, tenantID: try context.id("tenant"))
                else { throw Problem(.notFound, "not_found", "there is no certificate \(reference)") }
                return try .json(RenewalInfo(window.start, window.end))
            },
            .post("\(Self.tenantPath)/devices/{device}/certificates/renew") { request, context in
                try await changed(
                    try await system.certificates.renew(
                        device: try context.id("device"),
                        by: try caller(request, context, try context.id("tenant"), "")))
            },
            .get("\(path)/{authority}/{serial}/events") { request, context in
                try request.allowQuery("limit", "after", "order", "min_position")
                let tenant = try context.id("tenant"), reference = try context.certificate()
                let page = try request.page(ordered: true)
                try await waitForPosition(request, ProjectionName.certificates)
                return .page(
                    try await system.queries.certificateEvents(
                        tenant: tenant, authority: reference.authority, serial: reference.serial.description,
                        page: page))
            },
        ]
    }

    /// Of one certificate, and of all certificates of a device.
    var certificateChangeRoutes: [Route] {
        CertificateVerb.allCases.flatMap { verb -> [Route] in
            [
                .post("\(Self.tenantPath)/certificates/{authority}/{serial}/\(verb.rawValue)") { request, context in
                    let body = try await request.json(CertificateChangeBody.self), tenant = try context.id("tenant")
                    return try await changed(
                        try await system.certificates.change(
                            try context.certificate(), try body.change(verb),
                            by: try caller(request, context, tenant, "\(body)")))
                },
                .post("\(Self.tenantPath)/devices/{device}/certificates/\(verb.rawValue)") { request, context in
                    let body = try await request.json(CertificateChangeBody.self), tenant = try context.id("tenant")
                    return try await changed(
                        try await system.certificates.change(
                            device: try context.id("device"), try body.change(verb),
                            by: try caller(request, context, tenant, "\(body)")))
                },
            ]
        }
    }

    /// The operator, and what was sent, so that an idempotency key is known again.
    private func caller(
        _ request: Request, _ context: APIContext, _ tenant: String, _ sent: String
    ) throws(Problem) -> Operator {
        Operator(
            actor: context.principal.name, tenantID: tenant, idempotencyKey: try request.idempotencyKey(),
            sent: Array("\(request.uri.path)\n\(sent)".utf8))
    }

    // MARK: Authorities

    private func authorities(of tenant: String?) async throws -> Response {
        let rows = try await system.certificates.authorities()
            .filter { authority in tenant.map(authority.isOf) ?? true }
        return try .json(Items(items: rows.map(AuthorityRow.init)))
    }

    private func create(
        _ body: AuthorityBody, tenant: String, _ request: Request, _ context: APIContext
    ) async throws -> Response {
        let new = try body.new(tenant)
        return try await authority(
            try await system.certificates.create(new, by: try caller(request, context, tenant, "\(body)")))
    }

    private func take(
        _ body: ForeignAuthorityBody, tenant: String, _ request: Request, _ context: APIContext
    ) async throws -> Response {
        try await authority(
            try await system.certificates.take(
                body.foreign(tenant), by: try caller(request, context, tenant, "\(body)")))
    }

    private func retire(tenant: String, _ request: Request, _ context: APIContext) async throws -> Response {
        try await authority(
            try await system.certificates.retire(
                context.parameters.get("authority") ?? "", by: try caller(request, context, tenant, "")),
            status: .ok)
    }

    private func renew(tenant: String, _ request: Request, _ context: APIContext) async throws -> Response {
        try await authority(
            try await system.certificates.renew(
                authority: context.parameters.get("authority") ?? "", by: try caller(request, context, tenant, "")),
            status: .accepted)
    }

    private func authority(
        _ answer: RegistryAnswer, status: HTTPResponse.Status = .created
    ) async throws -> Response {
        let (position, id, _) = try accepted(answer)
        guard let found = try await system.certificates.authorities().first(where: { $0.added.id == id }) else {
            throw Problem(.notFound, "not_found", "there is no such authority")
        }
        var row = AuthorityRow(found)
        row.position = position.rawValue
        return try .json(row, status: status)
    }

    // MARK: Certificates

    private func accepted(
        _ answer: RegistryAnswer
    ) throws(Problem) -> (position: Position, authority: String?, certificates: [CertificateReference]) {
        switch answer {
        case .accepted(let position, let authority, let certificates, _): return (position, authority, certificates)
        case .rejected(let position, let code, let reason):
            throw Problem.refused(code, reason, position)
        }
    }

    private func listCertificates(_ request: Request, tenant: String) async throws -> Response {
        try request.allowQuery(
            "device", "search", "status", "authority", "expiring_days", "renewing", "limit", "after")
        let page = try request.page()
        var filter = CertificateFilter()
        filter.deviceID = try request.idQuery("device")
        filter.search = try request.idQuery("search")
        filter.authority = try request.idQuery("authority")
        let words = CertificateStatus.allCases.map(\.name) + ["EXPIRED"]
        if let status = try request.query("status", oneOf: words) {
            filter.status = CertificateStatus.allCases.first { $0.name == status }
            if status == "EXPIRED" { filter.isExpired = true }
        }
        filter.isRenewing = try request.query("renewing", oneOf: ["true", "false"]) == "true"
        let days = try request.query("expiring_days", 0...36_500 as ClosedRange<Int64>)
        let rows = try await system.certificates.list(
            tenantID: tenant, filter, expiringWithinSeconds: days.map { $0 * 86_400 },
            after: page.after.map { UInt32(clamping: $0) }, limit: page.limit)
        return try .json(
            CertificatePage(items: rows.certificates.map { CertificateRow($0) }, next: rows.next))
    }

    private func show(_ tenant: String, _ reference: CertificateReference) async throws -> Response {
        guard let certificate = try await system.certificates.certificate(reference, tenantID: tenant) else {
            throw Problem(.notFound, "not_found", "there is no certificate \(reference)")
        }
        var row = CertificateRow(certificate)
        row.certificate = try await system.certificates.pem(of: certificate)
        return try .json(row)
    }

    private func issued(_ result: IssuingResult) async throws -> Response {
        switch result {
        case .issued(let position, let all):
            return try .json(
                CertificateItems(items: all.map { CertificateRow($0) }, position: position.rawValue),
                status: .created)
        case .repeated(let position, let references):
            return try await rows(of: references, position, status: .created, withPEM: true)
        case .refused(let position, let code, let reason): throw Problem.refused(code, reason, position)
        }
    }

    private func changed(_ answer: RegistryAnswer, created: Bool = false) async throws -> Response {
        let (position, _, references) = try accepted(answer)
        return try await rows(of: references, position, status: created ? .created : .ok)
    }

    private func rows(
        of references: [CertificateReference], _ position: Position, status: HTTPResponse.Status, withPEM: Bool = false
    ) async throws -> Response {
        var items: [CertificateRow] = []
        for reference in references {
            if let certificate = try await system.certificates.certificate(
                reference, tenantID: Envelope.everyTenant)
            {
                var row = CertificateRow(certificate)
                if withPEM { row.certificate = try await system.certificates.pem(of: certificate) }
                items.append(row)
            }
        }
        return try .json(CertificateItems(items: items, position: position.rawValue), status: status)
    }
}

extension Problem {
    static func refused(_ code: RegistryRefusal.Code, _ reason: String, _ position: Position) -> Problem {
        let status: HTTPResponse.Status =
            switch code {
            case .notFound: .notFound
            case .illegalTransition, .alreadyExists, .outdated: .conflict
            case .invalidValue, .keyReused, .limitReached: .unprocessableContent
            }
        var problem = Problem(status, code.rawValue, reason)
        problem.position = position.rawValue
        return problem
    }
}

extension APIContext {
    /// `{authority}/{serial}` in the path.
    func certificate() throws(Problem) -> CertificateReference {
        let authority = parameters.get("authority") ?? "", serial = parameters.get("serial") ?? ""
        let name = "\(authority)/\(serial)"
        guard let reference = CertificateReference(name) else {
            throw Problem(.notFound, "not_found", "there is no certificate \(name.removingPercentEncoding ?? name)")
        }
        return reference
    }
}

enum CertificateVerb: String, CaseIterable, Sendable {
    case revoke, hold, release
}
