/// Keeps, for other threads, what they need of a decider's state. It changes at the decision's place in the log:
/// threads that read it and enqueue their own appends while they exclude `willAppend` … `queued` see each decision that
/// is before their batch in the log, and none that is behind it. Called on the decider's thread.
public protocol DecisionFollower<D>: Sendable {
    associatedtype D: Decider

    /// The state was folded from the log up to its end.
    func recovered(_ state: D)

    /// `events` are about to get their place in the log; `state` does not have them.
    func willAppend(_ events: [D.Event], to state: D)

    /// Follows each `willAppend`: they have their place, or will get none.
    func queued()

    /// `state` is final about `events`: it has them, or their append failed. Called without `willAppend` too, when
    /// another decision came first.
    func settle(_ events: [D.Event], in state: D)
}
