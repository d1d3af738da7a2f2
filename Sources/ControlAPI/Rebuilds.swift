import Hummingbird
import Primitives

// Rebuilds of the tables, and the way back.

/// Rebuilds, rollbacks and what is kept for them, of the running daemon.
public protocol TableRebuilding: Sendable {
    /// Those of this daemon, the newest first.
    func rebuilds() async -> [RebuildRow]
    /// Begins one and returns at once. No names: every projection.
    /// - Throws: `RebuildRefusal`.
    func beginRebuild(_ projections: [String], startOver: Bool, fromSnapshot: Bool) async throws -> RebuildRow
    /// Nil when no rebuild is running. The next rebuild resumes from the rows that this one has folded.
    func cancelRebuild() async -> RebuildRow?
    /// - Throws: `RebuildRefusal`, and nothing was changed.
    func rollback(_ projections: [String]) async throws -> RollbackRow
    /// Drops what is kept for a rollback, or what rebuilds left unfinished.
    /// - Throws: `RebuildRefusal`.
    func dropTables(_ projections: [String], unfinished: Bool) async throws -> [String]
}

/// Why a rebuild or a rollback is not done. The text says what to do.
public typealias RebuildRefusal = CodedError<RebuildRefusalCode>

public enum RebuildRefusalCode: String, Sendable {
    case unknownProjection = "not_found", busy, nothingKept = "nothing_kept", unavailable = "database_unavailable"
    case failed = "rebuild_failed"
}

extension RebuildRefusal {
    var problem: Problem {
        switch code {
        case .unknownProjection: Problem(.notFound, code.rawValue, description)
        case .busy, .nothingKept, .failed: Problem(.conflict, code.rawValue, description)
        case .unavailable: .unavailable(code.rawValue, description, retryAfterSeconds: 5)
        }
    }
}

/// One rebuild, as far as it is. Counts are of events of the log.
public struct RebuildRow: Codable, Sendable, Equatable {
    public var projections: [String]
    /// `operator`, or `start`: the daemon found that it is needed.
    public var trigger: String
    public var begun: String
    /// `preparing`, `folding`, `finishing`, `following`, `swapping`, `done`, `cancelled`, `failed`.
    public var stage: String
    public var from: UInt64 = 0
    public var folded: UInt64 = 0
    public var end: UInt64 = 0
    public var rows: UInt64 = 0
    public var eventsPerSecond = 0.0
    /// At that rate; absent while there is none.
    public var secondsLeft: Double?
    public var elapsedSeconds = 0.0
    /// Attempts at the exchange, and who was in the way of the last.
    public var attempts = 0
    public var waitingFor: String?
    /// How long the exchange held up those who write.
    public var blockedMilliseconds: Double?
    /// What of the users' could not be taken along.
    public var remarks: [String] = []
    public var error: String?

    public init(projections: [String], trigger: String, begun: String, stage: String) {
        self.projections = projections
        self.trigger = trigger
        self.begun = begun
        self.stage = stage
    }

    public var isOver: Bool { ["done", "cancelled", "failed"].contains(stage) }

    enum CodingKeys: String, CodingKey {
        case projections, trigger, begun, stage, from, folded, end, rows, eventsPerSecond = "events_per_second"
        case secondsLeft = "seconds_left", elapsedSeconds = "elapsed_seconds", attempts, waitingFor = "waiting_for"
        case blockedMilliseconds = "blocked_milliseconds", remarks, error
    }
}

public struct RollbackRow: Codable, Sendable, Equatable {
    public struct Item: Codable, Sendable, Equatable {
        public var projection: String
        public var version: Int
        /// The last event whose effect stands in the rows.
        public var position: UInt64
        /// The rows are of another version: they stay as they are until the program that folded them runs.
        public var paused: Bool

        public init(projection: String, version: Int, position: UInt64, paused: Bool) {
            self.projection = projection
            self.version = version
            self.position = position
            self.paused = paused
        }
    }
    public var items: [Item]
    public var blockedMilliseconds: Double
    public var remarks: [String]

    public init(items: [Item], blockedMilliseconds: Double, remarks: [String]) {
        self.items = items
        self.blockedMilliseconds = blockedMilliseconds
        self.remarks = remarks
    }

    enum CodingKeys: String, CodingKey { case items, blockedMilliseconds = "blocked_milliseconds", remarks }
}

struct RebuildBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    static var whenEmpty: RebuildBody? { RebuildBody(projections: nil, startOver: nil, fromSnapshot: nil) }
    let projections: [String]?
    let startOver: Bool?
    let fromSnapshot: Bool?
    enum CodingKeys: String, CodingKey, CaseIterable {
        case projections, startOver = "start_over", fromSnapshot = "from_snapshot"
    }
}

struct ProjectionsBody: BodyFields {
    static let fields = CodingKeys.allCases.map(\.rawValue)
    static var whenEmpty: ProjectionsBody? { ProjectionsBody(projections: nil) }
    let projections: [String]?
    enum CodingKeys: String, CodingKey, CaseIterable { case projections }
}

extension ControlAPI {
    var rebuildRoutes: [Route] {
        [
            .get("/api/v1/rebuilds") { _, _ in try .json(Items(items: await system.rebuilds.rebuilds())) },
            .post("/api/v1/rebuilds") { request, _ in
                let body = try await request.json(RebuildBody.self)
                return try .json(
                    try await refusing {
                        try await system.rebuilds.beginRebuild(
                            body.projections ?? [], startOver: body.startOver ?? false,
                            fromSnapshot: body.fromSnapshot ?? false)
                    }, status: .accepted)
            },
            .post("/api/v1/rebuilds/cancel") { _, _ in
                guard let row = await system.rebuilds.cancelRebuild() else {
                    throw Problem(.notFound, "not_found", "no rebuild is going on")
                }
                return try .json(row)
            },
            .post("/api/v1/rollbacks") { request, _ in
                let body = try await request.json(ProjectionsBody.self)
                return try .json(try await refusing { try await system.rebuilds.rollback(body.projections ?? []) })
            },
            drop("previous", unfinished: false),
            drop("unfinished", unfinished: true),
        ]
    }

    private func drop(_ what: String, unfinished: Bool) -> Route {
        .post("/api/v1/rebuilds/drop-\(what)") { request, _ in
            let body = try await request.json(ProjectionsBody.self)
            return try .json(
                Items(
                    items: try await refusing {
                        try await system.rebuilds.dropTables(body.projections ?? [], unfinished: unfinished)
                    }))
        }
    }

    private func refusing<T>(_ body: () async throws -> T) async throws -> T {
        do {
            return try await body()
        } catch {
            throw (error as? RebuildRefusal)?.problem ?? error
        }
    }
}
