import Ingest

/// A bug put into ingest, to prove that the session worlds find it.
public enum SessionPlant: String, CaseIterable, Sendable {
    case matchesForEver = "redelivery-matches-for-ever"
    case ignoresUnansweredAttempts = "unanswered-attempt-ignored"
    case trustsAnyPacketID = "any-packet-id-trusted"
    case takesUnknownSessions = "unknown-session-taken"
    case chargesBacklogs = "backlog-charged"
    case acknowledgesBeforeAppend = "ack-before-append"
    case forgetsOldClientIDs = "old-client-id-forgotten"
    case endsDrainsOnSilence = "drain-ended-on-silence"
    case unsubscribesAtOnce = "unsubscribe-at-once"
    case unsubscribesUnrecorded = "unsubscribe-unrecorded"
    case acknowledgesLateCopies = "late-copy-acknowledged"
    case recordsBehindMarkers = "marker-ignored"
    case dropsByOrderAlone = "dropped-by-order-alone"

    /// Runs `body` with the bug in ingest, where it has the same name.
    func planted<R>(_ body: () throws -> R) rethrows -> R {
        #if PLANTED_BUGS
        switch self {
        case .matchesForEver, .ignoresUnansweredAttempts, .trustsAnyPacketID, .takesUnknownSessions,
            .chargesBacklogs, .acknowledgesLateCopies:
            return try withIngestFault("\(self)", body)
        // In how the world drives ingest.
        case .acknowledgesBeforeAppend, .forgetsOldClientIDs, .endsDrainsOnSilence, .unsubscribesUnrecorded,
            .unsubscribesAtOnce, .recordsBehindMarkers, .dropsByOrderAlone:
            return try body()
        }
        #else
        preconditionFailure(PlantedBugs.missing)
        #endif
    }
}

public typealias SessionWorldOptions = PlantedWorldOptions<SessionPlant>

public struct SessionVerdict: Sendable {
    public let seed: UInt64
    /// Nil: every invariant held throughout.
    public let violation: String?
    public let summary: SessionSummary
    /// The last lines, when they were recorded.
    public let lines: [String]
}

/// What happened, to see that a world does not pass by doing nothing.
public struct SessionSummary: WorldCounts, Sendable, Equatable {
    public var published = 0
    public var acknowledged = 0
    public var suppressed = 0
    /// Recorded more than once, allowed where nothing proves the redelivery.
    public var recordedAgain = 0
    public var kills = 0
    public var brokerKills = 0
    public var cuts = 0
    public var drained = 0
    /// Messages received by both sessions and dropped by one.
    public var handedOver = 0
    public var refused = 0
    /// Connections that ended for a redelivery that came behind its PUBACK.
    public var lateCopies = 0
    public var trace: UInt64 = 0

    public init() {}

    public static var counts: [WritableKeyPath<Self, Int>] {
        [
            \.published, \.acknowledged, \.suppressed, \.recordedAgain, \.kills, \.brokerKills, \.cuts, \.drained,
            \.handedOver, \.refused, \.lateCopies,
        ]
    }
}
