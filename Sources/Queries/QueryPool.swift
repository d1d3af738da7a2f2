import Postgres
import Synchronization

/// A few connections for reads, and a bounded queue before them.
///
/// A read that waits behind locked tables must not hold up the others for ever: at most `waitersMax` wait, each for
/// `patience`; a cancelled read leaves the queue at once, or interrupts its connection when it has one.
public final class QueryPool: Sendable {
    /// Why a read was not begun, or not finished.
    public enum Refusal: Error, Sendable {
        /// Too many reads wait already, or this one has waited too long.
        case busy
        /// The caller's task was cancelled.
        case cancelled
    }

    private struct Waiter {
        let id: UInt64
        let continuation: CheckedContinuation<Result<Int, Refusal>, Never>
    }

    private struct State {
        var idle: [Int]
        var waiters: [Waiter] = []
        var nextID: UInt64 = 0
        /// Cancelled before they waited.
        var cancelled: Set<UInt64> = []
    }

    private let connections: [TableQueries]
    private let waitersMax: Int
    private let patience: Duration
    private let state: Mutex<State>

    public init(databaseURL: String, size: Int = 3, waitersMax: Int = 64, patience: Duration = .seconds(5)) {
        connections = (0..<size).map { _ in TableQueries(databaseURL: databaseURL) }
        self.waitersMax = waitersMax
        self.patience = patience
        state = Mutex(State(idle: Array(0..<size)))
    }

    /// Connections that it may hold at once.
    public var size: Int { connections.count }

    /// - Throws: `Refusal`, `PostgresError`.
    public func use<R: Sendable>(_ body: @Sendable (TableQueries) async throws -> R) async throws -> R {
        let index = try await acquire().get()
        defer { release(index) }
        if Task.isCancelled { throw Refusal.cancelled }
        let connection = connections[index]
        let lease = connection.begin()
        do {
            let result = try await withTaskCancellationHandler {
                try await body(connection)
            } onCancel: {
                connection.interrupt(lease)
            }
            connection.end(lease)
            return result
        } catch {
            connection.end(lease)
            if Task.isCancelled { throw Refusal.cancelled }
            throw error
        }
    }

    private func acquire() async -> Result<Int, Refusal> {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let timer = Task { [weak self, patience] in
            try? await Task.sleep(for: patience)
            if !Task.isCancelled { self?.giveUp(id, .busy) }
        }
        defer { timer.cancel() }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Result<Int, Refusal>? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return .failure(.cancelled) }
                    if let index = state.idle.popLast() { return .success(index) }
                    guard state.waiters.count < waitersMax else { return .failure(.busy) }
                    state.waiters.append(Waiter(id: id, continuation: continuation))
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            giveUp(id, .cancelled)
        }
    }

    private func giveUp(_ id: UInt64, _ refusal: Refusal) {
        let waiter = state.withLock { state in
            guard let index = state.waiters.firstIndex(where: { $0.id == id }) else {
                // Not yet in the queue, or out of it; the set is emptied by whoever finds itself in it.
                if refusal == .cancelled { state.cancelled.insert(id) }
                return nil as Waiter?
            }
            return state.waiters.remove(at: index)
        }
        waiter?.continuation.resume(returning: .failure(refusal))
    }

    private func release(_ index: Int) {
        let next = state.withLock { state in
            if state.idle.count + 1 == connections.count { state.cancelled.removeAll() }
            guard !state.waiters.isEmpty else {
                state.idle.append(index)
                return nil as Waiter?
            }
            return state.waiters.removeFirst()
        }
        next?.continuation.resume(returning: .success(index))
    }
}
