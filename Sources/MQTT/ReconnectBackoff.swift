/// How long to wait before the next attempt: exponential, with full jitter, so that a fleet of nodes does not come
/// back in step.
public struct ReconnectBackoff: Sendable {
    public struct Settings: Sendable, Equatable {
        public var millisecondsMin = 1_000
        public var millisecondsMax = 60_000
        /// A connection that held this long was a good one: the next wait is short again.
        public var stableMilliseconds = 30_000
        /// While another client uses our client id. Doubles each time.
        public var takenOverMillisecondsMin = 30_000
        public var takenOverMillisecondsMax = 600_000
        public init() {}
    }

    private let settings: Settings
    private var failures = 0
    private var takeovers = 0

    public init(_ settings: Settings) { self.settings = settings }

    /// A connection that was good for `milliseconds` has ended.
    public mutating func connectionLasted(milliseconds: Int) {
        guard milliseconds >= settings.stableMilliseconds else { return }
        failures = 0
        takeovers = 0
    }

    /// Milliseconds to wait now; grows with each call.
    public mutating func next() -> Int {
        let ceiling = Self.doubled(settings.millisecondsMin, failures, settings.millisecondsMax)
        failures += 1
        return Int.random(in: 0...ceiling)
    }

    /// The wait after another client took our client id: never short, because each return throws the other one out.
    public mutating func nextAfterTakeover() -> Int {
        let floor = Self.doubled(settings.takenOverMillisecondsMin, takeovers, settings.takenOverMillisecondsMax)
        takeovers += 1
        return floor + Int.random(in: 0...(floor / 4))
    }

    private static func doubled(_ base: Int, _ times: Int, _ limit: Int) -> Int {
        min(limit, max(1, base) << min(times, 20))
    }
}
