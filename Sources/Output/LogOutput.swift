import Glibc
import Threading

/// Writes lines to a descriptor from a thread of its own, so that the caller never waits and never fails.
public final class LogOutput: Sendable {
    /// The log lines of this process: standard error, or the descriptor given to `redirect`.
    public static let shared = LogOutput(STDERR_FILENO)

    public struct Statistics: Sendable, Equatable {
        /// Lines written completely.
        public var written: UInt64
        /// Lines dropped because the output failed or was too slow (`refold_log_lines_dropped_total`).
        public var dropped: UInt64
        /// Lines that wait to be written.
        public var waiting: Int
        /// Why the last write failed; nil when it succeeded.
        public var lastError: String?
        /// How long a write has not returned: nobody reads the pipe, or the terminal is stopped. 0 otherwise.
        public var blockedSeconds: Double
    }

    /// Result of one write: the number of bytes taken, or an errno.
    public enum WriteResult: Sendable {
        case wrote(Int), failed(Int32)

        /// POSIX leaves open when write(2) takes nothing of `bytes` without an error. Repeated at once it has no end:
        /// it counts as EIO.
        func checked(_ bytes: ArraySlice<UInt8>) -> WriteResult {
            if case .wrote(let count) = self, count <= 0, !bytes.isEmpty { return .failed(Errno.nothingTaken) }
            return self
        }
    }

    private struct State {
        var queue: LineQueue
        var descriptor: Int32
        var isStarted = false
        /// Start of a write that has not returned.
        var writingSince: ContinuousClock.Instant?
        /// Grows with every failed write: `flush` does not wait for an output that fails.
        var failures: UInt64 = 0
    }

    private let state: Monitor<State>
    private let write: @Sendable (Int32, ArraySlice<UInt8>) -> WriteResult
    private static let pauseMilliseconds = 200

    /// - Parameter descriptor: stays open for ever: the thread writes to that number as long as the process lives.
    public init(
        _ descriptor: Int32, limits: LineQueue.Limits = .init(),
        makeNotice: @escaping @Sendable (UInt64) -> [UInt8] = { Array("\($0) log lines dropped\n".utf8) },
        write: @escaping @Sendable (Int32, ArraySlice<UInt8>) -> WriteResult = { writeOnce($0, $1) }
    ) {
        signal(SIGPIPE, SIG_IGN)  // a reader that is gone is EPIPE, not the end of the process
        state = Monitor(State(queue: LineQueue(limits, makeNotice: makeNotice), descriptor: descriptor))
        self.write = write
    }

    /// Queues bytes that end with a newline. Never blocks; drops and counts the line when the queue is full.
    public func add(_ line: [UInt8]) {
        let mustStart = state.withLock { state in
            state.queue.add(line)
            defer { state.isStarted = true }
            return !state.isStarted
        }
        // Without a thread (a limit of the system) lines wait and the next call tries again.
        if mustStart, !tryStartThread(name: "log output", { [self] in run() }) {
            state.withLock { $0.isStarted = false }
        }
        state.wakeAll()
    }

    /// Writes to another descriptor from the next line on, with other words for dropped lines.
    public func redirect(to descriptor: Int32? = nil, makeNotice: @escaping @Sendable (UInt64) -> [UInt8]) {
        state.withLock { state in
            if let descriptor { state.descriptor = descriptor }
            state.queue.makeNotice = makeNotice
        }
    }

    public var statistics: Statistics {
        state.withLock { state in
            let counts = state.queue.statistics
            let blocked = state.writingSince.map { (ContinuousClock.now - $0) / .seconds(1) } ?? 0
            return Statistics(
                written: counts.written, dropped: counts.dropped, waiting: counts.waiting,
                lastError: counts.lastErrorCode.map(errorText), blockedSeconds: blocked < 1 ? 0 : blocked)
        }
    }

    /// Waits until everything queued is written, or the output fails, or the time is over: a process that ends does
    /// not wait for a reader that does not read. Returns whether everything is written or dropped.
    @discardableResult
    public func flush(atMostMilliseconds limit: Int) -> Bool {
        let before = state.withLock { $0.isStarted || $0.queue.isEmpty ? $0.failures : nil }
        guard let before else { return false }
        return state.wait(atMostMilliseconds: limit) { state -> Bool? in
            if state.queue.isEmpty, state.writingSince == nil { return true }
            return state.failures > before ? false : nil
        } ?? false
    }

    private func run() {
        while true {
            let (descriptor, bytes) = state.wait { state -> (Int32, ArraySlice<UInt8>)? in
                guard let bytes = state.queue.next() else { return nil }
                state.writingSince = .now
                return (state.descriptor, bytes)
            }
            let result = write(descriptor, bytes).checked(bytes)
            let step = state.withLock { state -> LineQueue.Step in
                switch result {
                case .wrote(let count):
                    state.writingSince = nil
                    state.queue.wrote(count)
                    return .goOn
                case .failed(let code):
                    let step = state.queue.failed(code)
                    // A full pipe in non-blocking mode is a write that has not returned, too.
                    if step != .waitForOutput {
                        state.writingSince = nil
                        if step == .pause { state.failures &+= 1 }
                    }
                    return step
                }
            }
            state.wakeAll()
            switch step {
            case .goOn: break
            case .waitForOutput:
                var wanted = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                if poll(&wanted, 1, 1000) < 0 { usleep(10_000) }
            case .pause: usleep(UInt32(Self.pauseMilliseconds) * 1000)
            }
        }
    }
}

/// One write(2).
public func writeOnce(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>) -> LogOutput.WriteResult {
    let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    return count < 0 ? .failed(errno) : .wrote(count)
}

/// Writes all bytes, waiting for the reader as programs do that a person or a shell started. Returns 0 or an errno.
public func writeFully(
    _ descriptor: Int32, _ bytes: [UInt8], write: (Int32, ArraySlice<UInt8>) -> LogOutput.WriteResult = writeOnce
) -> Int32 {
    var rest = bytes[...]
    while !rest.isEmpty {
        switch write(descriptor, rest).checked(rest) {
        case .wrote(let count): rest = rest.dropFirst(count)
        case .failed(EINTR): continue
        case .failed(EAGAIN):
            var wanted = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            if poll(&wanted, 1, 1000) < 0, errno != EINTR { return errno }
        case .failed(let code): return code
        }
    }
    return 0
}

/// Opens /dev/null for each standard stream that the parent closed. Without that the next file or socket that the
/// process opens gets number 0, 1 or 2, and log lines are written into it.
public func openMissingStandardStreams() {
    for descriptor: Int32 in 0...2 where fcntl(descriptor, F_GETFD) < 0 && errno == EBADF {
        // open(2) returns the lowest free number, which is this one: those below are open by now.
        _ = open("/dev/null", descriptor == 0 ? O_RDONLY : O_WRONLY)
    }
}
