import EventLog
import EventModel
import Testing
@testable import Deciding

/// One table of cases over every decider.
@Suite struct DeciderTests {
    @Test(arguments: DeciderCase.allCases) func notes(_ test: DeciderCase) throws { try test.run(NoteScript.self) }
    @Test(arguments: DeciderCase.allCases) func access(_ test: DeciderCase) throws { try test.run(AccessScript.self) }
    @Test(arguments: DeciderCase.allCases) func campaigns(_ test: DeciderCase) throws {
        try test.run(CampaignScript.self)
    }
    @Test(arguments: DeciderCase.allCases) func certificates(_ test: DeciderCase) throws {
        try test.run(CertificateScript.self)
    }
}

enum DeciderCase: String, CaseIterable, CustomTestStringConvertible {
    case aRestartFoldsTheSame
    case aSnapshotGoesOnToTheSame
    case aSnapshotBeyondTheEndIsPassedOver
    case aRefusalIsOnTheRecord
    case aKeyHasOneAnswer
    case aKeyKeepsItsAnswerAcrossARestart
    case aKeyKeepsItsAnswerAsLongWhenTheClockSteps
    case aFailedAppendDecidesNothing
    case anAnswerThatWasLostIsGivenAgain
    case aConflictIsDecidedAgain
    case whatCannotBeUnderstoodStopsIt
    case aClockStepThatCannotBeUnderstoodStopsIt
    case decisionsOfOthersArePassedOver
    case anotherDecidersDecisionAboutItsSubjectsIsNoObstacle

    var testDescription: String { rawValue }

    func run<S: DeciderScript>(_ script: S.Type) throws {
        let trial = Trial<S>()
        switch self {
        case .aRestartFoldsTheSame: try trial.restart()
        case .aSnapshotGoesOnToTheSame: try trial.snapshots()
        case .aSnapshotBeyondTheEndIsPassedOver: try trial.snapshotBeyondTheEnd()
        case .aRefusalIsOnTheRecord: try trial.refusal()
        case .aKeyHasOneAnswer: try trial.key { $0 }
        case .aKeyKeepsItsAnswerAcrossARestart: try trial.key { _ in trial.runtime() }
        case .aKeyKeepsItsAnswerAsLongWhenTheClockSteps: try trial.keyAndClock()
        case .aFailedAppendDecidesNothing: try trial.failedAppend()
        case .anAnswerThatWasLostIsGivenAgain: try trial.lostAnswer()
        case .aConflictIsDecidedAgain: try trial.conflict()
        case .whatCannotBeUnderstoodStopsIt: try trial.unreadable(.decision, S.schema)
        case .aClockStepThatCannotBeUnderstoodStopsIt: try trial.unreadable(.system, LogSchema.clockStepped.rawValue)
        case .decisionsOfOthersArePassedOver: try trial.decisionsOfOthers()
        case .anotherDecidersDecisionAboutItsSubjectsIsNoObstacle: try trial.sharedSubjects()
        }
    }
}

/// One log, and deciders over it.
private final class Trial<S: DeciderScript> {
    typealias Runtime = DeciderRuntime<S.D>

    let log = FaultyLog()
    let clock = TestClock()
    private lazy var writer = DecisionWriter(log)

    func runtime(_ snapshot: DeciderSnapshot<S.D>? = nil) -> Runtime {
        // A process begins with it.
        writer = DecisionWriter(log)
        return sibling(snapshot)
    }

    /// Another one in the same process.
    func sibling(_ snapshot: DeciderSnapshot<S.D>? = nil) -> Runtime {
        Runtime(writer: writer, source: log, clock: { [clock] in clock.now }) { snapshot }
    }

    private func runAll(_ runtime: Runtime) throws {
        for request in S.accepted { #expect(try !S.summary(runtime.execute(request)).isRefusal) }
    }

    func restart() throws {
        let live = runtime()
        try runAll(live)
        #expect(try runtime().recover().stored() == live.recover().stored())
    }

    func snapshots() throws {
        let live = runtime()
        var snapshots: [DeciderSnapshot<S.D>] = [DeciderSnapshot(state: S.D(), end: Position(0))]
        for request in S.accepted {
            _ = try live.execute(request)
            let stored = try live.recover().stored(), state = try S.D(stored: stored)
            #expect(state.stored() == stored, "one state, one spelling")
            snapshots.append(DeciderSnapshot(state: state, end: live.end))
        }
        for snapshot in snapshots {
            #expect(try runtime(snapshot).recover().stored() == live.recover().stored(), "from \(snapshot.end)")
        }
        #expect(throws: UnreadableDecision.self) { try S.D(stored: Array("{}".utf8)) }
    }

    func snapshotBeyondTheEnd() throws {
        let live = runtime()
        try runAll(live)
        let snapshot = DeciderSnapshot(state: S.D(), end: Position(log.durableCount + 1))
        #expect(try runtime(snapshot).recover().stored() == live.recover().stored())
    }

    func refusal() throws {
        let answer = S.summary(try runtime().execute(S.refused))
        #expect(answer.isRefusal && answer.position == Position(0) && log.durableCount == 1)
    }

    func key(_ next: (Runtime) -> Runtime) throws {
        let live = runtime(), first = S.summary(try live.execute(S.accepted[0]))
        let appends = log.appends
        #expect(S.summary(try next(live).execute(S.accepted[0])) == first)
        #expect(log.appends == appends, "nothing is appended")
        #expect(S.summary(try next(live).execute(S.underTheSameKey)).isRefusal)
        #expect(S.summary(try next(live).execute(S.accepted[0])) == first, "the refusal leaves the answer")
    }

    func keyAndClock() throws {
        let live = runtime(), first = S.summary(try live.execute(S.accepted[0]))
        for hours in [30, -50] as [Int64] {
            let step = hours * 3_600_000_000
            clock.advance(microseconds: step)
            var event = ClockStepped(before: clock.now.adding(microseconds: -step), after: clock.now)
            event.adopted = true
            let json = eventJSON(event)
            try log.append(
                .system, LogSchema.clockStepped.rawValue, String(decoding: json, as: UTF8.self), at: clock.now)
            #expect(S.summary(try live.execute(S.accepted[0])) == first)
            #expect(S.summary(try runtime().execute(S.accepted[0])) == first, "after a restart too")
        }
        clock.advance(microseconds: 25 * 3_600_000_000)
        let again = try live.execute(S.accepted[0])
        #expect(S.summary(again).position != first.position, "its day is over")
    }

    func failedAppend() throws {
        let live = runtime()
        for failure in [AppendError.full("no space"), .failed("the disk is dead")] {
            log.failure = failure
            #expect(throws: AppendError.self) { try live.execute(S.accepted[0]) }
            #expect(try live.recover().stored() == S.D().stored() && log.durableCount == 0)
        }
        try runAll(live)
        #expect(try runtime().recover().stored() == live.recover().stored())
    }

    func lostAnswer() throws {
        let live = runtime()
        log.losesAnswer = true
        #expect(throws: AppendError.self) { try live.execute(S.accepted[0]) }
        let restarted = runtime(), count = log.durableCount
        #expect(try !S.summary(restarted.execute(S.accepted[0])).isRefusal)
        #expect(log.durableCount == count, "it was decided once")
    }

    func conflict() throws {
        let one = runtime(), other = sibling()
        try one.recover()
        try other.recover()
        var attempts = 0
        for (number, request) in S.accepted.enumerated() {
            // The next read of `durableCount` is stale: the decision is made from an old state.
            let before = log.durableCount
            if number > 0 { log.staleCount = before - 1 }
            let reads = log.countReads
            _ = try (number.isMultiple(of: 2) ? one : other).execute(request)
            attempts += log.countReads - reads
        }
        #expect(attempts > S.accepted.count, "no conflict, no test")
        try other.catchUp()
        let single = Trial(), live = single.runtime()
        try single.runAll(live)
        #expect(try runtime().recover().stored() == live.recover().stored())
        #expect(try other.recover().stored() == live.recover().stored())
    }

    func unreadable(_ kind: EventKind, _ schema: String) throws {
        let live = runtime()
        _ = try live.execute(S.accepted[0])
        try log.append(kind, schema, #"{"id":{}}"#, at: clock.now)
        let appends = log.appends
        #expect(throws: UnreadableDecision.self) { try runtime().recover() }
        #expect(throws: UnreadableDecision.self) { try runtime().execute(S.accepted[1]) }
        #expect(log.appends == appends, "nothing is decided on top of what is not understood")
    }

    func sharedSubjects() throws {
        let scratch = Trial(), first = scratch.runtime()
        var subjects: Set<String> = []
        try scratch.runAll(first)
        let reader = try scratch.log.decisionReader(from: Position(0)), block = EventBlock()
        while try reader.read(into: block, atLeast: 1 << 18) {
            try block.forEach { record, position in
                guard let event = try S.D.Event(record, at: position) else { return }
                subjects.formUnion(event.decision.envelope.subjects)
            }
        }
        #expect(!subjects.isEmpty)
        let live = runtime()
        try live.recover()
        for request in S.accepted {
            var batch = RecordBatch()
            batch.append(kind: .decision, schema: "somebody.decided/1", receivedAt: clock.now, json: Array("{}".utf8))
            _ = try writer.append(&batch, about: subjects.sorted(), ifUnchangedSince: Position(log.durableCount))
            #expect(try !S.summary(live.execute(request)).isRefusal)
        }
    }

    func decisionsOfOthers() throws {
        try log.append(.decision, "somebody.decided/1", "{}", at: clock.now)
        try log.append(.connection, "broker.connected/1", "{}", at: clock.now)
        #expect(try runtime().recover().stored() == S.D().stored())
    }
}
