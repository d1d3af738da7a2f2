import EventLog
import Primitives

/// Whether this build can plant bugs; see the condition in Package.swift.
public enum PlantedBugs {
    #if PLANTED_BUGS
    public static let areCompiled = true
    #else
    public static let areCompiled = false
    #endif
    public static let missing = "this build has no planted bugs: use a debug build, or build with REFOLD_PLANTED_BUGS=1"
}

/// A bug put into the code under test, to prove that the simulation finds it.
public enum Plant: String, CaseIterable, Sendable {
    case acknowledgeBeforeSync = "ack-before-fsync"
    case folderNotSynced = "folder-not-synced"
    case syncRetried = "fsync-retried"
    case checkpointOutsideTransaction = "checkpoint-outside-transaction"
    case checksumIgnored = "crc-not-checked"
    case saltIgnored = "salt-ignored"
    case rollCutsOnePageTooMuch = "off-by-one-at-roll"
    case unprovenTailKept = "unproven-tail-kept"
    case unlinkBeforeSync = "unlink-before-sync"
    case clockBelieved = "clock-believed-at-once"
    case receivedAtPinned = "received-at-pinned"

    /// Runs `body` with the bug in the log, where it has the same name. One is in how the world uses the database.
    public func planted<R>(_ body: () throws -> R) rethrows -> R {
        #if PLANTED_BUGS
        return self == .checkpointOutsideTransaction ? try body() : try withLogFault("\(self)", body)
        #else
        preconditionFailure(PlantedBugs.missing)
        #endif
    }
}

public typealias WorldOptions = PlantedWorldOptions<Plant>

/// Options of a world that a bug can be planted in.
public struct PlantedWorldOptions<P: Sendable>: Sendable {
    public var seed: UInt64
    /// Scheduler decisions, the coming to rest at the end not counted.
    public var steps: Int
    public var plant: P?
    /// The world that the plant would be found in, without the plant.
    public var withholdsPlant = false
    /// The bug that is in the code while the world runs.
    var activePlant: P? { withholdsPlant ? nil : plant }
    /// Keep a line of text for what happens.
    public var isRecording = false

    public init(seed: UInt64, steps: Int = 1_500, plant: P? = nil) {
        self.seed = seed
        self.steps = steps
        self.plant = plant
    }
}

/// How a world ended.
public struct WorldVerdict: Sendable {
    public let seed: UInt64
    public let stepsTaken: Int
    public let traceHash: UInt64
    /// Nil: every invariant held throughout.
    public let violation: String?
    public let summary: WorldSummary
    /// The last lines, when they were recorded.
    public let lines: [String]

    public var held: Bool { violation == nil }
}

/// What happened in a world, to see that a seed does not pass by doing nothing.
public struct WorldSummary: WorldCounts, Sendable, Equatable {
    public var published = 0
    public var acknowledged = 0
    public var events = 0
    public var commits = 0
    public var starts = 0
    public var kills = 0
    public var powerCuts = 0
    public var failures = 0
    public var holds = 0
    public var refusedWriters = 0
    public var tornTails = 0
    public var rotten = 0
    public var databaseCommits = 0
    public var databaseCrashes = 0
    public var segments = 0
    public var diskOperations = 0

    public init() {}

    public static var counts: [WritableKeyPath<Self, Int>] {
        [
            \.published, \.acknowledged, \.events, \.commits, \.starts, \.kills, \.powerCuts, \.failures, \.holds,
            \.refusedWriters, \.tornTails, \.rotten, \.databaseCommits, \.databaseCrashes, \.segments, \.diskOperations,
        ]
    }
}

/// What kind of world a seed makes: each has some of the faults, often or seldom, and none has all at their worst, so
/// that rare meetings of two faults are not buried under a third (swarm testing: Groce and others, ISSTA 2012).
struct Profile {
    var segmentBytes: Int
    var blockBytes: Int
    var deviceCount: Int
    var sessionCount: Int
    var paddingMax: Int
    var batchMax: Int
    var deaths: Double
    var powerCutsOfDeaths: Double
    var rates = SimulatedDisk.Rates()
    var fullDisks: Double
    var clockSteps: Double
    var competitors: Double
    var rot: Double
    var databaseFaults: Double
    var forgetsCache: Double
    var hasFormerLife: Bool

    init(_ random: inout SeededRandom) {
        segmentBytes = random.pick([16, 24, 32, 64, 256]) << 10
        blockBytes = random.pick([2 << 10, 16 << 10, 512 << 10])
        hasFormerLife = random.chance(0.15)
        deviceCount = 1 + random.below(8)
        sessionCount = hasFormerLife ? 1 : 1 + random.below(3)
        paddingMax = hasFormerLife ? 0 : random.pick([0, 200, 3000, 12_000])
        batchMax = hasFormerLife ? 1 : random.pick([1, 3, 20])
        deaths = random.pick([0, 0.002, 0.01, 0.03])
        powerCutsOfDeaths = random.pick([0, 0.5, 1])
        func share(_ often: Double) -> Double { random.chance(0.35) ? random.pick([often / 10, often]) : 0 }
        rates.read = share(0.02)
        rates.write = share(0.05)
        rates.noSpaceOfWrites = random.pick([0, 0.5, 1])
        rates.allocate = share(0.2)
        rates.sync = share(0.05)
        rates.folder = share(0.05)
        rates.open = share(0.05)
        fullDisks = share(0.01)
        clockSteps = hasFormerLife ? 0 : share(0.01)
        competitors = share(0.02)
        rot = share(0.02)
        databaseFaults = share(0.05)
        forgetsCache = share(0.05)
    }
}
