/// Decides when to unsubscribe the session of an earlier client id, and when it is empty: see `SessionDrain`. Pure: the
/// connection passes its observations; times are µs of a steady clock.
struct DrainProgress {
    enum Step: Equatable {
        case wait
        /// Send an UNSUBSCRIBE.
        case unsubscribe
        /// Send a SUBSCRIBE and an UNSUBSCRIBE.
        case subscribeAgain
        /// The session is empty and unsubscribed.
        case end
    }

    struct Sight {
        var now: Int64
        /// Messages that have come.
        var arrivals: Int
        /// UNSUBACKs that have come.
        var unsubacks: Int
        /// The new session is subscribed.
        var isReplaced: Bool
        /// More is there to be read.
        var hasMore: Bool
        /// Acknowledgements wait to be sent.
        var wantsWrite: Bool
        /// See `SessionDrain.patienceMicros`.
        var patienceMicros: Int64
        /// The broker is known to obey an UNSUBSCRIBE in a resumed session.
        var obeys: Bool
    }

    private let begun: Int64
    private var lastArrival: Int64
    private var seen: Int
    private var replacedAt: Int64?
    private(set) var unsubscribes = 0
    /// Arrivals at the last UNSUBSCRIBE, if nothing was on its way then.
    private var arrivalsThen: Int?
    /// When its UNSUBACK was seen, and the arrivals then.
    private var answer: (at: Int64, arrivals: Int)?
    private var hasSubscribedAgain = false

    init(at now: Int64, arrivals: Int) { (begun, lastArrival, seen) = (now, now, arrivals) }

    /// It has nothing more to deliver, or is taken to have caught up.
    func hasCaughtUp(_ sight: Sight) -> Bool {
        sight.now - begun >= sight.patienceMicros
            && (sight.now - lastArrival >= SessionDrain.idleMicros
                || sight.now - begun >= SessionDrain.catchUpMicrosMax)
    }

    mutating func look(_ sight: Sight) -> Step {
        if sight.arrivals != seen { (seen, lastArrival) = (sight.arrivals, sight.now) }
        guard sight.now - begun >= sight.patienceMicros else { return .wait }
        // On its present connection: a broker that was killed may have lost the new session.
        guard sight.isReplaced else {
            replacedAt = nil
            return .wait
        }
        guard sight.unsubacks == unsubscribes else { return .wait }
        answer = answer ?? (sight.now, sight.arrivals)
        if unsubscribes > 1, sight.arrivals == arrivalsThen { return .end }
        replacedAt = replacedAt ?? sight.now
        let step = next(sight)
        guard step != .wait else { return .wait }
        // Where messages are still on their way, the UNSUBACK will prove nothing.
        arrivalsThen = isSilent(sight) ? sight.arrivals : nil
        (unsubscribes, answer) = (unsubscribes + 1, nil)
        return step
    }

    private mutating func next(_ sight: Sight) -> Step {
        if unsubscribes == 0 {
            // Where an UNSUBSCRIBE drops messages: those from before the new subscription are on their way.
            let isSettled = sight.now - (replacedAt ?? sight.now) >= 2 * SessionDrain.idleMicros && !sight.hasMore
            return sight.patienceMicros == 0 || isSettled ? .unsubscribe : .wait
        }
        // Every further UNSUBSCRIBE only behind a silence, with all PUBACKs sent.
        if isSilent(sight) { return sight.wantsWrite || sight.hasMore ? .wait : .unsubscribe }
        guard !sight.obeys, !hasSubscribedAgain, let answer, sight.arrivals > answer.arrivals,
            sight.now - answer.at >= SessionDrain.answerMicros
        else { return .wait }
        hasSubscribedAgain = true
        return .subscribeAgain
    }

    private func isSilent(_ sight: Sight) -> Bool { sight.now - lastArrival >= 2 * SessionDrain.idleMicros }
}
