import Certificates
import Enforcement

/// Bugs that a world of certificates can be given, to prove that it finds them.
public enum CertificatePlant: String, CaseIterable, Sendable {
    case skipsFileSync = "publish-before-fsync"
    case publishesBeforeAppend = "publish-before-append"
    case reloadsBeforeRename = "reload-before-rename"
    case cutsBeforeProof = "cut-before-proof"
    case liftsBeforeProof = "ban-lifted-before-proof"
    case dropsEntriesAtExpiry = "entry-dropped-at-expiry"
    case numbersByClock = "number-by-clock"
    case forgetsEntryInSnapshots = "snapshot-without-entry"

    /// Runs `body` with the bug in the registry or in the enforcement, where it has the same name.
    func planted<R>(_ body: () throws -> R) rethrows -> R {
        #if PLANTED_BUGS
        switch self {
        case .skipsFileSync, .reloadsBeforeRename, .cutsBeforeProof, .liftsBeforeProof:
            return try withEnforcementFault("\(self)", body)
        case .dropsEntriesAtExpiry, .numbersByClock, .forgetsEntryInSnapshots:
            return try withCertificatesFault("\(self)", body)
        // In how the world issues CRLs.
        case .publishesBeforeAppend: return try body()
        }
        #else
        preconditionFailure(PlantedBugs.missing)
        #endif
    }
}

public typealias CertificateWorldOptions = PlantedWorldOptions<CertificatePlant>

public struct CertificateVerdict: Sendable {
    public let seed: UInt64
    /// Nil: every invariant held throughout.
    public let violation: String?
    public let traceHash: UInt64
    public let summary: CertificateSummary
    /// The last lines, when they were recorded.
    public let lines: [String]
}

/// What happened, to see that a world does not pass by doing nothing.
public struct CertificateSummary: WorldCounts, Sendable, Equatable {
    public var histories = 0
    public var certificates = 0
    public var revoked = 0
    public var released = 0
    public var crls = 0
    /// CRLs that had to be signed again, because certificates were revoked meanwhile.
    public var races = 0
    public var dropped = 0
    public var proved = 0
    public var unproved = 0
    public var cuts = 0
    public var bans = 0
    public var lifts = 0
    /// Failures to disconnect clients or to lift bans, on the record.
    public var uncut = 0
    public var kills = 0
    public var powerCuts = 0
    public var failedAppends = 0
    public var failedWrites = 0
    public var ignoredReloads = 0
    public var clockSteps = 0
    public var refolds = 0
    public var rebuilt = 0

    public init() {}

    public static var counts: [WritableKeyPath<Self, Int>] {
        [
            \.histories, \.certificates, \.revoked, \.released, \.crls, \.races, \.dropped, \.proved, \.unproved,
            \.cuts, \.bans, \.lifts, \.uncut, \.kills, \.powerCuts, \.failedAppends, \.failedWrites, \.ignoredReloads,
            \.clockSteps, \.refolds,
            \.rebuilt,
        ]
    }
}
