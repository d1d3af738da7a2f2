import Access
import EventModel
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore
import ServiceLifecycle
import Synchronization

// Server-sent events. A stream sends the current state, then each change. It ends with the daemon, or when the token
// that opened it is revoked or expires; a reconnecting reader gets the current state again.

extension ControlAPI {
    var streamRoutes: [Route] {
        [
            .get("/api/v1/stream") { request, context in
                try request.allowQuery()
                let rate = RateSincePoll()
                return try stream(request, context) {
                    let status = await system.status.status(), now = Date().timeIntervalSince1970
                    return [
                        StreamEvent(
                            "status",
                            Self.line(
                                StatusEvent(
                                    at: Timestamp(microseconds: Int64(now * 1_000_000)).description,
                                    eventsPerSecond: rate.add(status.log.durable), status: status)))
                    ]
                }
            },
            .get("\(Self.tenantPath)/campaigns/{id}/events/stream") { request, context in
                try request.allowQuery()
                let tenant = try context.id("tenant"), id = try context.number("id", Int64.self)
                guard try await system.queries.campaign(tenant: tenant, id: id) != nil else {
                    throw Self.noCampaign(id)
                }
                let seen = LastSeen()
                return try stream(request, context) { try await news(tenant, id, seen) }
            },
        ]
    }

    /// The campaign if it has changed, and the decisions since the last poll. The first poll begins at the newest.
    private func news(_ tenant: String, _ id: Int64, _ seen: LastSeen) async throws -> [StreamEvent] {
        guard let row = try await system.queries.campaign(tenant: tenant, id: id) else {
            return [StreamEvent("deleted", "{}")]
        }
        let begin = seen.position
        let page = try await system.queries.campaignEvents(
            tenant: tenant, id: id,
            page: begin.map { PageRequest(limit: 500, after: $0) } ?? PageRequest(limit: 1, newestFirst: true))
        let positions = page.rows.map { Self.position(of: $0) }
        seen.position = positions.last.flatMap { $0 } ?? begin ?? 0
        let campaign = seen.isNew(row.text) ? [StreamEvent("campaign", row.text)] : []
        guard begin != nil else { return campaign }
        return campaign + zip(page.rows, positions).map { StreamEvent("decision", $0.text, id: $1) }
    }

    private static func position(of row: JSONRow) -> Int64? {
        struct Positioned: Decodable { let position: Int64 }
        return try? JSONDecoder().decode(Positioned.self, from: Data(row.text.utf8)).position
    }

    private static func line(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    /// - Parameter poll: returns the events to send now. A database that is down is reported once, as `unavailable`.
    private func stream(
        _ request: Request, _ context: APIContext, _ poll: @escaping @Sendable () async throws -> [StreamEvent]
    ) throws(Problem) -> Response {
        guard let slot = LimitedSlot(streams) else {
            throw Problem.unavailable(
                "too_many_streams", "there are \(streams.max) streams already", retryAfterSeconds: 10)
        }
        let principal = context.principal
        let events = EventFeed(slot: slot, poll: poll) { policy.isStill(principal, request) }
        return Response(
            status: .ok,
            headers: [
                .contentType: "text/event-stream", .cacheControl: "no-store", .xAccelBuffering: "no",
                .xContentTypeOptions: "nosniff",
            ], body: ResponseBody(asyncSequence: events.cancelOnGracefulShutdown()))
    }
}

/// One event: WHATWG HTML, 9.2.5. Its data is one line of JSON.
struct StreamEvent: Sendable, Equatable {
    let name: String
    let data: String
    let id: Int64?

    init(_ name: String, _ data: String, id: Int64? = nil) {
        self.name = name
        self.data = data
        self.id = id
    }

    var text: String {
        // PostgreSQL's JSON has no line breaks of its own, and those in strings are escaped; a `data:` a line all the
        // same, since a bare one would end the event.
        let data = data.split(whereSeparator: \.isNewline).map { "data: \($0)\n" }.joined()
        return "event: \(name)\n" + (id.map { "id: \($0)\n" } ?? "") + data + "\n"
    }
}

/// Polls when the reader has taken the last events, at most once a second.
struct EventFeed: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    /// Between two polls.
    static let interval: Duration = .seconds(1)
    /// Polls without an event before a keep-alive is sent: proxies close silent connections, and a failed write shows
    /// that the reader has gone.
    static let silenceMax = 15

    let slot: LimitedSlot
    let poll: @Sendable () async throws -> [StreamEvent]
    let mayGoOn: @Sendable () -> Bool

    struct AsyncIterator: AsyncIteratorProtocol {
        let feed: EventFeed
        var hasBegun = false, isAway = false, isOver = false
        var silence = 0

        mutating func next() async throws -> ByteBuffer? {
            while !isOver {
                if hasBegun { try await Task.sleep(for: EventFeed.interval) }
                guard feed.mayGoOn() else { return nil }
                let events = try await found()
                isOver = events.contains { $0.name == "deleted" }
                silence = events.isEmpty ? silence + 1 : 0
                let greeting = hasBegun ? "" : "retry: 2000\n\n"
                hasBegun = true
                if silence >= EventFeed.silenceMax {
                    silence = 0
                    return ByteBuffer(string: ": nothing new\n\n")
                }
                let text = greeting + events.map(\.text).joined()
                if !text.isEmpty { return ByteBuffer(string: text) }
            }
            return nil
        }

        private mutating func found() async throws -> [StreamEvent] {
            do {
                let events = try await feed.poll()
                isAway = false
                return events
            } catch is QueryError {
                defer { isAway = true }
                return isAway ? [] : [StreamEvent("unavailable", "{}")]
            }
        }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(feed: self) }
}

/// The last row and position that a stream has sent. One reader only; its polls are sequential.
private final class LastSeen: Sendable {
    private let state = Mutex<(row: String, position: Int64?)>(("", nil))

    var position: Int64? {
        get { state.withLock { $0.position } }
        set { state.withLock { $0.position = newValue } }
    }

    func isNew(_ row: String) -> Bool {
        state.withLock { state in
            defer { state.row = row }
            return state.row != row
        }
    }
}

/// Events a second between two polls.
private final class RateSincePoll: Sendable {
    private let last = Mutex<(count: UInt64, at: ContinuousClock.Instant)?>(nil)

    func add(_ count: UInt64) -> Double {
        let now = ContinuousClock.now
        return last.withLock { last in
            defer { last = (count, now) }
            guard let before = last, now > before.at, count >= before.count else { return 0 }
            return Double(count - before.count) / ((now - before.at) / .seconds(1))
        }
    }
}

struct StatusEvent: Encodable, Sendable {
    let at: String
    let eventsPerSecond: Double
    let status: SystemStatus

    enum CodingKeys: String, CodingKey { case at, eventsPerSecond = "events_per_second", status }
}

extension HTTPField.Name {
    static let xAccelBuffering = HTTPField.Name("X-Accel-Buffering")!
}
