import Certificates
import Decisions
import EventModel
import Issuing

/// The order of an enforcement at one broker: which step comes next, and what goes on the record about it. Pure: time,
/// files and probes are the caller's. Driven by `CRLEnforcer`, and by the simulation of certificates.
///
///     begin(crls)                 what this round has to do
///     while let step = next       the caller performs it
///         finish(outcome)         → decisions to record, those that `isNews`
public struct EnforcementSteps: Sendable {
    public enum Step: Sendable, Equatable {
        /// Replace the broker's CRL file by all CRLs of the round.
        case write
        /// Run the reload command. Only after the whole file is on disk: a broker that reads a damaged one accepts
        /// every client (Mosquitto 2.0), or exits (2.1).
        case reload
        /// Prove that the CRL of an authority is in force.
        case prove(PublishedCRL)
        /// Disconnect the clients of certificates that the CRL in force revokes. Not before its proof: they would
        /// connect again.
        case cut(authority: String)
    }

    public enum Outcome: Sendable, Equatable {
        case done
        /// No proof yet, and nothing is wrong: canaries are being signed, or the broker has not fetched the CRL.
        case waiting
        /// No proof yet: a newer CRL, or an authority that waited for its canaries, comes first.
        case interrupted
        /// The broker no longer trusts the authority, and no certificate of it is in use. This proves nothing, but a
        /// disconnected client cannot reconnect.
        case abandoned
        /// No proof, because no canary could be signed.
        case unprepared(String)
        case failed(String)
    }

    /// How far an authority's CRLs have come. Times are monotonic, in microseconds.
    struct State {
        /// CRL number that the file has.
        var written: UInt64?
        var provedAt: Int64?
        /// The last proof failed or was interrupted.
        var hasFailed = false
        /// When a proof was first interrupted or put off since the last one that was completed.
        var interruptedAt: Int64?
        /// The CRL in force, and the `end` of its entries.
        var proof: (number: UInt64, end: UInt64)?
        /// The CRL that a broker which fetches CRLs is to have fetched, and since when. It stays until it is proved:
        /// CRLs may be issued faster than the broker fetches them.
        var target: (crl: PublishedCRL, since: Int64)?
        var isAbandoned = false
    }

    private let broker: String
    private let reloads: Bool
    private let proves: Bool
    private let fetches: Bool
    private let proofMicroseconds: Int64
    /// Empty after a start: files are written and CRLs proved again.
    var states: [String: State] = [:]
    /// Of the present round.
    public private(set) var crls: [PublishedCRL] = []
    private var queue: [Step] = []

    private static let standingProofMicroseconds: Int64 = 60_000_000
    private static let fetchMarginMicroseconds: Int64 = 60_000_000

    /// - Parameters:
    ///   - reloads: there is a reload command.
    ///   - proves: there is a canary probe.
    ///   - fetches: the broker fetches CRLs when it wants to (EMQX); its clients are banned meanwhile.
    ///   - proofMicroseconds: time for a broker to read a CRL that it was told to reload.
    public init(
        broker: String, reloads: Bool, proves: Bool, fetches: Bool = false, proofMicroseconds: Int64 = 5_000_000
    ) {
        (self.broker, self.reloads, self.proves, self.fetches) = (broker, reloads, proves, fetches)
        self.proofMicroseconds = proofMicroseconds
    }

    /// A proof was interrupted for the time that a broker may take: newer CRLs wait for it now. Otherwise a broker that
    /// reads CRLs slower than they are issued would never be proved, and never reported.
    public func isOverdue(_ authority: String, now: Int64) -> Bool {
        states[authority]?.interruptedAt.map { now - $0 >= proofMicroseconds } ?? false
    }

    /// Before a canary expires, for brokers whose clocks are ahead: they refuse an expired one as expired.
    private static let canaryMarginSeconds: Int64 = 600

    /// Whether another CRL must be issued, because this one cannot be proved (again): only the refusal of its canary as
    /// revoked proves a CRL. The canary's key is gone after a restart, and its certificate expires. At a broker that
    /// fetches CRLs, a CRL that was proved is not proved again.
    /// - Parameter authorityEnd: the expiry of the authority, which no canary outlives.
    public func lacksCanary(_ crl: PublishedCRL, authorityEnd: Timestamp, at now: Timestamp) -> Bool {
        guard proves, now <= authorityEnd else { return false }
        guard let end = crl.canary?.certificate.notAfter else { return true }
        if fetches {
            return proof(crl.event.authority)?.number != crl.event.number && end <= now.wholeSeconds
        }
        return end < authorityEnd.wholeSeconds && end - now.wholeSeconds < Self.canaryMarginSeconds
    }

    /// Begins a round.
    /// - Parameters:
    ///   - newest: the newest CRL of each authority.
    ///   - live: authorities that have not expired. Brokers accept no client of another.
    ///   - now: monotonic microseconds.
    ///   - isCanaryValid: the canary of a CRL is there and has not expired.
    public mutating func begin(
        _ newest: [PublishedCRL], live: Set<String>, now: Int64,
        isCanaryValid: (PublishedCRL) -> Bool = { $0.canary != nil }
    ) {
        (crls, queue) = (newest, [])
        let isWritten = newest.allSatisfy { states[$0.event.authority]?.written == $0.event.number }
        if !isWritten { queue = reloads ? [.write, .reload] : [.write] }
        if EnforcementFault.isPlanted(.reloadsBeforeRename) { queue.reverse() }
        if proves {
            let proved = newest.filter { live.contains($0.event.authority) }
            // Those that failed last wait for their whole time: the others do not wait for them.
            let ranks = proved.map { crl in
                isOverdue(crl.event.authority, now: now) ? 0 : states[crl.event.authority]?.hasFailed ?? false ? 2 : 1
            }
            for newest in (0...2).flatMap({ rank in zip(proved, ranks).filter { $0.1 == rank }.map(\.0) }) {
                let crl = fetches ? target(newest, now, isCanaryValid) : newest
                // Between CRLs the last one is proved again every minute.
                if isWritten, let last = states[crl.event.authority]?.provedAt,
                    now - last < Self.standingProofMicroseconds
                {
                    continue
                }
                queue.append(.prove(crl))
            }
        }
        queue += states.filter { $0.value.proof != nil }.keys.sorted().map { .cut(authority: $0) }
    }

    private mutating func target(
        _ newest: PublishedCRL, _ now: Int64, _ isCanaryValid: (PublishedCRL) -> Bool
    ) -> PublishedCRL {
        var state = states[newest.event.authority] ?? State()
        if let target = state.target {
            let number = target.crl.event.number, isProved = state.proof?.number == number
            if number == newest.event.number || !isProved && isCanaryValid(target.crl) { return target.crl }
        }
        // Keeps the time of the last proof: a new CRL does not extend the deadline of a broker that fetches nothing.
        let isProved = state.target.map { $0.crl.event.number == state.proof?.number } ?? true
        (state.target, state.provedAt) = ((newest, isProved ? now : state.target?.since ?? now), nil)
        states[newest.event.authority] = state
        return newest
    }

    public var next: Step? { queue.first }

    /// The CRLs that are to be proved in this round.
    var toProve: [PublishedCRL] { queue.compactMap { if case .prove(let crl) = $0 { crl } else { nil } } }

    /// The CRL of an authority that is proved to be in force.
    public func proof(_ authority: String) -> (number: UInt64, end: UInt64)? { states[authority]?.proof }

    /// `proof` proves nothing: the broker does not trust the authority.
    func isAbandoned(_ authority: String) -> Bool { states[authority]?.isAbandoned ?? false }

    /// `end` of the CRLs that are proved to be in force, by authority: bans for what they list can be lifted.
    public var ends: [String: UInt64] {
        states.compactMapValues {
            EnforcementFault.isPlanted(.liftsBeforeProof) ? $0.target?.crl.event.end : $0.proof?.end
        }
    }

    /// A broker that fetches CRLs is to fetch one that is not proved yet.
    public var isWaiting: Bool {
        fetches && states.values.contains { $0.target.map(\.crl.event.number) != $0.proof?.number }
    }

    /// What comes of a proof that found `problem` at a broker that fetches CRLs. While it accepts the canary, and could
    /// not have fetched the CRL for longer than `refreshSeconds` and a minute, it is only late.
    public func fetchOutcome(
        _ problem: ProofProblem, of crl: PublishedCRL, refreshSeconds: Int, now: Int64
    ) -> Outcome {
        let waited = now - (states[crl.event.authority]?.target?.since ?? 0)
        let isLate = problem.isLate && waited < Int64(refreshSeconds) * 1_000_000 + Self.fetchMarginMicroseconds
        return isLate ? .waiting : .failed(problem.text)
    }

    /// Ends the step `next`.
    /// - Parameters:
    ///   - isOutdated: another CRL was issued since the round began.
    ///   - now: monotonic microseconds.
    ///   - time: the clock's, for the time since the CRL was issued.
    /// - Returns: decisions about it. The caller records those that `isNews`, and calls `startAgain` where it cannot.
    ///   Those about a cut are its own.
    public mutating func finish(_ outcome: Outcome, isOutdated: Bool, now: Int64, at time: Timestamp) -> [CRLEnforced] {
        guard !queue.isEmpty else { return [] }
        switch queue.removeFirst() {
        case .write:
            if case .failed(let problem) = outcome { return abandon(problem) }
            if !reloads { markWritten() }
            return crls.map { event(.written, $0) }
        case .reload:
            if case .failed(let problem) = outcome { return abandon(problem) }
            markWritten()
            return crls.map { event(.reloaded, $0) }
        case .prove(let crl):
            defer { if isOutdated { putOffProofs(now) } }
            return finishProof(of: crl, outcome, now: now, at: time)
        case .cut: return []
        }
    }

    /// A newer CRL comes first, except before proofs that are overdue.
    private mutating func putOffProofs(_ now: Int64) {
        for case .prove(let crl) in queue {
            let authority = crl.event.authority
            states[authority, default: State()].interruptedAt = states[authority]?.interruptedAt ?? now
        }
        queue = queue.filter { step in
            if case .prove(let crl) = step { isOverdue(crl.event.authority, now: now) } else { true }
        }
    }

    private mutating func finishProof(
        of crl: PublishedCRL, _ outcome: Outcome, now: Int64, at time: Timestamp
    ) -> [CRLEnforced] {
        let authority = crl.event.authority
        switch outcome {
        case .done, .abandoned:
            var state = states[authority] ?? State()
            (state.provedAt, state.hasFailed, state.proof) = (now, false, (crl.event.number, crl.event.end))
            state.interruptedAt = nil
            state.isAbandoned = outcome == .abandoned
            states[authority] = state
            queue.removeAll { $0 == .cut(authority: authority) }
            queue.insert(.cut(authority: authority), at: 0)
            // Recording `written` clears the recorded error.
            if outcome == .abandoned { return [event(.written, crl)] }
            var event = event(.proved, crl)
            event.milliseconds = max(0, time.microseconds.saturatingSubtracting(crl.issuedAt.microseconds) / 1_000)
            return [event]
        case .waiting: return []
        case .interrupted:
            var state = states[authority] ?? State()
            (state.hasFailed, state.interruptedAt) = (true, state.interruptedAt ?? now)
            states[authority] = state
            return []
        case .unprepared(let problem): return [event(.unproved, crl, problem)]
        case .failed(let problem):
            // The broker may have another file, or have missed the reload: both are done again.
            states[authority] = State(hasFailed: true, target: states[authority]?.target)
            queue.removeAll { $0 == .cut(authority: authority) }
            return [event(.unproved, crl, problem)]
        }
    }

    public func isNews(_ event: CRLEnforced, after known: Enforcement?) -> Bool {
        var last: CRLEnforced.Step = proves ? .proved : reloads ? .reloaded : .written
        if isAbandoned(event.authority) { last = .written }
        return (known ?? Enforcement()).isNews(event, isLast: event.step == last)
    }

    /// Gives the round up, because a decision could not be recorded. The next round begins with the file: a step counts
    /// only once it is on the record.
    public mutating func startAgain() {
        queue = []
        for crl in crls { states[crl.event.authority] = State(target: states[crl.event.authority]?.target) }
    }

    private mutating func markWritten() {
        for crl in crls {
            var state = states[crl.event.authority] ?? State()
            (state.written, state.provedAt) = (crl.event.number, nil)
            if EnforcementFault.isPlanted(.cutsBeforeProof) {
                state.proof = (crl.event.number, crl.event.end)
                queue.insert(.cut(authority: crl.event.authority), at: 0)
            }
            states[crl.event.authority] = state
        }
    }

    /// Nothing is reloaded or proved after a failure. What was proved before is cut.
    private mutating func abandon(_ problem: String) -> [CRLEnforced] {
        queue.removeAll { if case .cut = $0 { false } else { true } }
        return crls.map { event(.unproved, $0, problem) }
    }

    private func event(_ step: CRLEnforced.Step, _ crl: PublishedCRL, _ error: String? = nil) -> CRLEnforced {
        var event = CRLEnforced(
            step, broker: broker, authority: crl.event.authority, tenantID: crl.event.tenantID,
            number: crl.event.number, actor: "")
        event.error = error
        if step == .written, fetches { event.bans = true }
        return event
    }

    // MARK: Proof

    public enum ProbedCanary: Sendable {
        /// The one that the CRL revokes.
        case revoked
        /// One that no CRL lists.
        case live
    }

    /// Why a CRL is not in force.
    public struct ProofProblem: Sendable, Equatable {
        public let text: String
        /// The broker accepts the canary: it may have to fetch the CRL yet.
        public var isLate = false
        /// The broker does not trust the authority, or has no CRL of it (TLS alert 48).
        public var isUnknownAuthority = false
    }

    /// Nil: the broker refuses the CRL's canary as revoked, and accepts a live one. Only both together show that the
    /// CRL is in force and that no device is locked out.
    public static func problem(
        with crl: CRLIssued, probe: (ProbedCanary) throws -> CanaryProbe.Outcome
    ) rethrows -> ProofProblem? {
        switch try probe(.revoked) {
        case .refused(.certificateRevoked):
            return liveProblem(crl.authority, try probe(.live))
        case .accepted:
            return ProofProblem(
                text: "the broker still accepts a certificate that the CRL \(crl.number) revokes", isLate: true)
        case let outcome:
            return ProofProblem(
                text: "the canary of the CRL \(crl.number) was not refused as revoked: \(outcome)",
                isUnknownAuthority: outcome == .refused(.unknownAuthority))
        }
    }

    /// Nil: the broker accepts a live certificate of the authority.
    public static func liveProblem(_ authority: String, _ outcome: CanaryProbe.Outcome) -> ProofProblem? {
        guard outcome != .accepted else { return nil }
        return ProofProblem(
            text: "the broker refuses a live certificate of \(authority) (\(outcome)): devices are locked out",
            isUnknownAuthority: outcome == .refused(.unknownAuthority))
    }
}
