/// The thread of a background service: started once, stopped once, then joined.
public final class ServiceThread: Sendable {
    private struct State {
        var isStopping = false
        var isRunning = false
    }
    private let state = Monitor(State())

    public init() {}

    /// - Parameters:
    ///   - name: what `ps -L` shows; the kernel keeps its first 15 bytes.
    ///   - nice: by how much its priority is lowered.
    ///   - body: returns soon after `isStopping` is true.
    public func start(name: String, nice: Int = 0, _ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.isRunning = true }
        startThread(name: name) { [state] in
            if nice > 0 { lowerPriority(by: nice) }
            body()
            state.withLock { $0.isRunning = false }
            state.wakeAll()
        }
    }

    public var isStopping: Bool { state.withLock { $0.isStopping } }

    /// Waits for so long, or until `stop`. Called by the body.
    public func rest(milliseconds: Int) {
        _ = state.wait(atMostMilliseconds: max(0, milliseconds)) { $0.isStopping ? true : nil }
    }

    public func stop() {
        state.withLock { $0.isStopping = true }
        state.wakeAll()
    }

    /// Blocks until the body has returned; at once when it was never started. Call `stop` before.
    /// - Returns: false when the time is over first.
    public func join(milliseconds: Int) -> Bool {
        state.wait(atMostMilliseconds: milliseconds) { $0.isRunning ? nil : true } ?? false
    }
}
