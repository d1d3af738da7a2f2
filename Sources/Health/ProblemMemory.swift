import EventModel

/// Since when each problem has been there: the first of the verdicts in a row that had it.
public struct ProblemMemory: Sendable {
    private struct Key: Hashable {
        var code: ReasonCode
        var object: String?
    }

    private var began: [Key: Timestamp] = [:]

    public init() {}

    /// The same verdict with every `since` filled in. To be called with every verdict, in order.
    public mutating func complete(_ health: Health, now: Timestamp) -> Health {
        var health = health, current: [Key: Timestamp] = [:]
        for index in health.problems.indices {
            let key = Key(code: health.problems[index].code, object: health.problems[index].object)
            let since = health.problems[index].since ?? began[key] ?? now
            health.problems[index].since = since
            current[key] = since
        }
        began = current
        return health
    }
}
