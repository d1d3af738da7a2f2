import Dispatch
import Foundation

/// SIGTERM, SIGINT and SIGHUP as a thing to wait for. A second SIGTERM or SIGINT during the orderly shutdown ends the
/// process at once: crash-only recovery makes that safe. Signals without a meaning here are ignored: by default they
/// would end the process.
///
/// `@unchecked Sendable`: the dispatch sources, which only lack the annotation, are kept and never touched again.
final class Signals: @unchecked Sendable {
    private let sources: [any DispatchSourceSignal]
    private let stream: AsyncStream<Int32>
    private let continuation: AsyncStream<Int32>.Continuation

    init() {
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)  // a file size limit is a full disk (EFBIG), not a reason to die
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        self.stream = stream
        self.continuation = continuation
        for number in [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGPOLL, SIGPWR] { signal(number, SIG_IGN) }
        // nohup(1) ignores SIGHUP on behalf of its command.
        let hangsUp = unsafeBitCast(signal(SIGHUP, SIG_IGN), to: Int.self) != unsafeBitCast(SIG_IGN, to: Int.self)
        let queue = DispatchQueue(label: "signals")
        let numbers: [Int32] = hangsUp ? [SIGTERM, SIGINT, SIGHUP] : [SIGTERM, SIGINT]
        sources = numbers.map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            nonisolated(unsafe) var seen = 0  // only touched on `queue`
            source.setEventHandler {
                seen += 1
                // A terminal that closes may send SIGHUP twice: the kernel to the group, the shell to its jobs.
                if seen > 1, number != SIGHUP { _exit(128 + number) }
                continuation.yield(number)
            }
            source.resume()
            return source
        }
    }

    /// Returns when a signal came, or `stop()` was called.
    func wait() async {
        for await _ in stream { return }
    }

    /// The daemon wants to stop of itself.
    func stop() { continuation.yield(0) }
}
