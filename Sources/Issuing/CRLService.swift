import Certificates
import Deciding
import Decisions
import EventModel
import PKI
import Primitives
import Threading

/// The certificate whose refusal proves that a CRL is in force: the CRL lists it. Its key is in memory only.
public struct Canary: Sendable {
    public let certificate: Certificate
    public let key: PrivateKey
}

/// A CRL that is on the record.
public struct PublishedCRL: Sendable {
    public let event: CRLIssued
    public let list: RevocationList
    /// Of its event.
    public let issuedAt: Timestamp
    /// Nil after a restart: its key is gone. The next CRL has one again.
    public let canary: Canary?
}

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
    private let executor: ThreadExecutor
    var published: [String: PublishedCRL] = [:]
    /// The last call of `issue` for each authority.
    private var issuing: [String: Task<Result<PublishedCRL, CRLFailure>, Never>] = [:]
    private var live: [String: Canary] = [:]
    /// Authorities whose next CRL `run` or `issueDue` has begun to issue.
    private var inFlight: Set<String> = []
    /// Of `run`, until when each is left alone.
    private var failed: [String: (failure: CRLFailure, until: Timestamp)] = [:]

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - distributionPoint: of canaries, as in devices' certificates: EMQX fetches CRLs from there only.
    ///   - executor: the service's thread; the caller wakes it when a CRL becomes due.
    public init(
        registry: DeciderService<CertificateRegistry>, keys: AuthorityKeys, policy: CRLPolicy,
        distributionPoint: @escaping @Sendable (_ authority: String) -> String? = { _ in nil },
        executor: ThreadExecutor, clock: @escaping @Sendable () -> Timestamp
    ) {
        (self.registry, self.keys, self.policy, self.clock) = (registry, keys, policy, clock)
        self.distributionPoint = distributionPoint
        self.executor = executor
    }

    /// After a failure.
    private static let pauseMicroseconds: Int64 = 10_000_000
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
                        let now = clock()
                        for authority in try await takeDue({ failed[$0].map { $0.until <= now } ?? true }) {
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
            failed[authority] = (error, clock().adding(microseconds: Self.pauseMicroseconds))
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
    func issueDue() async throws -> (issued: [PublishedCRL], failures: [CRLFailure]) {
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

    /// Authorities whose next CRL is due and that nobody issues one for at present: it is the caller's to issue.
    private func takeDue(_ isMeant: (String) -> Bool) async throws -> [String] {
        let now = clock(), policy = policy
        let due = try await registry.query { registry in
            Self.live(registry, now).filter { registry.crlDue($0, policy).map { $0 <= now } ?? false }
        }
        failed = failed.filter { due.contains($0.key) }
        let taken = due.filter { !inFlight.contains($0) && isMeant($0) }
        inFlight.formUnion(taken)
        return taken
    }

    /// When the next CRL is due, or to be tried again; nil: never, or once an attempt has ended.
    func nextDue() async throws -> Timestamp? {
        let now = clock(), policy = policy
        let due = try await registry.query { registry in
            Self.live(registry, now).compactMap { id in registry.crlDue(id, policy).map { (id, $0) } }
        }
        return due.filter { !inFlight.contains($0.0) }.map { max($0.1, failed[$0.0]?.until ?? $0.1) }.min()
    }

    /// Authorities that have not expired. Nothing that the others issued is accepted anywhere, and no CRL of theirs.
    private static func live(_ registry: CertificateRegistry, _ now: Timestamp) -> [String] {
        registry.authorities.map(\.added).filter { now <= $0.notAfter }.map(\.id)
    }

    /// Attempts while certificates are revoked in between.
    private static let attemptsMax = 20

    /// Issues the next CRL of an authority, due or not. Calls follow one another: two drafts at once would each lack
    /// the other's canary.
    public func issue(_ authority: String) async throws(CRLFailure) -> PublishedCRL {
        let before = issuing[authority]
        let task = Task { () -> Result<PublishedCRL, CRLFailure> in
            _ = await before?.value
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
        let now = clock(), policy = policy
        guard let added = try await registry.query({ $0.authority(authority) }) else {
            throw PKIError(.invalid, "there is no such authority")
        }
        last = added.lastCRL
        let issuer = try CertificateIssuer(
            certificate: Certificate(added.added), signer: keys.signer(for: added.added))
        let point = distributionPoint(authority)
        let canary = try await onOwnThread("sign") { try Self.canary(issuer, policy, point, now) }
        let named = CRLIssued.Canary(
            serial: canary.certificate.serial.description, notAfter: Timestamp(seconds: canary.certificate.notAfter))
        guard let draft = try await registry.query({ $0.draftCRL(authority, canary: named, policy, now: now) }) else {
            throw PKIError(.invalid, "it issues no CRLs")
        }
        // Meanwhile the CRL before is served.
        let list = try await onOwnThread("sign") {
            try RevocationList(
                der: try issuer.crl(
                    number: draft.number, thisUpdate: draft.thisUpdate.wholeSeconds,
                    nextUpdate: draft.nextUpdate.wholeSeconds, entries: draft.entries),
                what: "CRL \(draft.number) of \(authority)")
        }
        if let problem = try await problem(with: list, draft, issuer.certificate) {
            // Once on the record, not at every attempt.
            if added.refused?.reason != problem {
                let refused = CRLRefused(
                    authority: authority, tenantID: draft.authority.tenantID, number: draft.number, reason: problem,
                    actor: "")
                _ = try await execute(.refuseCRL(refused), draft)
            }
            throw PKIError(.untrusted, problem)
        }
        let event = CRLIssued(
            authority: authority, tenantID: draft.authority.tenantID, number: draft.number,
            thisUpdate: draft.thisUpdate, nextUpdate: draft.nextUpdate, entries: Int64(draft.entries.count),
            canary: named, tbsSHA256: SHA256.digest(list.tbs).description,
            signature: Base64.encode(list.signature), sha256: SHA256.digest(list.der).description,
            end: draft.end.rawValue, actor: EngineActor.name)
        switch try await execute(.issueCRL(event), draft) {
        case .accepted: return PublishedCRL(event: event, list: list, issuedAt: now, canary: canary)
        case .rejected(_, .outdated, _): return nil
        case .rejected(_, _, let reason): throw PKIError(.invalid, reason)
        }
    }

    /// `liveCanary` need not sign one.
    public func hasLiveCanary(_ authority: String) -> Bool { knownLiveCanary(authority, clock()) != nil }

    private func knownLiveCanary(_ authority: String, _ now: Timestamp) -> Canary? {
        live[authority].flatMap {
            $0.certificate.notAfter - now.wholeSeconds > policy.canarySeconds / 2 ? $0 : nil
        }
    }

    /// A certificate that no CRL lists, to see that brokers accept live ones.
    public func liveCanary(_ authority: String) async throws -> Canary {
        let now = clock()
        if let canary = knownLiveCanary(authority, now) { return canary }
        guard let added = try await registry.query({ $0.authority(authority)?.added }) else {
            throw PKIError(.invalid, "there is no authority \(authority)")
        }
        let issuer = try CertificateIssuer(certificate: Certificate(added), signer: keys.signer(for: added))
        let point = distributionPoint(authority)
        let canary = try await onOwnThread("sign") { [policy] in try Self.canary(issuer, policy, point, now) }
        live[authority] = canary
        return canary
    }

    private func execute(_ command: RegistryCommand, _ draft: CRLDraft) async throws -> RegistryAnswer {
        try await registry.execute(
            RegistryRequest(tenantID: draft.authority.tenantID, actor: EngineActor.name, command: command))
    }

    /// Why a signed CRL must not be published; nil: nothing. OpenSSL has parsed it.
    private func problem(
        with list: RevocationList, _ draft: CRLDraft, _ issuer: Certificate
    ) async throws -> String? {
        let before: RevocationList?
        do {
            try list.verify(signedBy: issuer)
            before = try await current(draft.authority.id)?.list
        } catch let error as PKIError {
            return error.description
        }
        guard list.number == draft.number, list.thisUpdate == draft.thisUpdate.wholeSeconds,
            list.nextUpdate == draft.nextUpdate.wholeSeconds, list.entries == draft.entries
        else { return "OpenSSL reads other numbers, times or entries in the CRL \(draft.number) than were written" }
        guard let before else { return nil }
        let differences = list.differences(from: before)
        return try await registry.query { registry in
            registry.unexplained(differences, draft)
        }
    }

    private static func canary(
        _ issuer: CertificateIssuer, _ policy: CRLPolicy, _ distributionPoint: String?, _ now: Timestamp
    ) throws(PKIError) -> Canary {
        let key = try PrivateKey.generate(.p256), seconds = now.wholeSeconds
        let profile = CertificateProfile(
            .tlsClient, subject: try DistinguishedName(commonName: "refold-canary"),
            notBefore: seconds.saturatingSubtracting(policy.backdateSeconds * 60),
            notAfter: min(seconds.saturatingAdding(policy.canarySeconds), issuer.certificate.notAfter),
            crlDistributionPoint: distributionPoint)
        return Canary(
            certificate: try issuer.issue(profile, publicKey: key.publicKey, serial: .random()), key: key)
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
