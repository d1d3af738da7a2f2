import Certificates
import Deciding
import Decisions
import EventModel
import Issuing
import PKI
import Primitives
import Synchronization
import Threading

/// A broker where CRLs are put in force.
public struct EnforcedBroker: Sendable {
    public var name: String
    /// Nil: the broker fetches CRLs over HTTP.
    public var file: CRLFile?
    /// Nil: the broker reads the file by itself, or fetches CRLs over HTTP.
    public var reload: ReloadCommand?
    /// Nil: nothing is proved.
    public var probe: CanaryProbe?
    /// Nil: clients stay connected until they reconnect.
    public var cutting: ClientCutting?

    public init(
        name: String, file: CRLFile?, reload: ReloadCommand?, probe: CanaryProbe?, cutting: ClientCutting?
    ) {
        (self.name, self.file, self.reload, self.probe, self.cutting) = (name, file, reload, probe, cutting)
    }
}

/// What a round of an enforcer could not do.
public struct EnforcementProblems: Sendable, Equatable {
    /// Why the newest CRLs are not proved to be in force.
    public var unproved: String?
    /// Why clients of revoked certificates are not disconnected, or bans not lifted.
    public var uncut: String?
}

/// Puts every CRL in force at one broker, proves it, and disconnects the clients of the certificates that it revokes:
/// WRITTEN → RELOADED → PROVED → CUT, each step on the record. Between CRLs it proves the last one again every
/// minute. Nothing is reloaded before the whole file is on disk, and no client is cut before the proof: it would
/// connect again.
///
/// At a broker that fetches CRLs by itself (EMQX), clients are banned and kicked first. Bans end with the proof.
public actor CRLEnforcer {
    let broker: EnforcedBroker
    let registry: DeciderService<CertificateRegistry>
    private let crls: CRLService
    private let clock: @Sendable () -> Timestamp
    private let executor: ThreadExecutor
    /// Empty after a start: files are written and CRLs proved again.
    var states: [String: AuthorityState] = [:]
    /// CRL numbers of the present round, by authority.
    private var seen: [String: UInt64] = [:]
    /// Authorities that sign canaries at present, and those that could not.
    private var preparing: Set<String> = []
    private var unprepared: [String: String] = [:]
    private let proofMicroseconds: Int64
    let stopping = Stopping()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// How far an authority's CRLs have come. Times are monotonic, in microseconds.
    struct AuthorityState {
        /// CRL number that the file has.
        var written: UInt64?
        var provedAt: Int64?
        /// The last proof.
        var hasFailed = false
        /// The CRL in force, and the `end` of its entries.
        var proof: (number: UInt64, end: UInt64)?
        /// The CRL that a broker which fetches CRLs is to have fetched, and since when. It stays until it is proved:
        /// CRLs may be issued faster than the broker fetches them.
        var target: (crl: PublishedCRL, since: Int64)?
        var retry: CutRetry?
    }

    private static let betweenProbesMilliseconds = 20
    private static let betweenProbesMillisecondsMax = 500
    private static let standingProofMicroseconds: Int64 = 60_000_000
    private static let retryMilliseconds = 5_000
    private static let restMilliseconds = 60_000
    /// Between probes of a CRL that the broker is to fetch, and how late it may be.
    private static let fetchProbeMilliseconds = 15_000
    private static let fetchMarginMicroseconds: Int64 = 60_000_000

    /// - Parameter proofSeconds: time for a broker to read a CRL that it was told to reload.
    public init(
        _ broker: EnforcedBroker, registry: DeciderService<CertificateRegistry>, crls: CRLService,
        proofSeconds: Int64 = 5, clock: @escaping @Sendable () -> Timestamp
    ) {
        proofMicroseconds = proofSeconds * 1_000_000
        (self.broker, self.registry, self.crls, self.clock) = (broker, registry, crls, clock)
        executor = ThreadExecutor(name: "crl-\(broker.name)")
    }

    /// Another CRL was issued, or a certificate revoked.
    public nonisolated func wake() { executor.wake() }

    /// Until the task is cancelled.
    /// - Parameter report: called after each round with what went wrong.
    public func run(report: @escaping @Sendable (EnforcementProblems) -> Void) async {
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                var problems: EnforcementProblems
                do {
                    problems = try await round()
                } catch {
                    problems = EnforcementProblems(unproved: "\(error)")
                }
                if Task.isCancelled { return }
                report(problems)
                // What was issued while this one waited for a proof comes first.
                if await !isBehind() { executor.rest(milliseconds: restMilliseconds(problems)) }
                await Task.yield()
            }
        } onCancel: { [executor, stopping] in
            stopping.begin()
            executor.wake()
        }
    }

    private func restMilliseconds(_ problems: EnforcementProblems) -> Int {
        var rest = problems.unproved == nil ? Self.restMilliseconds : Self.retryMilliseconds
        let isWaiting = states.values.contains { $0.target.map { $0.crl.event.number } != $0.proof?.number }
        if bans, isWaiting || problems.uncut != nil {
            rest = min(rest, Self.fetchProbeMilliseconds)
        }
        let now = SystemTime.monotonicMicroseconds()
        for retry in states.values.compactMap(\.retry) { rest = min(rest, max(1, Int((retry.at - now) / 1_000))) }
        return rest
    }

    /// Writes, reloads, proves and cuts what is not done yet.
    /// - Returns: what went wrong; the round is repeated then.
    func round() async throws -> EnforcementProblems {
        var current: [PublishedCRL] = [], problems: [String] = [], uncut: [String] = []
        let now = clock()
        // A ban waits for no CRL, not even for the authority's key.
        if bans { uncut += try await ban() }
        let authorities = try await registry.query { registry in
            registry.authorities.compactMap { authority in
                authority.lastCRL.map { (authority.added.id, now <= authority.added.notAfter, $0.number) }
            }
        }
        seen = Dictionary(uniqueKeysWithValues: authorities.map { ($0.0, $0.2) })
        for (id, _, _) in authorities {
            guard let crl = try await crls.current(id) else { continue }
            current.append(crl)
            seen[id] = crl.event.number
        }
        let isNew = current.contains { states[$0.event.authority]?.written != $0.event.number }
        if isNew, let problem = try await write(current) {
            problems.append(problem)
        } else {
            // Brokers accept no client of an expired authority.
            let live = Set(authorities.filter(\.1).map(\.0))
            problems += try await prove(current.filter { live.contains($0.event.authority) }, &uncut)
        }
        for authority in states.keys.sorted() { uncut += try await finish(authority) }
        func joined(_ texts: [String]) -> String? {
            texts.isEmpty ? nil : Set(texts).sorted().joined(separator: "; ")
        }
        return EnforcementProblems(unproved: joined(problems), uncut: joined(uncut))
    }

    /// A CRL was issued since the round began.
    func isBehind() async -> Bool {
        let numbers = try? await registry.query { registry in
            registry.authorities.compactMap { authority in authority.lastCRL.map { (authority.added.id, $0.number) } }
        }
        return numbers?.contains { seen[$0.0] != $0.1 } ?? false
    }

    private func write(_ crls: [PublishedCRL]) async throws -> String? {
        do throws(CRLFileError) {
            _ = try broker.file?.write(crls.map(\.list.der))
        } catch {
            // Without a reload: a broker that reads a damaged file accepts everyone (Mosquitto 2.0), or ends (2.1).
            return try await unproved(crls, "\(error)")
        }
        for crl in crls { try await record(.written, crl.event) }
        if let reload = broker.reload, let path = broker.file?.path {
            do throws(ReloadError) {
                try reload.run(crlPath: path, broker: broker.name) { [stopping] in stopping.hasBegun }
            } catch {
                return try await unproved(crls, "\(error)")
            }
            for crl in crls { try await record(.reloaded, crl.event) }
        }
        for crl in crls {
            states[crl.event.authority, default: AuthorityState()].written = crl.event.number
            states[crl.event.authority]?.provedAt = nil
        }
        return nil
    }

    // MARK: Proof

    private enum Proof {
        case proved
        /// The broker has not fetched the CRL yet, and need not have.
        case waiting
        case problem(String)
    }

    /// - Returns: why CRLs are not proved.
    private func prove(_ crls: [PublishedCRL], _ uncut: inout [String]) async throws -> [String] {
        guard let probe = broker.probe else { return [] }
        var problems: [String] = []
        // Those that failed last wait for their whole time: the others do not wait for them.
        func hasFailed(_ crl: PublishedCRL) -> Bool { states[crl.event.authority]?.hasFailed ?? false }
        for newest in crls.filter({ !hasFailed($0) }) + crls.filter(hasFailed) {
            let authority = newest.event.authority, now = SystemTime.monotonicMicroseconds()
            let crl = bans ? target(newest, now) : newest
            if let last = states[authority]?.provedAt, now - last < Self.standingProofMicroseconds { continue }
            guard await isPrepared(crl) else {
                if let problem = unprepared[authority] { problems.append(try await unproved([crl], problem)) }
                continue
            }
            switch try await bans ? fetched(crl, probe) : proof(of: crl, probe) {
            case .waiting: break
            case .proved:
                states[authority, default: AuthorityState()].provedAt = SystemTime.monotonicMicroseconds()
                states[authority]?.proof = (crl.event.number, crl.event.end)
                states[authority]?.hasFailed = false
                try await record(.proved, crl.event, issuedAt: crl.issuedAt)
                uncut += try await finish(authority)
                if await isBehind() { return problems }
            case .problem(let problem):
                // The broker may have another file, or have missed the reload: both are done again.
                states[authority] = AuthorityState(
                    hasFailed: true, target: states[authority]?.target, retry: states[authority]?.retry)
                problems.append(try await unproved([crl], problem))
                if await isBehind() { return problems }
            }
        }
        return problems
    }

    /// Whether the broker refuses the CRL's canary as revoked, and accepts a live one, before the deadline.
    private func proof(of crl: PublishedCRL, _ probe: CanaryProbe) async throws -> Proof {
        let end = SystemTime.monotonicMicroseconds() + proofMicroseconds
        var pause = Self.betweenProbesMilliseconds, problem: String
        repeat {
            if stopping.hasBegun { return .problem("stopped before it was proved") }
            guard let found = try await self.problem(with: crl, probe) else { return .proved }
            problem = found.text
            if await isBehind() { break }
            executor.rest(milliseconds: pause)
            pause = min(pause * 2, Self.betweenProbesMillisecondsMax)
        } while SystemTime.monotonicMicroseconds() < end
        return .problem(problem)
    }

    /// The same at a broker that fetches CRLs when it wants to. While it accepts the canary it is only late.
    private func fetched(_ crl: PublishedCRL, _ probe: CanaryProbe) async throws -> Proof {
        let authority = crl.event.authority
        // Such a broker refuses an expired canary as expired. The proof from before holds.
        if !isCanaryValid(crl) { return try await liveProblem(authority, probe).map { .problem($0) } ?? .proved }
        guard let found = try await problem(with: crl, probe) else { return .proved }
        let waited = SystemTime.monotonicMicroseconds() - (states[authority]?.target?.since ?? 0)
        let refresh = Int64(broker.cutting?.refreshSeconds ?? 0) * 1_000_000
        return found.isLate && waited < refresh + Self.fetchMarginMicroseconds ? .waiting : .problem(found.text)
    }

    private func target(_ newest: PublishedCRL, _ now: Int64) -> PublishedCRL {
        let authority = newest.event.authority, state = states[authority] ?? AuthorityState()
        if let target = state.target {
            let number = target.crl.event.number, isProved = state.proof?.number == number
            if number == newest.event.number || !isProved && isCanaryValid(target.crl) { return target.crl }
        }
        states[authority, default: AuthorityState()].target = (newest, now)
        states[authority]?.provedAt = nil
        return newest
    }

    private func isCanaryValid(_ crl: PublishedCRL) -> Bool {
        crl.canary.map { clock().wholeSeconds < $0.certificate.notAfter } ?? false
    }

    /// Whether the CRL's canary and a live one can be shown to the broker. Otherwise they are signed beside the
    /// rounds: a sign command that hangs holds up its own authority only. The canary of a CRL from before the start is
    /// gone: the next CRL has one again.
    private func isPrepared(_ crl: PublishedCRL) async -> Bool {
        let authority = crl.event.authority, isProved = states[authority]?.proof?.number == crl.event.number
        let hasCanary = bans && !isProved ? isCanaryValid(crl) : crl.canary != nil
        if hasCanary, await crls.hasLiveCanary(authority) { return true }
        guard preparing.insert(authority).inserted else { return false }
        Task {
            do {
                if !hasCanary { _ = try await crls.issue(authority) }
                _ = try await crls.liveCanary(authority)
                unprepared[authority] = nil
                executor.wake()
            } catch {
                // The next round tries again.
                unprepared[authority] = "\(error)"
            }
            preparing.remove(authority)
        }
        return false
    }

    /// Nil: the broker refuses the CRL's canary as revoked, and accepts a live one. `isLate`: it accepts the canary.
    private func problem(
        with crl: PublishedCRL, _ probe: CanaryProbe
    ) async throws -> (text: String, isLate: Bool)? {
        let number = crl.event.number
        guard let canary = crl.canary else { return ("the canary of the CRL \(number) is gone", false) }
        switch probe.perform(try canary.identity(), clientID: "refold-canary-revoked") {
        case .refused(.certificateRevoked): return try await liveProblem(crl.event.authority, probe).map { ($0, false) }
        case .accepted: return ("the broker still accepts a certificate that the CRL \(number) revokes", true)
        case let outcome: return ("the canary of the CRL \(number) was not refused as revoked: \(outcome)", false)
        }
    }

    private func liveProblem(_ authority: String, _ probe: CanaryProbe) async throws -> String? {
        let live = try await crls.liveCanary(authority)
        let outcome = probe.perform(try live.identity(), clientID: "refold-canary-live")
        if outcome == .accepted { return nil }
        return "the broker refuses a live certificate of \(authority) (\(outcome)): devices are locked out"
    }

    // MARK: Record

    private func unproved(_ crls: [PublishedCRL], _ problem: String) async throws -> String {
        for crl in crls { try await record(.unproved, crl.event, error: problem) }
        return problem
    }

    func record(
        _ step: CRLEnforced.Step, _ crl: CRLIssued, issuedAt: Timestamp? = nil, error: String? = nil
    ) async throws {
        let key = EnforcementKey(broker: broker.name, authority: crl.authority)
        let known = try await registry.query { $0.enforcements[key] }
        switch step {
        // A file that is written again, after a start or a failure, is no news.
        case .written: if let known, known.written >= crl.number { return }
        case .reloaded: if let known, known.reloaded >= crl.number { return }
        case .proved: if let known, known.proved >= crl.number, known.error == nil { return }
        case .unproved: if let known, known.error == error { return }
        case .uncut: if let known, known.uncutError == error { return }
        }
        var event = CRLEnforced(
            step, broker: broker.name, authority: crl.authority, tenantID: crl.tenantID, number: crl.number, actor: "")
        event.error = error
        if step == .written, bans { event.bans = true }
        if step == .proved, let issuedAt {
            event.milliseconds = max(0, clock().microseconds.saturatingSubtracting(issuedAt.microseconds) / 1_000)
        }
        _ = try await registry.execute(
            RegistryRequest(tenantID: crl.tenantID, actor: EngineActor.name, command: .enforce(event)))
    }
}

/// Set once, from any thread.
final class Stopping: Sendable {
    private let flag = Mutex(false)

    var hasBegun: Bool { flag.withLock { $0 } }
    func begin() { flag.withLock { $0 = true } }
}

extension Canary {
    func identity() throws -> ClientIdentity {
        try ClientIdentity(certificatesPEM: try certificate.pem(), keyPEM: try key.pem())
    }
}
