import Logging
import ServiceLifecycle
import Threading

/// A long-running part of the daemon: a service whose `run` returns when nothing of it runs any more.
struct DaemonPart: Service {
    /// How long a part's thread or task may take to end before the next part is stopped.
    static let endMilliseconds = 2_000

    let name: String
    private let body: @Sendable () async -> Void

    /// - Parameter body: runs until `shutdown()` returns, and ends what it began.
    init(_ name: String, _ body: @escaping @Sendable () async -> Void) {
        self.name = name
        self.body = body
    }

    /// One with threads of its own.
    init(
        _ name: String, _ threads: [ServiceThread], logger: Logger, start: @escaping @Sendable () -> Void,
        stop: @escaping @Sendable () -> Void
    ) {
        self.init(name) {
            start()
            await Self.shutdown()
            stop()
            let hasEnded = try? await onOwnThread("join") {
                threads.allSatisfy { $0.join(milliseconds: Self.endMilliseconds) }
            }
            if hasEnded != true { Self.report(name, logger) }
        }
    }

    /// One whose work ends when its task is cancelled.
    init(_ name: String, logger: Logger, cancellable work: @escaping @Sendable () async -> Void) {
        self.init(name) {
            let task = Task { await work() }
            await Self.shutdown()
            task.cancel()
            if !(await Self.hasEnded(task)) { Self.report(name, logger) }
        }
    }

    func run() async throws { await body() }

    /// Returns when the part is to stop.
    static func shutdown() async { try? await gracefulShutdown() }

    private static func report(_ name: String, _ logger: Logger) {
        logger.warning("a part of the daemon still runs; stopping the others", metadata: ["part": "\(name)"])
    }

    /// Waits for a task, `endMilliseconds` at most.
    private static func hasEnded(_ task: Task<Void, Never>) async -> Bool {
        let (ends, continuation) = AsyncStream.makeStream(of: Bool.self)
        let waiting = Task {
            await task.value
            continuation.yield(true)
        }
        let patience = Task {
            do { try await Task.sleep(for: .milliseconds(endMilliseconds)) } catch { return }
            continuation.yield(false)
        }
        var iterator = ends.makeAsyncIterator()
        let hasEnded = await iterator.next() ?? true
        patience.cancel()
        waiting.cancel()
        return hasEnded
    }
}

/// Parts that run: started in order, and stopped in the reverse order, each one ended before the next is stopped.
struct RunningParts: Sendable {
    private let group: ServiceGroup
    private let task: Task<Void, Never>

    static func start(_ parts: [DaemonPart], logger: Logger) async -> RunningParts {
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        // A group that does not run yet ignores a request to stop.
        let (begun, continuation) = AsyncStream.makeStream(of: Void.self)
        let first = DaemonPart("begun") { continuation.finish() }
        let services = ([first] + parts).map {
            ServiceGroupConfiguration.ServiceConfiguration(service: $0, successTerminationBehavior: .ignore)
        }
        // No signals: `refold run` waits for them itself.
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(services: services, gracefulShutdownSignals: [], logger: quiet))
        let task = Task {
            do { try await group.run() } catch { logger.error("the daemon's parts failed: \(error)") }
            continuation.finish()
        }
        for await _ in begun {}
        return RunningParts(group: group, task: task)
    }

    func stop() async {
        await group.triggerGracefulShutdown()
        await task.value
    }
}
