import Access
import Campaigns
import Decisions
import EventLog
import EventModel
import Hummingbird
import Logging
import Synchronization
@testable import ControlAPI

/// A system that answers what tests tell it to.
final class StandIn: StatusProviding, ProjectionControlling, CampaignCommanding, ReadQueries, LogOperations {
    struct Facts {
        var notReady: [String] = []
        var paused = false
        var lagSeconds = 1.5
        var reached = true
        var queryError: QueryError?
        var appendError: AppendError?
        var answer = CommandAnswer.accepted(position: Position(41), id: 7, status: .created)
        var requests: [CommandRequest] = []
        var losses: [LossRequest] = []
        var campaignRow = #"{"id":1}"#
        var groupQueries: [Int64: GroupQuery] = [:]
        var retries: [ParkedRetryRequest] = []
        var stuck: [String] = []
        var acknowledged: [[String]] = []
        var pages: [PageRequest] = []
        var waits: [(UInt64, String)] = []
    }
    let facts = Mutex(Facts())
    let tokens = TokenStandIn()
    let certificates = CertificateStandIn()
    let jobs = JobStandIn()
    let recorder = LogRecorder()

    var requests: [CommandRequest] { facts.withLock { $0.requests } }
    func set(_ change: (inout Facts) -> Void) { facts.withLock { change(&$0) } }

    func status() async -> SystemStatus {
        SystemStatus(
            state: .degraded, reasons: ["PostgreSQL cannot be reached"],
            problems: [
                .init(
                    code: "database_unreachable", object: nil, since: nil, text: "PostgreSQL cannot be reached",
                    remedy: "Start it.", isAcknowledgeable: false)
            ],
            log: .init(head: 12, durable: 11, segments: 1, bytes: 4096),
            projections: [projection()],
            brokers: [
                .init(name: "b", clientID: "refold-b", connected: true, subscribed: true, sessionPresent: false)
            ],
            database: .init(connected: false, lastError: "connection refused"))
    }
    func reasonsNotReady() async -> [String] { facts.withLock { $0.notReady } }
    func reasonsNotLive() async -> [String] { facts.withLock { $0.stuck } }

    private func projection() -> SystemStatus.Projection {
        .init(
            name: "device_status", version: 1, partition: 0, position: nil, lagEvents: 11,
            lagSeconds: facts.withLock { $0.lagSeconds },
            state: facts.withLock { $0.paused } ? "paused" : "running")
    }
    func projections() async -> [SystemStatus.Projection] { [projection()] }
    func pause(_ name: String) async -> SystemStatus.Projection? { change(name, true) }
    func resume(_ name: String) async -> SystemStatus.Projection? { change(name, false) }
    private func change(_ name: String, _ paused: Bool) -> SystemStatus.Projection? {
        guard name == "device_status" else { return nil }
        set { $0.paused = paused }
        return projection()
    }
    static let parked = ParkedKeyRow(
        projection: "device_status", partition: 0, key: "tenant/acme/device/d1", position: 7, reason: "CHECK")
    func parkedKeys() async -> [ParkedKeyRow] { [Self.parked] }
    func retryParked(_ request: ParkedRetryRequest, timeout: Duration) async -> ParkedRetryAnswer? {
        set { $0.retries.append(request) }
        return request.key == "slow" ? nil : ParkedRetryAnswer(unparked: [Self.parked])
    }
    func wait(for position: UInt64, in projection: String, timeout: Duration) async -> Bool {
        facts.withLock {
            $0.waits.append((position, projection))
            return $0.reached
        }
    }

    func groupQuery(tenant: String, id: Int64) async throws -> GroupQuery? {
        facts.withLock { $0.groupQueries[id] }
    }

    func execute(_ request: CommandRequest) async throws -> CommandAnswer {
        let (error, answer) = facts.withLock { facts in
            facts.requests.append(request)
            return (facts.appendError, facts.answer)
        }
        if let error { throw error }
        return answer
    }

    func checkpoint() async -> String? { "refold/00\n11\nroot\n\n— refold/00 sig\n" }
    func losses() async -> [LossRow] { [] }
    func acceptLosses(_ request: LossRequest) async throws -> [LossRow] {
        let error = facts.withLock { facts in
            facts.losses.append(request)
            return facts.appendError
        }
        if let error { throw error }
        return []
    }

    private func row(_ text: String?) throws(QueryError) -> JSONRow? {
        if let error = facts.withLock({ $0.queryError }) { throw error }
        return text.map { JSONRow($0) }
    }
    private func page(_ page: PageRequest) throws(QueryError) -> JSONPage {
        set { $0.pages.append(page) }
        guard page.after == nil || page.after == 9 else { return JSONPage(rows: [try row(#"{"id":3}"#)!]) }
        return JSONPage(rows: [try row(#"{"id":1}"#)!, try row(#"{"id":2}"#)!], next: 2)
    }
    func tenants(only tenant: String?) async throws(QueryError) -> [JSONRow] {
        [try row(#"{"tenant_id":"\#(tenant ?? "acme")","devices":1,"online":1,"stale":0,"offline":0}"#)!]
    }
    func device(tenant: String, device: String) async throws(QueryError) -> JSONRow? {
        try row(device == "gone" ? nil : #"{"tenant_id":"\#(tenant)","device_id":"\#(device)"}"#)
    }
    func firmware(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage { try self.page(page) }
    func firmware(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try row(id == 1 ? #"{"id":1}"# : nil)
    }
    func campaigns(tenant: String, status: String?, page: PageRequest) async throws(QueryError) -> JSONPage {
        try self.page(page)
    }
    func campaign(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try row(id == 1 ? facts.withLock { $0.campaignRow } : nil)
    }
    private func textPage(_ page: TextPageRequest) throws(QueryError) -> JSONTextPage {
        guard page.after == nil else { return JSONTextPage(rows: [try row(#"{"device_id":"d3"}"#)!]) }
        return JSONTextPage(
            rows: [try row(#"{"device_id":"d1"}"#)!, try row(#"{"device_id":"d2"}"#)!], next: "d2")
    }
    func devices(tenant: String, filter: DeviceFilter, page: TextPageRequest) async throws(QueryError) -> JSONTextPage {
        try textPage(page)
    }
    func fleet(tenant: String) async throws(QueryError) -> JSONRow {
        try row(#"{"online":2,"stale":1,"offline":0}"#)!
    }
    func deviceHistory(tenant: String, device: String, page: PageRequest) async throws(QueryError) -> JSONPage {
        try self.page(page)
    }
    func certificateEvents(
        tenant: String, authority: String, serial: String, page: PageRequest
    ) async throws(QueryError) -> JSONPage { try self.page(page) }
    func resolve(tenant: String, query: GroupQuery) async throws(QueryError) -> [String] {
        _ = try row(nil)
        return ["d1", "d2"]
    }
    func groups(tenant: String, page: PageRequest) async throws(QueryError) -> JSONPage { try self.page(page) }
    func group(tenant: String, id: Int64) async throws(QueryError) -> JSONRow? {
        try row(id == 1 ? #"{"id":1}"# : nil)
    }
    func groupMembers(tenant: String, id: Int64, page: TextPageRequest) async throws(QueryError) -> JSONTextPage {
        try textPage(page)
    }
    func tenantSettings(tenant: String) async throws(QueryError) -> JSONRow? {
        try row(#"{"tenant_id":"\#(tenant)","time_zone":"UTC"}"#)
    }
    func campaignDevices(
        tenant: String, id: Int64, filter: CampaignDeviceFilter, page: TextPageRequest
    ) async throws(QueryError) -> JSONTextPage { try textPage(page) }
    func campaignEvents(tenant: String, id: Int64, page: PageRequest) async throws(QueryError) -> JSONPage {
        try self.page(page)
    }
    func campaignProgress(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow] {
        [try row(#"{"at":"2026-11-21T22:00:00+00:00","dispatched":2,"succeeded":1,"failed":0,"skipped":0}"#)!]
    }
    func campaignFailures(tenant: String, id: Int64) async throws(QueryError) -> [JSONRow] {
        [try row(#"{"status":"FAILED","failure_kind":"DOWNLOAD","error":null,"devices":1,"examples":["d1"]}"#)!]
    }
    func auditLogs(tenant: String, subject: String?, page: PageRequest) async throws(QueryError) -> JSONPage {
        try self.page(page)
    }
    func deadLetters(_ filter: DeadLetterFilter, page: PageRequest) async throws(QueryError) -> JSONPage {
        try self.page(page)
    }
    func deadLetters(at position: UInt64) async throws(QueryError) -> [JSONRow] {
        guard let row = try row(position == 5 ? #"{"position":5}"# : nil) else { return [] }
        return [row]
    }

    static let token = "0123456789abcdef0123456789abcdef"

    func api(bindHost: String = "127.0.0.1", hosts: [String] = []) -> ControlAPI {
        ControlAPI(
            system: APIDependencies(
                status: self, projections: self, campaigns: self, queries: self, log: self,
                snapshots: PastStandIn(), past: PastStandIn(), rebuilds: RebuildStandIn(), tokens: tokens,
                certificates: certificates, crls: certificates, certificateAudit: certificates,
                jobs: jobs,
                metrics: {
                    var snapshot = MetricsSnapshot()
                    snapshot.add(.logDurableEvents, 11 as UInt64)
                    return snapshot
                },
                acknowledgeBroker: { broker, name, reason in
                    guard broker == "b" else { return nil }
                    self.set { $0.acknowledged.append([broker, name, reason]) }
                    return 12
                },
                gate: { _, device in
                    device == "quiet"
                        ? nil : GateStatistics(accepted: 3, rateLimited: 1, withoutCertificate: 2, tokens: 9.5)
                }),
            policy: AccessPolicy(
                token: Self.token, reachability: Reachability(bindHost: bindHost, hosts: hosts),
                tokenIndex: tokens.tokenIndex))
    }

    func client<T: Sendable>(
        bindHost: String = "127.0.0.1", _ body: @escaping @Sendable (RouterClient) async throws -> T
    ) async throws -> T {
        try await body(RouterClient(api(bindHost: bindHost).router(), logger: recorder.logger))
    }
}

/// Tokens without a log.
final class TokenStandIn: TokenKeeping {
    let tokenIndex = TokenIndex(clock: { Timestamp(microseconds: 0) })
    let state = Mutex(AccessState())
    let requests = Mutex<[AccessRequest]>([])

    init() { tokenIndex.replace(AccessState()) }

    /// - Returns: its secret.
    @discardableResult
    func add(_ name: String, _ role: Role, tenant: String? = nil, revoked: Bool = false) -> String {
        let secret = "refold_secret_of_\(name)"
        state.withLock { state in
            let id = state.nextID, tenant = tenant ?? Envelope.everyTenant
            state.apply(
                .created(
                    TokenCreated(
                        id: id, name: name, role: role.rawValue, tenantID: tenant, secretSHA256: Secrets.sha256(secret),
                        actor: "test")), at: Position(UInt64(id)), time: Timestamp(microseconds: 0))
            if revoked {
                state.apply(
                    .revoked(TokenRevoked(id: id, name: name, tenantID: tenant, actor: "test")),
                    at: Position(UInt64(id)), time: Timestamp(microseconds: 0))
            }
            tokenIndex.replace(state)
        }
        return secret
    }

    func tokens() async -> [AccessState.Token]? { tokenIndex.tokens }

    func execute(_ request: AccessRequest) async throws -> AccessAnswer {
        requests.withLock { $0.append(request) }
        switch request.command {
        case .create(let spec):
            let secret = add(spec.name, spec.role, tenant: spec.tenantID)
            return .created(position: Position(9), token: tokenIndex.tokens!.last!, secret: secret)
        case .revoke(let id):
            guard let token = tokenIndex.tokens?.first(where: { $0.id == id }) else {
                return .rejected(position: Position(9), code: .notFound, reason: "there is no token \(id)")
            }
            return .revoked(position: Position(9), token: token, also: [])
        }
    }
}
