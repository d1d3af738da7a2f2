/// When too many of a campaign's devices have failed. Pure: the same settings and counts give the same answer, so that
/// history can be asked what it would have answered under others (`refold replay what-if`).
public struct AbortRule: Sendable, Equatable {
    /// Share of failed devices among those that have finished, 0 to 1, beyond which the campaign is to end. Nil: never.
    public var threshold: Double?
    /// With fewer finished devices than this nothing is judged.
    public var resultsMin: Int64

    public init(threshold: Double?, resultsMin: Int64 = 1) {
        precondition(threshold.map { (0...1).contains($0) } ?? true && resultsMin >= 1)
        self.threshold = threshold
        self.resultsMin = resultsMin
    }

    public func aborts(succeeded: Int64, failed: Int64) -> Bool {
        guard let threshold, succeeded + failed >= resultsMin else { return false }
        return Double(failed) > threshold * Double(succeeded + failed)
    }

    /// Who is on record as the actor of an abort that the rule decided: what a person decided is never decided again.
    public static let actor = "abort-rule"
}
