import EventModel
import Primitives
import Testing

@testable import CampaignRules

/// A device's part as a trace: what happens, and where it stands after each.
struct TargetProgressTests {
    enum Step: Sendable {
        /// A report; `of`: it carries the id of the attempt's command, counted from 1.
        case says(TargetProgress.Report, of: Int? = nil)
        case dispatched
        case ends(OTADeviceStatus, OTAFailureKind? = nil)
        /// The decision was made before the last event about the part was known.
        case dispatchedUnaware
        case endsUnaware(OTADeviceStatus)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var verifies: Bool
        var steps: [(step: Step, status: OTADeviceStatus)]
        var kind: OTAFailureKind?
        var testDescription: String { name }

        init(
            _ name: String, verifies: Bool = false, kind: OTAFailureKind? = nil, _ steps: [(Step, OTADeviceStatus)]
        ) {
            (self.name, self.verifies, self.kind, self.steps) = (name, verifies, kind, steps)
        }
    }

    static let cases: [Case] = [
        Case(
            "all goes well",
            [
                (.dispatched, .downloading), (.says(.downloading), .downloading), (.says(.installing), .installing),
                (.says(.success), .success),
            ]),
        Case(
            "its SUCCESS is to be seen", verifies: true,
            [
                (.dispatched, .downloading), (.says(.success), .verifying), (.ends(.success), .success),
            ]),
        Case(
            "its SUCCESS was not seen", verifies: true, kind: .notVerified,
            [
                (.dispatched, .downloading), (.says(.success), .verifying), (.ends(.failed, .notVerified), .failed),
                (.says(.success), .failed),
            ]),
        Case(
            "it went back to the old version", verifies: true, kind: .rolledBack,
            [
                (.dispatched, .downloading), (.says(.success), .verifying), (.ends(.failed, .rolledBack), .failed),
            ]),
        Case(
            "FAILED after SUCCESS, while the version is awaited: the first stands", verifies: true,
            [
                (.dispatched, .downloading), (.says(.success), .verifying), (.says(.failed), .verifying),
            ]),
        Case(
            "it fails at the download", kind: .download,
            [
                (.dispatched, .downloading), (.says(.downloading), .downloading), (.says(.failed), .failed),
            ]),
        Case("it fails at once", kind: .download, [(.dispatched, .downloading), (.says(.failed), .failed)]),
        Case(
            "it fails at the installation", kind: .install,
            [
                (.dispatched, .downloading), (.says(.installing), .installing), (.says(.failed), .failed),
            ]),
        Case(
            "it refuses", kind: .rejected,
            [
                (.dispatched, .downloading), (.ends(.failed, .rejected), .failed), (.says(.success), .failed),
            ]),
        Case(
            "contradictory: the first result stands",
            [
                (.dispatched, .downloading), (.says(.success), .success), (.says(.failed), .success),
                (.says(.downloading), .success),
            ]),
        Case(
            "contradictory, the other way round", kind: .download,
            [
                (.dispatched, .downloading), (.says(.failed), .failed), (.says(.success), .failed),
                (.says(.installing), .failed),
            ]),
        Case(
            "said twice",
            [
                (.dispatched, .downloading), (.says(.downloading), .downloading), (.says(.downloading), .downloading),
                (.says(.success), .success), (.says(.success), .success),
            ]),
        Case(
            "INSTALLING, and the DOWNLOADING before it after it",
            [
                (.dispatched, .downloading), (.says(.installing), .installing), (.says(.downloading), .downloading),
                (.says(.success), .success),
            ]),
        Case(
            "a campaign of the time before there was an engine",
            [
                (.says(.downloading), .downloading), (.says(.installing), .installing), (.says(.success), .success),
            ]),

        // What was concluded from silence yields.
        Case(
            "late SUCCESS after TIMED_OUT",
            [
                (.dispatched, .downloading), (.says(.installing), .installing), (.ends(.timedOut), .timedOut),
                (.says(.success), .success),
            ]),
        Case(
            "late FAILED after TIMED_OUT stays among the failed", kind: .download,
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.says(.failed), .failed),
                (.says(.success), .failed),
            ]),
        Case(
            "UNREACHABLE, and there it is",
            [
                (.dispatched, .downloading), (.ends(.unreachable), .unreachable), (.says(.downloading), .downloading),
                (.says(.success), .success),
            ]),
        Case(
            "late SUCCESS after TIMED_OUT is verified all the same", verifies: true,
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.says(.success), .verifying),
                (.ends(.success), .success),
            ]),
        Case(
            "SKIPPED, and it had been told by another way",
            [
                (.ends(.skipped), .skipped), (.says(.success), .success),
            ]),
        Case(
            "concluded once only", kind: .timedOut,
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.ends(.unreachable), .timedOut),
            ]),
        Case(
            "concluded twice, with a sign of life between", kind: .timedOut,
            [
                (.dispatched, .downloading), (.ends(.unreachable), .unreachable), (.says(.downloading), .downloading),
                (.ends(.timedOut), .timedOut),
            ]),

        // Another attempt.
        Case(
            "a retry",
            [
                (.dispatched, .downloading), (.says(.failed), .failed), (.dispatched, .downloading),
                (.says(.downloading), .downloading), (.says(.success), .success),
            ]),
        Case(
            "a retry: the first attempt's FAILED comes twice",
            [
                (.dispatched, .downloading), (.says(.failed), .failed), (.dispatched, .downloading),
                (.says(.failed), .downloading), (.says(.downloading), .downloading), (.says(.success), .success),
            ]),
        Case(
            "a retry: a result without DOWNLOADING before it and without an id is nobody's",
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.dispatched, .downloading),
                (.says(.installing), .downloading), (.says(.success), .downloading),
            ]),
        Case(
            "a retry: with the command's id it counts at once",
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.dispatched, .downloading),
                (.says(.success, of: 2), .success),
            ]),
        Case(
            "a retry: with the older command's id it never counts", kind: .unreachable,
            [
                (.dispatched, .downloading), (.ends(.timedOut), .timedOut), (.dispatched, .downloading),
                (.says(.downloading), .downloading), (.says(.success, of: 1), .downloading),
                (.says(.failed, of: 1), .downloading), (.ends(.unreachable), .unreachable),
                (.says(.success, of: 1), .unreachable),
            ]),
        Case(
            "a retry of what was SKIPPED",
            [
                (.ends(.skipped), .skipped), (.dispatched, .downloading), (.says(.success), .success),
            ]),
        Case(
            "nobody is sent for again after SUCCESS",
            [
                (.dispatched, .downloading), (.says(.success), .success), (.dispatched, .success),
            ]),
        Case(
            "nobody is sent for twice", verifies: true,
            [
                (.dispatched, .downloading), (.dispatched, .downloading), (.says(.installing), .installing),
                (.dispatched, .installing), (.says(.success), .verifying), (.dispatched, .verifying),
            ]),

        // Decisions that did not know.
        Case("it reported before it was sent for", [(.says(.success), .success), (.dispatchedUnaware, .success)]),
        Case(
            "it reported before it was skipped",
            [
                (.says(.downloading), .downloading), (.endsUnaware(.skipped), .downloading),
            ]),
        Case(
            "its SUCCESS overtook the conclusion",
            [
                (.dispatched, .downloading), (.says(.installing), .installing), (.endsUnaware(.timedOut), .installing),
                (.says(.success), .success),
            ]),
        Case(
            "a report that changes nothing makes it void as well", kind: .timedOut,
            [
                (.dispatched, .downloading), (.says(.downloading), .downloading), (.ends(.timedOut), .timedOut),
                (.dispatched, .downloading), (.says(.success, of: 1), .downloading),
                (.endsUnaware(.unreachable), .downloading),
                (.ends(.timedOut), .timedOut),
            ]),
    ]

    @Test(arguments: cases) func trace(_ item: Case) {
        var part = TargetProgress(targetedAt: Position(10)), commands: [Position] = [], now: UInt64 = 10
        for (index, (step, status)) in item.steps.enumerated() {
            now += 10
            let before = part, at = Position(now), unaware = Position(part.last.rawValue - 1)
            let effect: TargetProgress.Effect
            switch step {
            case .says(let report, let attempt):
                let id = attempt.map { commands[$0 - 1] }
                effect = part.apply(report, command: id, verifies: item.verifies, at: at)
                #expect(part.last == at)
            case .dispatched:
                effect = part.dispatch(seen: part.last, at: at)
                if effect != .none { commands.append(at) }
            case .ends(let status, let kind):
                effect = part.end(as: status, kind: kind, seen: part.last, at: at)
            case .dispatchedUnaware:
                effect = part.dispatch(seen: unaware, at: at)
                #expect(part == before)
            case .endsUnaware(let status):
                effect = part.end(as: status, kind: nil, seen: unaware, at: at)
                #expect(part == before)
            }
            #expect(part.status == status, "after step \(index)")
            #expect(effect == (effect == .none ? .none : .changed(from: before.status)))
        }
        #expect(part.kind == item.kind)
        #expect(Int(part.attempt) == commands.count)
        #expect(part.command == commands.last)
    }

    /// Whatever comes in whatever order.
    @Test func whatHoldsAlways() {
        var random = SeededRandom(seed: 11)
        func pick<T>(_ from: [T]) -> T { from[Int(random.next() % UInt64(from.count))] }
        for _ in 0..<20_000 {
            var part = TargetProgress(targetedAt: Position(1)), seen: [Position] = [Position(1)],
                commands: [Position] = []
            /// What the device has reported first in this attempt.
            var result: OTADeviceStatus?
            let verifies = pick([true, false])
            for number in 2..<UInt64(2 + random.next() % 24) {
                let before = part, at = Position(number)
                switch random.next() % 10 {
                case 0, 1:
                    let knows = pick([part.last, part.last, pick(seen)])
                    if part.dispatch(seen: knows, at: at) != .none {
                        #expect(knows == before.last && !before.status.isInFlight && before.status != .success)
                        commands.append(at)
                        result = nil
                    } else {
                        #expect(part == before)
                    }
                case 2, 3:
                    let status =
                        part.status == .verifying
                        ? pick([.success, .failed])
                        : pick([OTADeviceStatus.success, .failed, .skipped, .timedOut, .unreachable])
                    let knows = pick([part.last, part.last, pick(seen)])
                    if part.end(as: status, kind: .rejected, seen: knows, at: at) != .none {
                        #expect(knows == before.last && !before.status.hasEnded && part.status == status)
                        if status == .failed || status == .success { result = status }
                    } else {
                        #expect(part == before)
                    }
                default:
                    let report = pick([TargetProgress.Report.downloading, .installing, .success, .failed])
                    let id = pick([nil, nil, commands.last, commands.isEmpty ? nil : pick(commands)])
                    let effect = part.apply(report, command: id, verifies: verifies, at: at)
                    #expect(part.last == at && part.attempt == before.attempt && part.command == before.command)
                    if let id, let current = commands.last, id < current { #expect(effect == .none) }
                    // A result of this attempt is taken, the first of them, whatever the engine thought before.
                    let isOurs = commands.count < 2 || id == commands.last || id == nil && before.hasBegun
                    if isOurs, id == nil || id == commands.last, report == .success || report == .failed {
                        if result == nil { result = part.status }
                        #expect(part.status == result)
                    }
                }
                seen.append(part.last)
                #expect(Int(part.attempt) == commands.count && part.command == commands.last)
                #expect((part.kind != nil) == (part.status.count == .failed))
                if let result, part.status != result {
                    Issue.record("\(result) became \(part.status)")
                }
            }
        }
    }
}
