import Hummingbird

// Keys whose events wait because their rows were refused, and taking them up again.

/// One key that waits, in one projection.
public struct ParkedKeyRow: Codable, Sendable, Equatable {
    public var projection: String
    public var partition: Int
    /// `tenant/T/device/D`, `campaign/N`, `firmware/N`, a broker's name, a schema, or empty.
    public var key: String
    /// The first event that waits.
    public var position: UInt64
    /// What the database said.
    public var reason: String

    public init(projection: String, partition: Int, key: String, position: UInt64, reason: String) {
        self.projection = projection
        self.partition = partition
        self.key = key
        self.position = position
        self.reason = reason
    }
}

/// Which keys to take up again.
public struct ParkedRetryRequest: Sendable, Equatable {
    /// Nil: of every projection.
    public var projection: String?
    /// Nil: every key.
    public var key: String?
}

/// The result of a retry.
public struct ParkedRetryAnswer: Codable, Sendable, Equatable {
    /// Nothing waits for these any more.
    public var unparked: [ParkedKeyRow]
    /// These still wait.
    public var parked: [ParkedKeyRow]
    /// Why it ended before its time, for each projection for which it did.
    public var errors: [String]

    public init(unparked: [ParkedKeyRow] = [], parked: [ParkedKeyRow] = [], errors: [String] = []) {
        self.unparked = unparked
        self.parked = parked
        self.errors = errors
    }
}

struct ParkedRetryBody: BodyFields {
    static let fields = ["projection", "key"]
    static var whenEmpty: ParkedRetryBody? { ParkedRetryBody(projection: nil, key: nil) }
    let projection: String?
    let key: String?
}

extension ControlAPI {
    var parkedRoutes: [Route] {
        [
            .get("/api/v1/parked-keys") { request, _ in
                try request.allowQuery("projection")
                let rows = await system.projections.parkedKeys()
                let projection = try request.idQuery("projection")
                return try .json(Items(items: rows.filter { projection == nil || $0.projection == projection }))
            },
            .post("/api/v1/parked-keys/retry") { request, _ in
                let body = try await request.json(ParkedRetryBody.self)
                let projections = await system.projections.projections().map(\.name)
                if let name = body.projection, !projections.contains(name) {
                    throw Problem(
                        .notFound, "not_found",
                        "there is no such projection; there are: \(projections.joined(separator: ", "))")
                }
                let asked = ParkedRetryRequest(projection: body.projection, key: body.key)
                guard let answer = await system.projections.retryParked(asked, timeout: Self.waitForRetry) else {
                    throw Problem.unavailable(
                        "retry_in_progress", "the retry is still running; see /api/v1/parked-keys",
                        retryAfterSeconds: 10)
                }
                return try .json(answer)
            },
        ]
    }

    /// How long a request waits for parked keys to be taken up.
    private static var waitForRetry: Duration { .seconds(50) }
}
