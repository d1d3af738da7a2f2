import EventLog
import EventModel
import Synchronization
import Threading

/// Token table read by every request; only the decider writes it.
public final class AccessBook: Sendable {
    private let state = Mutex<AccessState?>(nil)
    private let clock: @Sendable () -> Timestamp

    /// - Parameter clock: what tells whether a token has expired.
    public init(clock: @escaping @Sendable () -> Timestamp) { self.clock = clock }

    public enum Finding: Sendable, Equatable {
        case found(Principal)
        case unknown
        /// The log's decisions are not read back yet.
        case notReady
    }

    public func find(secret: String) -> Finding {
        let digest = Secrets.sha256(secret), now = clock()
        return state.withLock { state in
            guard let state else { return .notReady }
            return state.principal(secretSHA256: digest, now: now).map(Finding.found) ?? .unknown
        }
    }

    public func find(id: Int64) -> Finding {
        let now = clock()
        return state.withLock { state in
            guard let state else { return .notReady }
            return state.principal(id: id, now: now).map(Finding.found) ?? .unknown
        }
    }

    /// A token was created at some time, or the log is not read back yet: then nothing is open without one.
    public var hasTokens: Bool { state.withLock { $0?.hasEverHadTokens ?? true } }

    /// In the order of their ids. Nil until the log's decisions are read back.
    public var tokens: [AccessState.Token]? {
        state.withLock { $0?.tokens.values.sorted { $0.id < $1.id } }
    }

    public func replace(_ new: AccessState) { state.withLock { $0 = new } }
}

/// A saved state to resume from.
public struct AccessBeginning: Sendable {
    public let state: AccessState
    /// Number of events folded into `state`; the next position to read.
    public let end: Position

    public init(state: AccessState, end: Position) {
        self.state = state
        self.end = end
    }
}

/// The thin actor around `decide`: one command at a time, each durable before it is answered. On a thread of its own,
/// because appending and reading block.
public actor AccessDecider {
    public nonisolated let book: AccessBook
    private let writer: any LogWriter
    private let source: any LogSource
    private let clock: @Sendable () -> Timestamp
    private let beginning: @Sendable () -> AccessBeginning?
    private let executor = ThreadExecutor(name: "access")
    private var folded: AccessState?
    /// The next position to fold into `folded`.
    private var end = Position(0)

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - beginning: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: any LogWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        beginning: @escaping @Sendable () -> AccessBeginning? = { nil }
    ) {
        self.writer = writer
        self.source = source
        self.clock = clock
        self.beginning = beginning
        book = AccessBook(clock: clock)
    }

    /// The state, refolded the first time it is asked for; from then on the book knows every token.
    /// - Throws: `LogError`, `AccessLogError`.
    @discardableResult
    public func recover() throws -> AccessState {
        if let folded { return folded }
        let durable = Position(source.durableCount)
        // A snapshot beyond the log's end belongs to a log that was longer once.
        let start = beginning().flatMap { $0.end <= durable ? $0 : nil }
        var state = start?.state ?? AccessState()
        try state.fold((start?.end ?? Position(0))..<durable, of: source)
        keep(state, end: durable)
        return state
    }

    private func keep(_ state: AccessState, end: Position) {
        (folded, self.end) = (state, end)
        book.replace(state)
    }

    /// Folds the steps of the log's clock among what has become durable; every other event that concerns tokens is this
    /// decider's own, and folded already. Returns a time that is no later than the state's: the clock may step
    /// meanwhile, and the answers move when its event is folded.
    private func catchUp() throws -> Timestamp {
        var state = try recover()
        let before = clock(), durable = Position(source.durableCount)
        if durable > end {
            // Only answers move.
            if !state.answers.isEmpty {
                try source.forEachEvent(of: .clockStepped, in: end..<durable) { record, position in
                    state.moveAnswers(by: try AccessEvent.clockStep(record, at: position).movesTimersBy)
                }
            }
            keep(state, end: durable)
        }
        return min(before, clock())
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `AccessLogError`.
    public func execute(_ request: AccessRequest) throws -> AccessAnswer {
        let now = try catchUp(), secret = Secrets.token()
        var state = try recover()
        switch decide(request, state, now: now, secretSHA256: Secrets.sha256(secret)) {
        case .repeated(let position, let id):
            return try answer(request.command, id, state, position, secret: nil)
        case .reject(let event, let refusal):
            let position = try append([(CampaignSchema.commandRejected.rawValue, event)], now).lowerBound
            return .rejected(position: position, code: refusal.code, reason: refusal.reason)
        case .append(let events):
            let positions = try append(events.map { event in
                switch event {
                case .created(let event): (AccessSchema.tokenCreated.rawValue, event)
                case .revoked(let event): (AccessSchema.tokenRevoked.rawValue, event)
                }
            }, now)
            // Fold the events as recorded, log times included. If that fails, the next command refolds the log: the
            // decision is durable.
            folded = nil
            try state.fold(end..<positions.upperBound, of: source)
            keep(state, end: positions.upperBound)
            let id = switch events[0] {
            case .created(let event): event.id
            case .revoked(let event): event.id
            }
            return try answer(request.command, id, state, positions.lowerBound, secret: secret)
        }
    }

    private func answer(
        _ command: AccessCommand, _ id: Int64, _ state: AccessState, _ position: Position, secret: String?
    ) throws(AccessLogError) -> AccessAnswer {
        guard let token = state.tokens[id] else {
            throw AccessLogError("the decision at position \(position) about token \(id) was not folded")
        }
        guard case .revoke = command else { return .created(position: position, token: token, secret: secret) }
        let also = state.tokens.values.filter { $0.revokedWith == id }.sorted { $0.id < $1.id }
        return .revoked(position: position, token: token, also: also)
    }

    private func append(
        _ events: [(schema: String, event: any Encodable)], _ now: Timestamp
    ) throws -> Range<Position> {
        var batch = RecordBatch()
        for (schema, event) in events {
            batch.append(kind: .decision, schema: schema, receivedAt: now, json: try AccessEvent.json(event))
        }
        return try writer.append(&batch)
    }
}

extension AccessState {
    /// Folds the decisions in `positions`, which must be durable, and the steps of the log's clock.
    /// - Throws: `LogError`, `AccessLogError`.
    public mutating func fold(_ positions: Range<Position>, of source: any LogSource) throws {
        guard !positions.isEmpty else { return }
        let reader = try source.decisionReader(from: positions.lowerBound), block = EventBlock()
        while reader.position < positions.upperBound, try reader.read(into: block, atLeast: 1 << 20) {
            try block.forEach { record, position in
                guard positions.contains(position) else { return }
                if let event = try AccessEvent(record, at: position) {
                    apply(event, at: position, time: record.receivedAt)
                } else if record.kind == .system, record.topicString == LogSchema.clockStepped.rawValue {
                    moveAnswers(by: try AccessEvent.clockStep(record, at: position).movesTimersBy)
                }
            }
        }
        guard reader.position >= positions.upperBound else {
            throw LogError(
                .outOfRange, "the log ends at \(reader.position), before its durable end \(positions.upperBound)")
        }
    }
}
