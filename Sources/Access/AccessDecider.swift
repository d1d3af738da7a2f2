import Deciding
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

    /// Nil: what the log says is not known, and nothing is open.
    public func replace(_ new: AccessState?) { state.withLock { $0 = new } }
}

/// The thin actor around `DeciderRuntime`: one command at a time, each durable before it is answered. On a thread of
/// its own, because appending and reading block.
public actor AccessDecider {
    public nonisolated let book: AccessBook
    private let runtime: DeciderRuntime<AccessState>
    private let executor = ThreadExecutor(name: "access")
    private let losses: AsyncStream<Void>.Continuation
    /// An element each time the state was lost, because the log could not be read: `recover` is to be called again.
    public nonisolated let stateLosses: AsyncStream<Void>

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<AccessState>? = { nil }
    ) {
        book = AccessBook(clock: clock)
        (stateLosses, losses) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        runtime = DeciderRuntime(writer: writer, source: source, clock: clock, snapshot: snapshot)
    }

    /// The state, refolded the first time it is asked for; from then on the book knows every token.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> AccessState {
        let state = try runtime.recover()
        book.replace(state)
        return state
    }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: as `DeciderRuntime.execute`.
    public func execute(_ request: AccessRequest) throws -> AccessAnswer {
        // What is durable counts, also where the answer fails. Where it cannot be folded, a revoked token must not
        // go on.
        defer {
            book.replace(runtime.state)
            if runtime.state == nil { losses.yield() }
        }
        return try runtime.execute(NewSecret(for: request))
    }
}
