import Deciding
import EventLog
import EventModel
import Synchronization

/// Token table read by every request; only the decider writes it.
public final class TokenIndex: Sendable {
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

    /// Nil: what the log says is not known, and nothing is open.
    public func replace(_ new: AccessState?) { state.withLock { $0 = new } }
}

/// The decider of tokens, and the index that requests look into.
public struct AccessDecider: Sendable {
    public let tokenIndex: TokenIndex
    private let service: DeciderService<AccessState>

    /// - Parameters: as of `DeciderService`.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<AccessState>? = { nil }
    ) {
        let tokenIndex = TokenIndex(clock: clock)
        self.tokenIndex = tokenIndex
        // Where what is durable cannot be folded, a revoked token must not go on: the index is closed.
        service = DeciderService(
            writer: writer, source: source, clock: clock, snapshot: snapshot, onChange: { tokenIndex.replace($0) })
    }

    /// The state, refolded the first time it is asked for; from then on the index knows every token.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() async throws -> AccessState { try await service.recover() }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: as `DeciderRuntime.execute`.
    public func execute(_ request: AccessRequest) async throws -> AccessAnswer {
        try await service.execute(NewSecret(for: request))
    }

    /// Keeps the index open until the task is cancelled: see `DeciderService.run`.
    public func run(report: @escaping @Sendable ((any Error)?) -> Void) async { await service.run(report: report) }
}
