import Testing
@testable import Ingest

/// When the session of an earlier client id is unsubscribed, and when it counts as empty.
@Suite struct DrainProgressTests {
    /// An old session at a broker, in steps of 50 ms.
    private struct Trial {
        /// Milliseconds at which messages come while the session is subscribed.
        var arrives: (Int) -> Bool
        var obeys = true
        /// The broker carries out an UNSUBSCRIBE only in a session that has subscribed on this connection.
        var needsSubscribe = false
        var patience: Int64 = 0
        var replacedAt = 0
        /// Messages come for so long after the UNSUBSCRIBE was carried out.
        var tailMilliseconds = 0
        var answerMilliseconds = 50

        /// The steps and their times in ms, until the end or for ten minutes.
        func run() -> [(at: Int, step: DrainProgress.Step)] {
            var progress = DrainProgress(at: 0, arrivals: 0), steps: [(at: Int, step: DrainProgress.Step)] = []
            var arrivals = 0, unsubacks = 0, answers: [Int] = [], hasSubscribed = false, endsAt: Int?
            for at in stride(from: 50, through: 600_000, by: 50) {
                if endsAt.map({ at < $0 }) ?? true, arrives(at) { arrivals += 1 }
                unsubacks += answers.filter { $0 == at }.count
                let step = progress.look(
                    DrainProgress.Sight(
                        now: Int64(at) * 1_000, arrivals: arrivals, unsubacks: unsubacks, isReplaced: at >= replacedAt,
                        hasMore: false, wantsWrite: false, patienceMicros: patience * 1_000, obeys: obeys))
                guard step != .wait else { continue }
                steps.append((at, step))
                if step == .end { break }
                if step == .subscribeAgain { hasSubscribed = true }
                answers.append(at + answerMilliseconds)
                if !needsSubscribe || hasSubscribed { endsAt = endsAt ?? at + answerMilliseconds + tailMilliseconds }
            }
            return steps
        }
    }

    @Test func anEmptySessionIsUnsubscribedAndEnded() {
        let steps = Trial(arrives: { _ in false }).run()
        #expect(steps.map(\.step) == [.unsubscribe, .unsubscribe, .end])
        #expect(steps[1].at >= 2_000, "the second behind a silence")
    }

    @Test func trafficEndsWithTheUnsubscribe() {
        let steps = Trial(arrives: { _ in true }, tailMilliseconds: 700).run()
        #expect(steps.map(\.step) == [.unsubscribe, .unsubscribe, .end])
    }

    @Test func nothingIsUnsubscribedBeforeTheNewSessionIsThere() {
        let steps = Trial(arrives: { _ in true }, replacedAt: 30_000).run()
        #expect(steps.first?.at == 30_000)
    }

    @Test func whereABrokerDeliversLateTheOldSessionIsReadFirst() {
        let steps = Trial(arrives: { $0 < 70_000 }, obeys: false, patience: 75_000).run()
        #expect(steps.first.map { $0.at >= 77_000 } == true)
        #expect(steps.map(\.step) == [.unsubscribe, .unsubscribe, .end])
    }

    /// RabbitMQ 3.10: under traffic the old session was never silent.
    @Test func aBrokerThatIgnoresAnUnsubscribeIsSubscribedAgain_rabbitmq() {
        let steps = Trial(arrives: { _ in true }, obeys: false, needsSubscribe: true, patience: 75_000).run()
        #expect(steps.map(\.step) == [.unsubscribe, .subscribeAgain, .unsubscribe, .end])
        #expect(steps.last.map { $0.at < 90_000 } == true)
    }

    /// Its answer comes in a pause of a backlog: what is left would be lost with the session.
    @Test func aPauseBesideAnAnswerIsNoProof() {
        var trial = Trial(arrives: { _ in true }, obeys: false, needsSubscribe: true, patience: 75_000)
        trial.arrives = { $0 < 80_100 || ($0 > 80_400 && $0 < 95_000) }
        trial.tailMilliseconds = .max / 2
        let steps = trial.run()
        #expect(steps.last.map { $0.step == .end && $0.at > 96_000 } == true, "\(steps)")
    }

    @Test func aSlowAnswerIsNotTakenForNone() {
        let steps = Trial(arrives: { _ in true }, obeys: false, answerMilliseconds: 5_000).run()
        #expect(steps.map(\.step) == [.unsubscribe, .unsubscribe, .end])
    }

    @Test func messagesWithoutEndAreSubscribedAgainOnlyOnce() {
        let steps = Trial(arrives: { _ in true }, obeys: false, tailMilliseconds: .max / 2).run()
        #expect(steps.map(\.step) == [.unsubscribe, .subscribeAgain])
    }

    @Test(arguments: [false, true]) func itHasCaughtUpWhenItIsSilentOrLate(isSilent: Bool) {
        var progress = DrainProgress(at: 0, arrivals: 0), caughtUpAt: Int64?
        for second in 1...100 as ClosedRange<Int64> {
            let sight = DrainProgress.Sight(
                now: second * 1_000_000, arrivals: isSilent ? 0 : Int(second), unsubacks: 0, isReplaced: false,
                hasMore: false, wantsWrite: false, patienceMicros: 0, obeys: true)
            #expect(progress.look(sight) == .wait)
            if progress.hasCaughtUp(sight) { caughtUpAt = caughtUpAt ?? second }
        }
        #expect(caughtUpAt == (isSilent ? 1 : 60))
    }
}
