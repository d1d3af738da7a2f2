import Certificates
import Deciding
import Decisions
import EventModel
import PKI
import Primitives
import Threading

/// Why an authority has no new CRL. The one before stays in force.
public struct CRLFailure: Error, Sendable, CustomStringConvertible {
    public let authority: String
    /// Of the last CRL; nil: there is none.
    public let thisUpdate: Timestamp?
    /// When brokers begin to refuse every client; nil: no CRL was issued yet.
    public let nextUpdate: Timestamp?
    public let reason: String

    public var description: String {
        let until = nextUpdate.map { "; brokers refuse every client of it from \($0) on" } ?? ""
        return "cannot issue a CRL of the authority \(authority): \(reason)\(until)"
    }
}

/// Signs CRLs: drafted by the registry, parsed and verified by OpenSSL, compared with the one before, and put on the
/// record before anyone receives them.
public actor CRLService {
    private let registry: DeciderService<CertificateRegistry>
    private let keys: AuthorityKeys
    private let policy: CRLPolicy
    private let distributionPoint: @Sendable (_ authority: String) -> String?
    private let clock: @Sendable () -> Timestamp
    private let wall: @Sendable () -> Timestamp
    private let executor: ThreadExecutor
    var published: [String: PublishedCRL] = [:]
    /// The last call of `issue` for each authority.
    private var issuing: [String: Task<Result<PublishedCRL, CRLFailure>, Never>] = [:]
    private var live: [String: (canary: Canary, authorityEnd: Int64)] = [:]
    /// Authorities whose next CRL `run` or `issueDue` has begun to issue.
    private var inFlight: Set<String> = []
    /// Failures of `run`, and when each authority is retried (monotonic, in microseconds).
    private var failed: [String: (failure: CRLFailure, until: Int64)] = [:]
    /// When the last CRL of each authority was issued (monotonic, in microseconds).
    private var issuedAt: [String: Int64] = [:]

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - distributionPoint: of canaries, as in devices' certificates: EMQX fetches CRLs from there only.
    ///   - executor: the service's thread; the caller wakes it when a CRL becomes due.
    ///   - clock: the log's.
    ///   - wall: the wall clock; nil: it is the log's.
    public init(
        registry: DeciderService<CertificateRegistry>, keys: AuthorityKeys, policy: CRLPolicy,
        distributionPoint: @escaping @Sendable (_ authority: String) -> String? = { _ in nil },
        executor: ThreadExecutor, clock: @escaping @Sendable () -> Timestamp,
        wall: (@Sendable () -> Timestamp)? = nil
    ) {
        self.wall = wall ?? clock
        (self.registry, self.keys, self.policy, self.clock) = (registry, keys, policy, clock)
        self.distributionPoint = distributionPoint
        self.executor = executor
    }

    /// After a failed attempt.
    private static let pauseMicroseconds: Int64 = 10_000_000
    /// Between two CRLs of an authority, at least.
    private static let spacingMicroseconds: Int64 = 1_000_000
    /// The monotonic clock stops while a machine is suspended, so that a wait may end late.
    private static let restMillisecondsMax: Int64 = 60_000

    /// Issues CRLs as they become due, until the task is cancelled. A sign command that hangs holds up its own
    /// authority only: the others' CRLs are issued, and published, meanwhile.
    /// - Parameters:
    ///   - publish: called with each that was issued.
    ///   - report: called after each attempt with what fails at present: nothing when all goes well.
    public func run(
        publish: @escaping @Sendable (PublishedCRL) async -> Void, report: @escaping @Sendable ([any Error]) -> Void
    ) async {
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                while !Task.isCancelled {
                    var next: Timestamp?
                    do {
                        let now = SystemTime.monotonicMicroseconds()
                        for authority in try await takeDue({ notBefore($0) <= now }) {
                            group.addTask { await self.issueTaken(authority, publish, report) }
                        }
                        report(failures)
                        next = try await nextDue()
                    } catch {
                        report([error])
                        next = clock().adding(microseconds: Self.pauseMicroseconds)
                    }
                    if Task.isCancelled { return }
                    let left =
                        next.map { $0.microseconds.saturatingSubtracting(clock().microseconds) / 1_000 + 1 } ?? .max
                    executor.rest(milliseconds: Int(max(1, min(left, Self.restMillisecondsMax))))
                    await Task.yield()
                }
            }
        } onCancel: { [executor] in
            executor.wake()
        }
    }

    private func issueTaken(
        _ authority: String, _ publish: @Sendable (PublishedCRL) async -> Void,
        _ report: @Sendable ([any Error]) -> Void
    ) async {
        do throws(CRLFailure) {
            await publish(try await issue(authority))
        } catch {
            failed[authority] = (error, SystemTime.monotonicMicroseconds() + Self.pauseMicroseconds)
        }
        inFlight.remove(authority)
        report(failures)
        executor.wake()
    }

    private var failures: [CRLFailure] { failed.sorted { $0.key < $1.key }.map(\.value.failure) }

    /// The last CRL of an authority, also while the next one waits. Made again from the record where it is not in
    /// memory.
    /// - Throws: `PKIError`; as `DeciderService.query`.
    public func current(_ authority: String) async throws -> PublishedCRL? {
        let found = try await registry.query { registry in
            registry.authority(authority).flatMap { authority in
                authority.lastCRL.map { (event: $0, at: authority.lastCRLAt, draft: authority.lastDraft) }
            }
        }
        guard let found else { return nil }
        if let known = published[authority], known.event == found.event { return known }
        guard let draft = found.draft else { return nil }
        let crl = PublishedCRL(
            event: found.event, list: try Self.rebuild(found.event, draft), issuedAt: found.at, canary: nil)
        published[authority] = crl
        return crl
    }

    /// Issues the CRLs that are due, all at once, and returns when the last one is done.
    /// - Returns: those that were issued, and why others were not.
    package func issueDue() async throws -> (issued: [PublishedCRL], failures: [CRLFailure]) {
        let due = try await takeDue { _ in true }
        defer { inFlight.subtract(due) }
        var issued: [PublishedCRL] = [], failures: [CRLFailure] = []
        for (_, task) in due.map({ authority in (authority, Task { try await issue(authority) }) }) {
            switch await task.result {
            case .success(let crl): issued.append(crl)
            case .failure(let error): if let failure = error as? CRLFailure { failures.append(failure) }
            }
        }
        return (issued, failures)
    }

    /// Marks the authorities whose CRL is due and not in flight as in flight, and returns them for the caller to issue.
    private func takeDue(_ isMeant: (String) -> Bool) async throws -> [String] {
        let now = clock(), policy = policy
        let due = try await registry.query { registry in
            registry.crlsDue(policy, now: now).filter { $0.due <= now }.map(\.authority)
        }
        failed = failed.filter { due.contains($0.key) }
        let taken = due.filter { !inFlight.contains($0) && isMeant($0) }
        inFlight.formUnion(taken)
        return taken
    }

    /// When `run` may issue the next CRL: by the monotonic clock at most one a second, also while the log's clock and
    /// the wall clock differ.
    private func notBefore(_ authority: String) -> Int64 {
        max(failed[authority]?.until ?? 0, issuedAt[authority].map { $0 + Self.spacingMicroseconds } ?? 0)
    }

    /// When the next CRL is due, or to be tried again; nil: never, or once an attempt has ended.
    func nextDue() async throws -> Timestamp? {
        let now = clock(), policy = policy
        let due = try await registry.query { registry in
            registry.crlsDue(policy, now: now)
        }
        let monotonic = SystemTime.monotonicMicroseconds()
        return due.filter { !inFlight.contains($0.authority) }.map { authority, due in
            max(due, now.adding(microseconds: max(0, notBefore(authority) - monotonic)))
        }
        .min()
    }

    /// Attempts while certificates are revoked in between.
    private static let attemptsMax = 20

    /// Issues the next CRL of an authority, due or not. Calls follow one another: two drafts at once would each lack
    /// the other's canary.
    public func issue(_ authority: String) async throws(CRLFailure) -> PublishedCRL {
        try await issue(authority, after: nil)
    }

    /// - Parameter number: of a CRL that cannot be proved any more. A newer one that has a canary, and that was issued
    ///   for another broker meanwhile, is as good.
    public func issue(_ authority: String, after number: UInt64?) async throws(CRLFailure) -> PublishedCRL {
        let before = issuing[authority]
        let task = Task { () -> Result<PublishedCRL, CRLFailure> in
            _ = await before?.value
            if let number, let newer = published[authority], newer.event.number > number, newer.canary != nil {
                return .success(newer)
            }
            do throws(CRLFailure) {
                return .success(try await next(authority))
            } catch {
                return .failure(error)
            }
        }
        issuing[authority] = task
        return try await task.value.get()
    }

    private func next(_ authority: String) async throws(CRLFailure) -> PublishedCRL {
        var last: CRLIssued?
        do {
            for _ in 0..<Self.attemptsMax {
                if let crl = try await attempt(authority, &last) {
                    published[authority] = crl
                    failed[authority] = nil
                    issuedAt[authority] = SystemTime.monotonicMicroseconds()
                    return crl
                }
            }
            throw PKIError(.invalid, "certificates were revoked faster than CRLs can be signed")
        } catch {
            throw CRLFailure(
                authority: authority, thisUpdate: last?.thisUpdate, nextUpdate: last?.nextUpdate, reason: "\(error)")
        }
    }

    /// Nil: a certificate was revoked or released meanwhile.
    private func attempt(_ authority: String, _ last: inout CRLIssued?) async throws -> PublishedCRL? {
        let now = clock(), start = wall(), policy = policy
        guard let added = try await registry.query({ $0.authority(authority) }) else {
            throw PKIError(.invalid, "there is no such authority")
        }
        last = added.lastCRL
        guard now <= added.added.notAfter else {
            throw PKIError(.invalid, "it expired at \(added.added.notAfter); brokers accept no client of it")
        }
        let issuer = try CertificateIssuer(
            certificate: Certificate(added.added), signer: keys.signer(for: added.added))
        let point = distributionPoint(authority)
        let canary = try await onOwnThread("sign") {
            try Canary(
                by: issuer, chain: added.added.pem, policy, distributionPoint: point, now: now, start: start,
                key: .generate(.p256), serial: .random())
        }
        guard
            let draft = try await registry.query({ [canary = canary.named] registry in
                registry.draftCRL(authority, canary: canary, policy, now: now, start: start)
            })
        else {
            throw PKIError(.invalid, "it issues no CRLs")
        }
        // Meanwhile the CRL before is served.
        let crl = try await onOwnThread("sign") { try SignedCRL(draft, by: issuer) }
        if let problem = try await problem(with: crl, issuer.certificate) {
            // Once on the record, not at every attempt.
            if added.refused?.reason != problem { _ = try await execute(.refuseCRL(crl.refusal(problem)), draft) }
            throw PKIError(.untrusted, problem)
        }
        let event = crl.event
        switch try await execute(.issueCRL(event), draft) {
        case .accepted: return PublishedCRL(event: event, list: crl.list, issuedAt: now, canary: canary)
        case .rejected(_, .outdated, _): return nil
        case .rejected(_, _, let reason): throw PKIError(.invalid, reason)
        }
    }

    /// `liveCanary` need not sign one.
    public func hasLiveCanary(_ authority: String) -> Bool { knownLiveCanary(authority, clock()) != nil }

    private func knownLiveCanary(_ authority: String, _ now: Timestamp) -> Canary? {
        live[authority].flatMap { canary, authorityEnd in
            let hasBegun = canary.certificate.notBefore <= min(now, wall()).wholeSeconds
            let end = canary.certificate.notAfter, left = end.saturatingSubtracting(now.wholeSeconds)
            // No canary outlives its authority.
            return hasBegun && left > (end == authorityEnd ? 0 : policy.canarySeconds / 2) ? canary : nil
        }
    }

    /// A certificate that no CRL lists, to see that brokers accept live ones.
    public func liveCanary(_ authority: String) async throws -> Canary {
        let now = clock(), start = wall()
        if let canary = knownLiveCanary(authority, now) { return canary }
        guard let added = try await registry.query({ $0.authority(authority)?.added }) else {
            throw PKIError(.invalid, "there is no authority \(authority)")
        }
        let issuer = try CertificateIssuer(certificate: Certificate(added), signer: keys.signer(for: added))
        let point = distributionPoint(authority)
        let canary = try await onOwnThread("sign") { [policy] in
            try Canary(
                by: issuer, chain: added.pem, policy, distributionPoint: point, now: now, start: start,
                key: .generate(.p256), serial: .random())
        }
        live[authority] = (canary, added.notAfter.wholeSeconds)
        return canary
    }

    private func execute(_ command: RegistryCommand, _ draft: CRLDraft) async throws -> RegistryAnswer {
        try await registry.execute(
            RegistryRequest(tenantID: draft.authority.tenantID, actor: EngineActor.name, command: command))
    }

    /// Why a signed CRL must not be published; nil: nothing.
    private func problem(with crl: SignedCRL, _ issuer: Certificate) async throws -> String? {
        let before: RevocationList?
        do {
            try crl.list.verify(signedBy: issuer)
            before = try await current(crl.draft.authority.id)?.list
        } catch let error as PKIError {
            return error.description
        }
        return try await registry.query { crl.problem(after: before, $0) }
    }

    /// The bytes of a CRL on the record.
    /// - Throws: `PKIError`: they are not those that were published.
    public static func rebuild(_ event: CRLIssued, _ draft: CRLDraft) throws(PKIError) -> RevocationList {
        let what = "CRL \(event.number) of \(event.authority)"
        let issuer = try Certificate(draft.authority)
        guard let signature = Base64.decode(event.signature.utf8),
            let algorithm = issuer.publicKey.signatureAlgorithm
        else { throw PKIError(.malformed, "\(what): its signature on the record cannot be read") }
        let tbs = try CRLBuilder.tbs(
            issuer: issuer, number: event.number, thisUpdate: event.thisUpdate.wholeSeconds,
            nextUpdate: event.nextUpdate.wholeSeconds, entries: draft.entries, signatureAlgorithm: algorithm)
        let list = try RevocationList(
            der: CRLBuilder.assemble(tbs: tbs, signatureAlgorithm: algorithm, signature: signature), what: what)
        guard SHA256.digest(list.der).description == event.sha256 else {
            throw PKIError(
                .untrusted, "\(what): the entries on the record do not make the list that was signed; verify the log")
        }
        return list
    }
}
