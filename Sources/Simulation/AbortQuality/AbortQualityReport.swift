/// The tables of `refold-sim abort-quality`, in Markdown, row by row as they are known.
public struct AbortQualityReport: Sendable {
    public var seed: UInt64
    /// 1: for the record; smaller: in less time, with less certainty.
    public var effort: Double
    static let thresholds = [0.01, 0.05, 0.1]
    static let sizes = [100, 1_000, 10_000, 100_000]

    public init(seed: UInt64 = 1, effort: Double = 1) {
        (self.seed, self.effort) = (seed, effort)
    }

    public func write(_ line: (String) -> Void) {
        line("Campaigns that were ended although no more failed than is allowed; the worst of three rollouts:")
        line("")
        line("| threshold | devices | campaigns | rate 0 | half of it | the threshold | SPRT | naive | ratio |")
        line("|---|---|---|---|---|---|---|---|---|")
        for threshold in Self.thresholds {
            for devices in Self.sizes { line(wronglyEnded(threshold, devices)) }
        }
        line("")
        line("Devices harmed a campaign (failed, or sent for and going to), where more fail than is allowed:")
        line("")
        line("| threshold | rate | devices | rollout | answers | no rule | ratio | naive | SPRT | test | test/SPRT |")
        line("|---|---|---|---|---|---|---|---|---|---|---|")
        for threshold in Self.thresholds {
            for devices in Self.sizes.dropFirst() { harm(threshold, 2 * threshold, devices, line) }
        }
        for devices in Self.sizes.dropFirst() { harm(0.05, 0.3, devices, line) }
        line("")
        line("Threshold 5 %, 10,000 devices, linear, failures first: by the true rate:")
        line("")
        line("| true rate | ended by the test | by the ratio | harmed: no rule | ratio | SPRT | test |")
        line("|---|---|---|---|---|---|---|")
        for rate in [0, 0.01, 0.025, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.3] { line(byRate(rate)) }
    }

    private func campaigns(_ devices: Int) -> Int {
        let full = [100: 10_000, 1_000: 10_000, 10_000: 4_000][devices] ?? 1_000
        return max(20, Int(Double(full) * effort))
    }

    private func wronglyEnded(_ threshold: Double, _ devices: Int) -> String {
        let campaigns = campaigns(devices)
        var tests: [Int] = [], others = [0, 0, 0]
        for rate in [0, threshold / 2, threshold] {
            let outcomes = AbortQuality.Rollout.allCases.map { rollout in
                AbortQuality.run(
                    .init(
                        threshold: threshold, rate: rate, devices: devices, rollout: rollout, campaigns: campaigns,
                        seed: seed))
            }
            tests.append(outcomes.map(\.test.aborted).max() ?? 0)
            others = [\AbortQuality.Outcome.sprt.aborted, \.naive.aborted, \.ratio.aborted].map { path in
                outcomes.map { $0[keyPath: path] }.max() ?? 0
            }
        }
        let shares = (tests + others).map { Self.percent(Double($0) / Double(campaigns)) }
        return Self.row([Self.percent(threshold), Self.grouped(devices), Self.grouped(campaigns)] + shares)
    }

    private func harm(_ threshold: Double, _ rate: Double, _ devices: Int, _ line: (String) -> Void) {
        let ways: [(AbortQuality.Rollout, AbortQuality.Answers)] = [
            (.oneByOne, .alike), (.linear, .alike), (.linear, .failuresFirst), (.canary, .alike),
            (.canary, .failuresFirst),
        ]
        for (rollout, answers) in ways {
            let campaigns = max(10, campaigns(devices) / 10)
            let outcome = AbortQuality.run(
                .init(
                    threshold: threshold, rate: rate, devices: devices, rollout: rollout, answers: answers,
                    campaigns: campaigns, seed: seed))
            let means = [
                outcome.failing, outcome.ratio.harmed, outcome.naive.harmed, outcome.sprt.harmed, outcome.test.harmed,
            ].map { Self.tenths(Double($0) / Double(campaigns)) }
            line(
                Self.row(
                    [
                        Self.percent(threshold), Self.percent(rate), Self.grouped(devices), rollout.rawValue,
                        answers.rawValue,
                    ] + means + [Self.hundredths(Double(outcome.test.harmed) / Double(max(1, outcome.sprt.harmed)))]))
        }
    }

    private func byRate(_ rate: Double) -> String {
        let campaigns = max(10, campaigns(10_000) / 4)
        let outcome = AbortQuality.run(
            .init(
                threshold: 0.05, rate: rate, devices: 10_000, rollout: .linear, campaigns: campaigns, seed: seed))
        let shares = [outcome.test.aborted, outcome.ratio.aborted].map { Self.percent(Double($0) / Double(campaigns)) }
        let means = [outcome.failing, outcome.ratio.harmed, outcome.sprt.harmed, outcome.test.harmed]
            .map { Self.tenths(Double($0) / Double(campaigns)) }
        return Self.row([Self.percent(rate)] + shares + means)
    }

    // MARK: words

    private static func row(_ words: [String]) -> String { "| " + words.joined(separator: " | ") + " |" }

    private static func percent(_ share: Double) -> String { "\(hundredths(100 * share)) %" }

    private static func grouped(_ number: Int) -> String {
        number < 1_000 ? "\(number)" : "\(number / 1_000)," + String("\(1_000 + number % 1_000)".dropFirst())
    }

    private static func tenths(_ value: Double) -> String {
        guard value < 1_000 else { return grouped(Int(value.rounded())) }
        let all = Int((value * 10).rounded())
        return "\(all / 10).\(all % 10)"
    }

    private static func hundredths(_ value: Double) -> String {
        let all = Int((value * 100).rounded())
        let fraction = "\(100 + all % 100)".dropFirst()
        return all % 100 == 0 ? "\(all / 100)" : "\(all / 100).\(fraction)"
    }
}
