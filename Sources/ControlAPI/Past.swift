import Decisions
import EventLog
import EventModel
import Hummingbird
import PKI

// What was (`?at=`), and the snapshots that make it quick to tell.

/// A row as it stood at a moment.
public struct PastAnswer: Sendable, Equatable {
    public var row: JSONRow
    /// The last event that had happened; nil when none had.
    public var position: UInt64?
    public var time: String

    public init(row: JSONRow, position: UInt64?, time: String) {
        self.row = row
        self.position = position
        self.time = time
    }
}

/// Answers from the log and its snapshots, whatever PostgreSQL holds. Nil when there was no such row.
public protocol HistoricalQueries: Sendable {
    /// - Throws: `LogError`: `.outOfRange`, `.beforeHorizon`, `.corrupt`.
    func device(tenant: String, device: String, at moment: PointInTime) async throws -> PastAnswer?
    func campaign(tenant: String, id: Int64, at moment: PointInTime) async throws -> PastAnswer?
    /// The CRL that was the authority's newest; nil: it had none, or there was no such authority.
    /// - Throws: also `PKIError`: the record does not give the bytes that were published.
    func crl(_ authority: String, at moment: PointInTime) async throws -> PastCRL?
}

/// A CRL as of a moment, bit for bit.
public struct PastCRL: Sendable {
    public let event: CRLIssued
    /// Of its event.
    public let position: Position
    public let issuedAt: Timestamp
    public let list: RevocationList
    /// The last event before the moment; nil: there was none.
    public let asOfPosition: UInt64?
    public let asOfTime: Timestamp

    public init(
        event: CRLIssued, position: Position, issuedAt: Timestamp, list: RevocationList, asOfPosition: UInt64?,
        asOfTime: Timestamp
    ) {
        (self.event, self.position, self.issuedAt, self.list) = (event, position, issuedAt, list)
        (self.asOfPosition, self.asOfTime) = (asOfPosition, asOfTime)
    }
}

/// Snapshots of the running daemon.
public protocol SnapshotKeeping: Sendable {
    /// Oldest first.
    func snapshots() async throws -> [SnapshotRow]
    /// Makes one of all that is durable now, and returns when it is durable itself and its digest is in the log; nil
    /// when one is being made already.
    func createSnapshot() async throws -> SnapshotRow?
}

/// One file of the folder of snapshots.
public struct SnapshotRow: Codable, Sendable, Equatable {
    public var file: String
    /// Number of events folded into it.
    public var end: UInt64
    public var bytes: Int?
    public var created: String?
    /// Received-at of the last event in it.
    public var lastTime: String?
    public var rows: Int?
    /// Why it cannot be used; nil when it can.
    public var error: String?

    public init(file: String, end: UInt64) {
        self.file = file
        self.end = end
    }

    enum CodingKeys: String, CodingKey { case file, end, bytes, created, lastTime = "last_time", rows, error }
}

extension ControlAPI {
    var snapshotRoutes: [Route] {
        [
            .get("/api/v1/snapshots") { _, _ in try .json(Items(items: try await system.snapshots.snapshots())) },
            .post("/api/v1/snapshots") { _, _ in
                guard let row = try await system.snapshots.createSnapshot() else {
                    throw Problem(.conflict, "busy", "a snapshot is being made already; GET shows it when it is done")
                }
                return try .json(row, status: .created)
            },
        ]
    }
}

extension Request {
    /// `at`: a position in digits, or a time in RFC 3339.
    func moment() throws(Problem) -> PointInTime? {
        guard let text = query("at") else { return nil }
        guard query("min_position") == nil else {
            throw Problem(.badRequest, "query_invalid", "at and min_position exclude each other")
        }
        guard let point = PointInTime(text) else {
            throw Problem(
                .badRequest, "query_invalid", "at is a position, or a time in RFC 3339 such as 2026-11-21T08:00:00Z")
        }
        return point
    }
}

extension Response {
    /// A row of the past and the moment that it is of; under `field`, or its members beside `as_of`.
    static func past(_ answer: PastAnswer?, field: String?) throws(Problem) -> Response {
        guard let answer else { throw Problem(.notFound, "not_found", "there was no such thing at that moment") }
        let position = answer.position.map { String($0) } ?? "null"
        let moment = #""as_of":{"position":\#(position),"time":"\#(answer.time)"}"#
        if let field { return json(text: #"{"\#(field)":\#(answer.row.text),"gate":null,\#(moment)}"#) }
        return json(text: answer.row.text.dropLast() + ",\(moment)}")
    }
}
