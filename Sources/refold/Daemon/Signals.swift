import Dispatch
import Foundation

/// SIGTERM and SIGINT as a thing to wait for. A second one while we stop ends the process at once: crash-only
/// recovery makes that safe.
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
        let queue = DispatchQueue(label: "signals")
        sources = [SIGTERM, SIGINT].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            nonisolated(unsafe) var seen = 0  // only touched on `queue`
            source.setEventHandler {
                seen += 1
                if seen > 1 { _exit(128 + number) }
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
