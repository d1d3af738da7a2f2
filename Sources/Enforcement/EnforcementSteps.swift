import Certificates
import Decisions
import EventModel
import Issuing

/// The order of an enforcement at one broker: which step comes next, and what goes on the record about it. Pure: time,
/// files and probes are the caller's. Driven by `CRLEnforcer`, and by the simulation of certificates.
///
///     begin(crls)                 what this round has to do
///     while let step = next       the caller performs it
///         finish(problem)         → decisions to record, those that `isNews`
public struct EnforcementSteps: Sendable {
    public enum Step: Sendable, Equatable {
        /// Replace the broker's CRL file by all CRLs of the round.
        case write
        /// Run the reload command. Only after the whole file is on disk: a broker that reads a damaged one accepts
        /// every client (Mosquitto 2.0), or exits (2.1).
        case reload
        /// Prove that the CRL of an authority is in force.
        case prove(PublishedCRL)
    }

    private let broker: String
    private let reloads: Bool
    private let proves: Bool
    /// CRL number that the file has, by authority. Empty after a start: the file is written again.
    private var written: [String: UInt64] = [:]
    /// Monotonic microseconds of the last proof, by authority.
    private var lastProof: [String: Int64] = [:]
    /// Of the present round.
    public private(set) var crls: [PublishedCRL] = []
    private var queue: [Step] = []

    private static let standingProofMicroseconds: Int64 = 60_000_000

    /// - Parameters:
    ///   - reloads: there is a reload command.
    ///   - proves: there is a canary probe.
    public init(broker: String, reloads: Bool, proves: Bool) {
        (self.broker, self.reloads, self.proves) = (broker, reloads, proves)
    }

    /// Before a canary expires, for brokers whose clocks are ahead: they refuse an expired one as expired.
    private static let canaryMarginSeconds: Int64 = 600

    /// Whether another CRL must be issued, because this one cannot be proved again: only the refusal of its canary as
    /// revoked proves a CRL. The canary's key is gone after a restart, and its certificate expires.
    /// - Parameter authorityEnd: the expiry of the authority, which no canary outlives.
    public func lacksCanary(_ crl: PublishedCRL, authorityEnd: Timestamp, at now: Timestamp) -> Bool {
        guard proves, now <= authorityEnd else { return false }
        guard let end = crl.canary?.certificate.notAfter else { return true }
        return end < authorityEnd.wholeSeconds && end - now.wholeSeconds < Self.canaryMarginSeconds
    }

    /// Begins a round.
    /// - Parameters:
    ///   - crls: the newest CRL of each authority.
    ///   - live: authorities that have not expired. Brokers accept no client of another.
    ///   - now: monotonic microseconds.
    public mutating func begin(_ crls: [PublishedCRL], live: Set<String>, now: Int64) {
        (self.crls, queue) = (crls, [])
        let isWritten = crls.allSatisfy { written[$0.event.authority] == $0.event.number }
        if !isWritten { queue = reloads ? [.write, .reload] : [.write] }
        if EnforcementFault.isPlanted(.reloadsBeforeRename) { queue.reverse() }
        guard proves else { return }
        for crl in crls where live.contains(crl.event.authority) {
            // Between CRLs the last one is proved again every minute.
            if isWritten, let last = lastProof[crl.event.authority], now - last < Self.standingProofMicroseconds {
                continue
            }
            queue.append(.prove(crl))
        }
    }

    public var next: Step? { queue.first }

    /// Ends the step `next`.
    /// - Parameters:
    ///   - problem: why it failed; nil: it succeeded.
    ///   - isOutdated: another CRL was issued since the round began.
    ///   - now: monotonic microseconds.
    ///   - time: the clock's, for the time since the CRL was issued.
    /// - Returns: decisions about it. The caller records those that `isNews`, and calls `startAgain` where it cannot.
    public mutating func finish(problem: String?, isOutdated: Bool, now: Int64, at time: Timestamp) -> [CRLEnforced] {
        guard !queue.isEmpty else { return [] }
        switch queue.removeFirst() {
        case .write:
            if let problem { return abandon(problem) }
            if !reloads { markWritten() }
            return crls.map { event(.written, $0) }
        case .reload:
            if let problem { return abandon(problem) }
            markWritten()
            return crls.map { event(.reloaded, $0) }
        case .prove(let crl):
            guard let problem else {
                lastProof[crl.event.authority] = now
                var event = event(.proved, crl)
                event.milliseconds = max(0, time.microseconds.saturatingSubtracting(crl.issuedAt.microseconds) / 1_000)
                return [event]
            }
            // The broker may have another file, or have missed the reload: both are done again.
            (lastProof[crl.event.authority], written[crl.event.authority]) = (nil, nil)
            if isOutdated { queue = [] }
            return [event(.unproved, crl, problem)]
        }
    }

    public func isNews(_ event: CRLEnforced, after known: Enforcement?) -> Bool {
        let last: CRLEnforced.Step = proves ? .proved : reloads ? .reloaded : .written
        return (known ?? Enforcement()).isNews(event, isLast: event.step == last)
    }

    /// Gives the round up, because a decision could not be recorded. The next round begins with the file: a step counts
    /// only once it is on the record.
    public mutating func startAgain() {
        queue = []
        for crl in crls { (written[crl.event.authority], lastProof[crl.event.authority]) = (nil, nil) }
    }

    private mutating func markWritten() {
        for crl in crls { (written[crl.event.authority], lastProof[crl.event.authority]) = (crl.event.number, nil) }
    }

    /// Nothing is reloaded or proved after a failure.
    private mutating func abandon(_ problem: String) -> [CRLEnforced] {
        queue = []
        return crls.map { event(.unproved, $0, problem) }
    }

    private func event(_ step: CRLEnforced.Step, _ crl: PublishedCRL, _ error: String? = nil) -> CRLEnforced {
        var event = CRLEnforced(
            step, broker: broker, authority: crl.event.authority, tenantID: crl.event.tenantID,
            number: crl.event.number, actor: "")
        event.error = error
        return event
    }

    // MARK: Proof

    public enum ProbedCanary: Sendable {
        /// The one that the CRL revokes.
        case revoked
        /// One that no CRL lists.
        case live
    }

    /// Nil: the broker refuses the CRL's canary as revoked, and accepts a live one. Only both together show that the
    /// CRL is in force and that no device is locked out.
    public static func problem(
        with crl: CRLIssued, probe: (ProbedCanary) throws -> CanaryProbe.Outcome
    ) rethrows -> String? {
        switch try probe(.revoked) {
        case .refused(.certificateRevoked):
            let live = try probe(.live)
            return live == .accepted
                ? nil
                : "the broker refuses a live certificate of \(crl.authority) (\(live)): devices are locked out"
        case .accepted: return "the broker still accepts a certificate that the CRL \(crl.number) revokes"
        case let outcome: return "the canary of the CRL \(crl.number) was not refused as revoked: \(outcome)"
        }
    }
}
