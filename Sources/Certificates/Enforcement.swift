import Decisions
import EventModel

/// An authority's CRLs at a broker.
public struct EnforcementKey: Sendable, Hashable, Codable, Comparable {
    public let broker: String
    public let authority: String

    public init(broker: String, authority: String) { (self.broker, self.authority) = (broker, authority) }

    public static func < (a: Self, b: Self) -> Bool { (a.broker, a.authority) < (b.broker, b.authority) }
}

/// Where the newest CRL of an authority stands at a broker.
public enum EnforcementState: String, Sendable, Encodable {
    case pending = "PENDING"
    case written = "WRITTEN"
    case reloaded = "RELOADED"
    /// In force.
    case proved = "PROVED"
    /// Writing, reloading or proving failed.
    case unproved = "UNPROVED"
    /// Not proved, and no certificate of the authority is in use: after a rotation a broker need not trust it.
    case unused = "UNUSED"
}

/// How far an authority's CRLs have come at a broker: written, then reloaded, then proved to be in force.
public struct Enforcement: Sendable, Equatable, Codable {
    /// CRL numbers; 0: none yet.
    public private(set) var written: UInt64 = 0
    public private(set) var reloaded: UInt64 = 0
    public private(set) var proved: UInt64 = 0
    public private(set) var writtenAt: Timestamp?
    public private(set) var reloadedAt: Timestamp?
    public private(set) var provedAt: Timestamp?
    /// From the issue of the CRL to its proof.
    public private(set) var provedMilliseconds: Int64?
    /// Why the newest CRL is not proved: writing, reloading or probing failed; nil after a proof.
    public private(set) var error: String?
    public private(set) var errorAt: Timestamp?
    /// Why clients of revoked certificates are not all disconnected, or bans not lifted; nil once that is done.
    public private(set) var uncutError: String?
    /// CRL number at the last `uncutError`.
    public private(set) var uncutNumber: UInt64?
    /// The broker bans clients by their names until the CRL is proved.
    public private(set) var bans: Bool?

    public init() {}

    /// Whether a step is to be recorded. A file that is written again, after a start or a failure, is no news, unless
    /// that ends an error.
    /// - Parameter isLast: no step follows at this broker.
    public func isNews(_ event: CRLEnforced, isLast: Bool) -> Bool {
        switch event.step {
        case .written: written < event.number || isLast && error != nil
        case .reloaded: reloaded < event.number || isLast && error != nil
        case .proved: proved < event.number || error != nil
        case .unproved: error != event.error
        // Once for each CRL: the table `crl_enforcement` has it in the CRL's row.
        case .uncut: uncutError != event.error || uncutNumber ?? 0 < event.number
        }
    }

    mutating func apply(_ event: CRLEnforced, at time: Timestamp) {
        switch event.step {
        case .written:
            (written, writtenAt) = (max(written, event.number), time)
            bans = event.bans
            (error, errorAt) = (nil, nil)
        case .reloaded:
            (reloaded, reloadedAt) = (max(reloaded, event.number), time)
            (error, errorAt) = (nil, nil)
        case .proved:
            proved = max(proved, event.number)
            (provedAt, provedMilliseconds) = (time, event.milliseconds)
            (error, errorAt) = (nil, nil)
        case .unproved: (error, errorAt) = (event.error ?? "unknown", time)
        case .uncut: (uncutError, uncutNumber) = (event.error ?? "unknown", event.number)
        }
    }

    /// The next failure is recorded even if it has the same text.
    mutating func endUncutError() { (uncutError, uncutNumber) = (nil, nil) }
}

extension CertificateRegistry {
    /// The rule for a step of the enforcement: in order, and of a CRL that is on the record.
    func enforced(_ event: CRLEnforced, _ request: RegistryRequest) throws(RegistryRefusal) -> CRLEnforced {
        guard let last = authority(event.authority)?.lastCRL, event.number <= last.number else {
            throw RegistryRefusal(.notFound, "there is no CRL \(event.number) of \(event.authority)")
        }
        let key = EnforcementKey(broker: event.broker, authority: event.authority)
        let known = enforcements[key] ?? Enforcement()
        switch event.step {
        case .written, .unproved: break
        case .uncut:
            guard pendingCuts[key]?.isEmpty == false else {
                throw RegistryRefusal(.outdated, "no client of \(event.authority) is left to disconnect")
            }
        case .reloaded, .proved:
            guard event.number <= known.written else {
                throw RegistryRefusal(
                    .illegalTransition,
                    "the CRL \(event.number) of \(event.authority) has not been written for "
                        + event.broker)
            }
        }
        var event = event
        event.actor = request.actor
        if event.step == .proved { event.remaining = Int64(uncutCount(key)) }
        return event
    }
}
