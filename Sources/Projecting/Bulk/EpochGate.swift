import EventModel
import Projections
import Threading

/// Where workers hand over the rows of an epoch, and one thread takes them when all have. A worker may be one epoch
/// ahead of what is being written, and not more.
final class EpochGate: Sendable {
    /// By projection, by table.
    typealias Rows = [[RowBuffer]]

    struct Epoch: Sendable {
        let end: Position
        let parts: [Rows]
    }

    private struct State {
        var parts: [Rows?]
        var end = Position(0)
        var taken = 0
        var committed = 0
        var working: Int
        var failure: (any Error)?
        var isAbandoned = false
    }

    private let state: Monitor<State>

    init(workers: Int) {
        state = Monitor(State(parts: [Rows?](repeating: nil, count: workers), working: workers))
    }

    // MARK: workers

    /// Gives the rows of the worker's `number`-th epoch, which ends at `end`. Waits while its last ones are not taken.
    /// False when nobody will take them.
    func submit(_ rows: Rows, worker: Int, end: Position) -> Bool {
        let isTaken = state.wait { (state: inout State) -> Bool? in
            if state.isAbandoned { return false }
            guard state.parts[worker] == nil else { return nil }
            state.parts[worker] = rows
            state.end = end
            return true
        }
        state.wakeAll()
        return isTaken
    }

    /// Returns when the first `count` epochs are in the stores; false when they never will be.
    func waitUntilCommitted(_ count: Int) -> Bool {
        state.wait { $0.isAbandoned ? false : $0.committed >= count ? true : nil }
    }

    func ended(_ failure: (any Error)?) {
        state.withLock { state in
            state.working -= 1
            state.failure = state.failure ?? failure
        }
        state.wakeAll()
    }

    // MARK: the one that writes

    /// The next epoch; nil when the workers have ended.
    func next() throws -> Epoch? {
        let result: Result<Epoch?, any Error> = state.wait { state in
            if let failure = state.failure { return .failure(failure) }
            let parts = state.parts.compactMap { $0 }
            if parts.count == state.parts.count {
                state.parts = state.parts.map { _ in nil }
                state.taken += 1
                return .success(Epoch(end: state.end, parts: parts))
            }
            return state.working == 0 ? .success(nil) : nil
        }
        state.wakeAll()
        return try result.get()
    }

    func committed() {
        state.withLock { $0.committed = $0.taken }
        state.wakeAll()
    }

    /// Nothing more is taken; returns when every worker has ended.
    func close() {
        state.withLock { $0.isAbandoned = true }
        state.wakeAll()
        state.wait { $0.working == 0 ? () : nil }
    }
}
