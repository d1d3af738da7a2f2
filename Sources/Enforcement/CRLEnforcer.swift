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
    let clock: @Sendable () -> Timestamp
    private let executor: ThreadExecutor
    var steps: EnforcementSteps
    /// Cuts that failed, by authority.
    var retries: [String: CutRetry] = [:]
    /// CRL numbers of the present round, by authority.
    private var seen: [String: UInt64] = [:]
    /// When they expire.
    private var ends: [String: Timestamp] = [:]
    /// Authorities that sign canaries at present.
    private var preparing: Set<String> = []
    /// Why the others could not, and when they are tried again (monotonic, in microseconds).
    private var unprepared: [String: (problem: String, until: Int64)] = [:]
    /// Canaries were signed since the round began: authorities can be proved that had to wait.
    private var hasNewCanaries = false
    /// Proofs that failed last, by authority.
    private var failures: [String: String] = [:]
    private let proofMicroseconds: Int64
    let stopping = Stopping()
    /// Beats before each step.
    nonisolated let heartbeat = Heartbeat()

    /// A step hangs: `run` reports nothing meanwhile. Nil: none does.
    public nonisolated var overdueProblem: String? {
        heartbeat.overdueSeconds.map { seconds in
            "an enforcement step should have ended \(Int(seconds)) s ago"
                + (broker.file == nil ? "" : "; check the file system of crl_file")
        }
    }

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private static let betweenProbesMilliseconds = 20
    private static let betweenProbesMillisecondsMax = 500
    private static let retryMilliseconds = 5_000
    private static let restMilliseconds = 60_000
    /// Longest time of a step that disconnects nobody: commands are killed, and probes have time limits. A file system
    /// may hang.
    static let stepSecondsMax = 120
    /// Between probes of a CRL that the broker is to fetch.
    private static let fetchProbeMilliseconds = 15_000

    /// - Parameter proofSeconds: time for a broker to read a CRL that it was told to reload.
    public init(
        _ broker: EnforcedBroker, registry: DeciderService<CertificateRegistry>, crls: CRLService,
        proofSeconds: Int64 = 5, clock: @escaping @Sendable () -> Timestamp
    ) {
        proofMicroseconds = proofSeconds * 1_000_000
        (self.broker, self.registry, self.crls, self.clock) = (broker, registry, crls, clock)
        executor = ThreadExecutor(name: "crl-\(broker.name)")
        steps = EnforcementSteps(
            broker: broker.name, reloads: broker.reload != nil, proves: broker.probe != nil,
            fetches: broker.cutting?.isBan ?? false, proofMicroseconds: proofMicroseconds)
    }

    /// Another CRL was issued, or a certificate revoked.
    public nonisolated func wake() { executor.wake() }

    /// Until the task is cancelled.
    /// - Parameter report: called after each round with what went wrong.
    public func run(report: @escaping @Sendable (EnforcementProblems) -> Void) async {
        await withTaskCancellationHandler {
            var problems = EnforcementProblems()
            while !Task.isCancelled {
                var isBroken = false
                do {
                    heartbeat.beat(within: Self.stepSecondsMax)
                    problems = try await round()
                } catch {
                    problems.unproved = "\(error)"
                    isBroken = true
                }
                heartbeat.rest()
                if Task.isCancelled { return }
                report(problems)
                // What was issued or signed while this one waited for a proof comes first.
                let isDue = await isDueAgain()
                if isBroken || !isDue { executor.rest(milliseconds: restMilliseconds(problems)) }
                await Task.yield()
            }
        } onCancel: { [executor, stopping] in
            stopping.begin()
            executor.wake()
        }
    }

    private func restMilliseconds(_ problems: EnforcementProblems) -> Int {
        var rest = problems.unproved == nil ? Self.restMilliseconds : Self.retryMilliseconds
        if bans, steps.isWaiting || problems.uncut != nil {
            rest = min(rest, Self.fetchProbeMilliseconds)
        }
        let now = SystemTime.monotonicMicroseconds()
        for retry in retries.values {
            // The time has passed: the round ended before it retried this cut.
            let left = Int((retry.at - now) / 1_000)
            rest = min(rest, left > 0 ? left : Self.retryMilliseconds)
        }
        return rest
    }

    /// Writes, reloads, proves and cuts what is not done yet.
    /// - Returns: what went wrong; the round is repeated then.
    func round() async throws -> EnforcementProblems {
        var current: [PublishedCRL] = [], problems: [String] = [], uncut: [String] = []
        let now = clock()
        let authorities = try await registry.query { registry in
            registry.authorities.compactMap { authority in
                authority.lastCRL.map { (authority.added.id, authority.added.notAfter, $0.number) }
            }
        }
        seen = Dictionary(uniqueKeysWithValues: authorities.map { ($0.0, $0.2) })
        ends = Dictionary(uniqueKeysWithValues: authorities.map { ($0.0, $0.1) })
        // Bans need no CRL: they work also while the authority's key is missing.
        if bans { uncut += try await ban() }
        hasNewCanaries = false
        failures = failures.filter { ends[$0.key].map { now <= $0 } ?? false }
        for (id, _, _) in authorities {
            guard let crl = try await crls.current(id) else { continue }
            current.append(crl)
            seen[id] = crl.event.number
        }
        steps.begin(
            current, live: Set(authorities.filter { now <= $0.1 }.map(\.0)), now: SystemTime.monotonicMicroseconds(),
            isCanaryValid: isCanaryValid)
        // All at once, before one of the proofs takes its whole time.
        for crl in steps.toProve { await prepare(crl) }
        while let step = steps.next {
            heartbeat.beat(within: Self.stepSecondsMax)
            let outcome = try await perform(step, &uncut)
            var isProof = false
            if case .prove(let crl) = step {
                isProof = true
                note(outcome, of: crl.event.authority)
            } else if case .failed(let problem) = outcome {
                problems.append(problem)
            }
            let isOutdated = isProof ? await isDueAgain() : false
            let events = steps.finish(
                outcome, isOutdated: isOutdated, now: SystemTime.monotonicMicroseconds(), at: clock())
            do {
                for event in events { try await record(event) }
            } catch {
                steps.startAgain()
                throw error
            }
        }
        // Also of proofs that were not tried again, because the round was broken off.
        if problems.isEmpty { problems = Array(failures.values) }
        func joined(_ texts: [String]) -> String? {
            texts.isEmpty ? nil : Set(texts).sorted().joined(separator: "; ")
        }
        return EnforcementProblems(unproved: joined(problems), uncut: joined(uncut))
    }

    private func note(_ outcome: EnforcementSteps.Outcome, of authority: String) {
        switch outcome {
        case .failed(let problem), .unprepared(let problem): failures[authority] = problem
        case .done, .waiting, .abandoned: failures[authority] = nil
        case .interrupted: break
        }
    }

    /// A CRL was issued since the round began.
    func isBehind() async -> Bool {
        let numbers = try? await registry.query { registry in
            registry.authorities.compactMap { authority in authority.lastCRL.map { (authority.added.id, $0.number) } }
        }
        return numbers?.contains { seen[$0.0] != $0.1 } ?? false
    }

    private func isDueAgain() async -> Bool { await isBehind() || hasNewCanaries }

    private func perform(_ step: EnforcementSteps.Step, _ uncut: inout [String]) async throws
        -> EnforcementSteps.Outcome
    {
        switch step {
        case .write:
            do throws(CRLFileError) {
                _ = try broker.file?.write(steps.crls.map(\.list.der))
            } catch {
                return .failed(error.description)
            }
        case .reload:
            guard let path = broker.file?.path else { break }
            do throws(ReloadError) {
                try broker.reload?.run(crlPath: path, broker: broker.name) { [stopping] in stopping.hasBegun }
            } catch {
                return .failed(error.description)
            }
        case .prove(let crl):
            guard let probe = broker.probe else { break }
            guard await isPrepared(crl) else {
                // Repeats the last failure until the next canary is signed.
                let authority = crl.event.authority
                return (unprepared[authority]?.problem ?? failures[authority]).map { .unprepared($0) } ?? .waiting
            }
            return try await bans ? fetched(crl, probe) : proof(of: crl, probe)
        case .cut(let authority): uncut += try await finish(authority)
        }
        return .done
    }

    // MARK: Proof

    /// Whether the broker refuses the CRL's canary as revoked, and accepts a live one, before the deadline.
    private func proof(
        of crl: PublishedCRL, _ probe: CanaryProbe
    ) async throws -> EnforcementSteps.Outcome {
        let begin = SystemTime.monotonicMicroseconds(), end = begin + proofMicroseconds
        let isOverdue = steps.isOverdue(crl.event.authority, now: begin)
        var pause = Self.betweenProbesMilliseconds, problem: String
        repeat {
            if stopping.hasBegun { return .interrupted }
            guard let found = try await self.problem(with: crl, probe) else { return .done }
            if try await isAbandoned(crl, found) { return .abandoned }
            problem = found.text
            if !isOverdue {
                let isBehind = await isBehind()
                if isBehind || hasNewCanaries { return .interrupted }
            }
            executor.rest(milliseconds: pause)
            pause = min(pause * 2, Self.betweenProbesMillisecondsMax)
        } while SystemTime.monotonicMicroseconds() < end
        return .failed(problem)
    }

    /// The same at a broker that fetches CRLs when it wants to. While it accepts the canary it is only late.
    private func fetched(_ crl: PublishedCRL, _ probe: CanaryProbe) async throws -> EnforcementSteps.Outcome {
        let authority = crl.event.authority
        // Such a broker refuses an expired canary as expired. The proof from before holds.
        if !isCanaryValid(crl) {
            let found = EnforcementSteps.liveProblem(authority, try await probeLive(authority, probe))
            guard let found else { return .done }
            return try await isAbandoned(crl, found) ? .abandoned : .failed(found.text)
        }
        guard let found = try await problem(with: crl, probe) else { return .done }
        if try await isAbandoned(crl, found) { return .abandoned }
        return steps.fetchOutcome(
            found, of: crl, refreshSeconds: broker.cutting?.refreshSeconds ?? 0, now: SystemTime.monotonicMicroseconds()
        )
    }

    private func isCanaryValid(_ crl: PublishedCRL) -> Bool {
        crl.canary.map { clock().wholeSeconds < $0.certificate.notAfter } ?? false
    }

    private func hasCanary(_ crl: PublishedCRL) -> Bool {
        let end = ends[crl.event.authority] ?? Timestamp(microseconds: .max)
        return !steps.lacksCanary(crl, authorityEnd: end, at: clock())
    }

    /// Whether the CRL's canary and a live one can be shown to the broker.
    private func isPrepared(_ crl: PublishedCRL) async -> Bool {
        guard hasCanary(crl) else { return false }
        return await crls.hasLiveCanary(crl.event.authority)
    }

    /// Signs missing canaries in a task of its own: a sign command that hangs holds up its own authority only. The
    /// canary of a CRL from before the start is gone: the next CRL has one again.
    private func prepare(_ crl: PublishedCRL) async {
        let authority = crl.event.authority
        guard await !isPrepared(crl) else {
            unprepared[authority] = nil
            return
        }
        guard unprepared[authority].map({ $0.until <= SystemTime.monotonicMicroseconds() }) ?? true,
            preparing.insert(authority).inserted
        else { return }
        let hasCanary = hasCanary(crl)
        Task {
            do {
                if !hasCanary { _ = try await crls.issue(authority, after: crl.event.number) }
                _ = try await crls.liveCanary(authority)
                unprepared[authority] = nil
                hasNewCanaries = true
                executor.wake()
            } catch {
                // This job ends the executor's rest: without a pause the next round would sign at once.
                let pause = Int64(Self.retryMilliseconds) * 1_000
                unprepared[authority] = ("\(error)", SystemTime.monotonicMicroseconds() + pause)
            }
            preparing.remove(authority)
        }
    }

    private func problem(
        with crl: PublishedCRL, _ probe: CanaryProbe
    ) async throws -> EnforcementSteps.ProofProblem? {
        guard let canary = crl.canary else {
            return .init(text: "the CRL \(crl.event.number) has no canary since the restart; the next CRL has one")
        }
        let live = try await crls.liveCanary(crl.event.authority)
        return try EnforcementSteps.problem(with: crl.event) { which in
            switch which {
            case .revoked: probe.perform(try canary.identity(), clientID: "refold-canary-revoked")
            case .live: probe.perform(try live.identity(), clientID: "refold-canary-live")
            }
        }
    }

    /// After a rotation brokers need not trust the old authority any more. That proves nothing, and nothing is wrong.
    private func isAbandoned(_ crl: PublishedCRL, _ problem: EnforcementSteps.ProofProblem) async throws -> Bool {
        guard problem.isUnknownAuthority else { return false }
        let now = clock()
        return try await registry.query { $0.isAbandoned(crl.event.authority, at: now) }
    }

    private func probeLive(_ authority: String, _ probe: CanaryProbe) async throws -> CanaryProbe.Outcome {
        probe.perform(try await crls.liveCanary(authority).identity(), clientID: "refold-canary-live")
    }

    func record(_ event: CRLEnforced) async throws {
        let key = EnforcementKey(broker: event.broker, authority: event.authority)
        guard steps.isNews(event, after: try await registry.query { $0.enforcements[key] }) else { return }
        try await execute(.enforce(event), tenantID: event.tenantID)
    }

    /// - Throws: also where the registry refuses it, unless nothing is left to record.
    func execute(_ command: RegistryCommand, tenantID: String = Envelope.everyTenant) async throws {
        let answer = try await registry.execute(
            RegistryRequest(tenantID: tenantID, actor: EngineActor.name, command: command))
        if case .rejected(_, let code, let reason) = answer, code != .outdated {
            throw NotRecorded(description: "cannot record what was done at \(broker.name): \(reason)")
        }
    }
}

private struct NotRecorded: Error, CustomStringConvertible {
    let description: String
}

/// Set once, from any thread.
final class Stopping: Sendable {
    private let flag = Mutex(false)

    var hasBegun: Bool { flag.withLock { $0 } }
    func begin() { flag.withLock { $0 = true } }
}

extension Canary {
    func identity() throws -> ClientIdentity {
        try ClientIdentity(certificatesPEM: try certificate.pem() + Array(chain.utf8), keyPEM: try key.pem())
    }
}
