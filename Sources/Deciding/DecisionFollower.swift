/// Maintains a view of a decider's state for other threads, exact by log position. A thread that excludes the calls
/// `willAppend` … `queued` while it reads the view and enqueues a batch sees exactly the decisions that precede its
/// batch in the log. Called on the decider's thread.
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
