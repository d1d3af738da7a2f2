import Queries

/// Dead letters by reason, for `/metrics`, which must never wait for tables: the last answer, and a new question behind
/// it. The tables are the only place that knows; before the first answer there are none.
actor DeadLetterCounts {
    private let queries: QueryPool
    private var last: [(reason: String, count: Int64)] = []
    private var askedAt: ContinuousClock.Instant?
    private var question: Task<Void, Never>?
    /// A scrape waits so long for a fresh answer.
    private static let patience = Duration.milliseconds(250)
    private static let age = Duration.seconds(1)

    init(_ queries: QueryPool) { self.queries = queries }

    func latest() async -> [(reason: String, count: Int64)] {
        if question == nil, askedAt.map({ ContinuousClock.now - $0 > Self.age }) ?? true {
            askedAt = .now
            question = Task { await ask() }
        }
        guard let question else { return last }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { try? await Task.sleep(for: Self.patience) }
            group.addTask { await Self.end(of: question) }
            await group.next()
            group.cancelAll()
        }
        return last
    }

    private func ask() async {
        if let found = try? await queries.use({ try await $0.deadLetterReasons() }) { last = found }
        question = nil
    }

    /// Returns when the question has been answered, or this task is cancelled.
    private static func end(of question: Task<Void, Never>) async {
        let (stream, source) = AsyncStream<Void>.makeStream()
        let watcher = Task {
            await question.value
            source.finish()
        }
        for await _ in stream {}
        watcher.cancel()
    }
}
