// How good the rule is that ends a campaign (`SequentialFailureTest`), measured on many simulated campaigns.
//
// A device fails with the true rate, independently of the others. Failures are known soon and successes late; some
// failures are silence that is noticed after hours, and some devices never answer at all and are no result. Devices are
// dispatched at a steady rate, all at once or in stages. Beside the rule, on the same results at the same times:
//
//     SPRT     Wald's test of the threshold against twice the threshold with the same error rate, and without an end in
//              favour of the campaign: of all that are not wrong more often, it stops first at twice the threshold. It
//              takes the devices in the order of sending, those without a result as not failed.
//     naive    the same on results as they come. When failures come first, it is wrong far too often.
//     ratio    failed / (failed + succeeded) is over the threshold
import CampaignRules
import Foundation
import Primitives

public struct AbortQuality: Sendable {
    public enum Rollout: String, Sendable, CaseIterable {
        /// Every result is known before the next device is dispatched.
        case oneByOne = "one by one"
        /// A tenth of the campaign is on its way at a time.
        case linear
        /// 1 %, 10 %, 50 %, 100 %: a stage begins when the one before has ended.
        case canary
    }

    public enum Answers: String, Sendable, CaseIterable {
        /// Failures take as long as successes.
        case alike
        /// Most failures are known after a minute, some by silence after two hours; successes take 20 minutes.
        case failuresFirst = "failures first"
    }

    public struct Cell: Sendable {
        public var threshold: Double
        public var rate: Double
        public var devices: Int
        public var rollout: Rollout
        public var campaigns: Int
        public var seed: UInt64
        /// Share of devices that never answer.
        public var silent = 0.01
        public var answers: Answers

        public init(
            threshold: Double, rate: Double, devices: Int, rollout: Rollout, answers: Answers = .failuresFirst,
            campaigns: Int, seed: UInt64
        ) {
            self.answers = answers
            (self.threshold, self.rate, self.devices) = (threshold, rate, devices)
            (self.rollout, self.campaigns, self.seed) = (rollout, campaigns, seed)
        }
    }

    public struct Tally: Sendable {
        /// Campaigns that were ended.
        public var aborted = 0
        /// Devices that failed or were going to, having been dispatched before the end: of all campaigns together.
        public var harmed = 0
    }

    public struct Outcome: Sendable {
        public var test = Tally()
        public var sprt = Tally()
        public var naive = Tally()
        public var ratio = Tally()
        /// Devices that would have failed without any rule.
        public var failing = 0
    }

    public static func run(_ cell: Cell) -> Outcome {
        var random = SeededRandom(seed: cell.seed), outcome = Outcome()
        for _ in 0..<cell.campaigns {
            let campaign = Campaign(cell, &random)
            outcome.failing += campaign.failing.count
            add(campaign, campaign.end(by: SequentialJudge(cell)), to: &outcome.test)
            add(campaign, campaign.end(by: SequentialJudge(wald: cell)), to: &outcome.sprt)
            add(campaign, campaign.end(by: NaiveJudge(cell)), to: &outcome.naive)
            add(campaign, campaign.end(by: RatioJudge(cell)), to: &outcome.ratio)
        }
        return outcome
    }

    private static func add(_ campaign: Campaign, _ end: Double?, to tally: inout Tally) {
        if end != nil { tally.aborted += 1 }
        tally.harmed += campaign.harmed(by: end ?? .infinity)
    }
}

/// What is asked after every result.
private protocol Judge {
    mutating func sent(_ count: Int)
    mutating func result(_ index: Int, failed: Bool) -> Bool
}

private struct SequentialJudge: Judge {
    private var test: SequentialFailureTest
    init(_ cell: AbortQuality.Cell) { test = SequentialFailureTest(threshold: cell.threshold) }
    init(wald cell: AbortQuality.Cell) {
        test = SequentialFailureTest(
            threshold: cell.threshold, errorRate: 0.01, onlyAgainst: min(2 * cell.threshold, 0.95))
    }

    mutating func sent(_ count: Int) { while test.count < count { test.append() } }
    mutating func result(_ index: Int, failed: Bool) -> Bool {
        guard failed else { return false }
        test.set(index, failed: true)
        return test.exceeds
    }
}

private struct NaiveJudge: Judge {
    private var walk = 0.0
    private let failure: Double
    private let success: Double
    private let limit = log(1 / 0.01)

    init(_ cell: AbortQuality.Cell) {
        let twice = min(2 * cell.threshold, 0.95)
        failure = log(twice / cell.threshold)
        success = log((1 - twice) / (1 - cell.threshold))
    }
    mutating func sent(_ count: Int) {}
    mutating func result(_ index: Int, failed: Bool) -> Bool {
        walk += failed ? failure : success
        return walk >= limit
    }
}

private struct RatioJudge: Judge {
    private let threshold: Double
    private var failed = 0, results = 0
    init(_ cell: AbortQuality.Cell) { threshold = cell.threshold }

    mutating func sent(_ count: Int) {}
    mutating func result(_ index: Int, failed isFailure: Bool) -> Bool {
        results += 1
        if isFailure { failed += 1 }
        return Double(failed) > threshold * Double(results)
    }
}

/// One campaign as it goes when nothing ends it. Times are seconds.
private struct Campaign {
    private struct Result {
        var at: Double
        var index: Int
        var failed: Bool
    }
    /// When each device is dispatched; ascending.
    private var sent: [Double] = []
    private var results: [Result] = []
    /// Devices that fail, in the order of sending.
    private(set) var failing: [Int] = []

    private static let failureSeconds = 60.0
    private static let successSeconds = 1_200.0
    private static let silenceSeconds = 7_200.0

    init(_ cell: AbortQuality.Cell, _ random: inout SeededRandom) {
        sent.reserveCapacity(cell.devices)
        results.reserveCapacity(cell.devices)
        let ends = cell.rollout == .canary ? [0.01, 0.1, 0.5, 1] : [1]
        // A tenth of the devices within the time that a success takes.
        let pause = Self.successSeconds / max(1, 0.1 * Double(cell.devices))
        var now = 0.0, stageEnd = 0.0, stage = 0
        for index in 0..<cell.devices {
            if Double(index) >= (ends[stage] * Double(cell.devices)).rounded(.up) {
                stage += 1
                now = max(now, stageEnd)
            }
            sent.append(now)
            if let after = answer(index, cell, &random) {
                stageEnd = max(stageEnd, now + after)
                now += cell.rollout == .oneByOne ? after : pause
            } else {
                now += pause
            }
        }
        results.sort { $0.at < $1.at }
    }

    /// After how many seconds the device's result is known.
    private mutating func answer(_ index: Int, _ cell: AbortQuality.Cell, _ random: inout SeededRandom) -> Double? {
        func exponential(_ mean: Double) -> Double { -mean * log(1 - Double(random.next() >> 11) * 0x1p-53) }
        if random.chance(cell.silent) { return nil }
        let fails = random.chance(cell.rate), after: Double
        if fails {
            failing.append(index)
        }
        if fails, cell.answers == .failuresFirst {
            after = random.chance(0.2) ? Self.silenceSeconds : exponential(Self.failureSeconds)
        } else {
            after = 0.25 * Self.successSeconds + exponential(0.75 * Self.successSeconds)
        }
        results.append(Result(at: sent[index] + after, index: index, failed: fails))
        return after
    }

    func end(by judge: some Judge) -> Double? {
        var judge = judge, count = 0
        for result in results {
            while count < sent.count, sent[count] <= result.at { count += 1 }
            judge.sent(count)
            if judge.result(result.index, failed: result.failed) { return result.at }
        }
        return nil
    }

    func harmed(by end: Double) -> Int {
        failing.count { sent[$0] <= end }
    }
}
