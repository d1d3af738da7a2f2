/// Whether more of a campaign's devices fail than its threshold allows: a sequential test that may be asked after
/// every result, as often as one likes.
///
/// Guarantee: while each device fails with a probability of at most `threshold`, whatever became of those before
/// it, the answer is "too many" at any time at all with a probability of at most `errorRate`.
///
/// How. Against each of a few alternative rates p₁ above the threshold p₀, a random walk over the devices in the
/// order in which they were dispatched: up by ln(p₁/p₀) for a failure, down by ln((1-p₀)/(1-p₁)) for anything else.
/// At the threshold its exponential is a martingale from 1, so that it ever reaches 1/x with a probability of at
/// most x (Ville 1939); each alternative has a share w of the error rate, and its limit is ln(1/(errorRate·w)).
///
/// Results come in any order, and failures often before successes. A device in flight therefore counts as not
/// failed, and what is compared is the walk's *maximum* over all prefixes in the order of sending. Whatever is
/// still in flight can only raise a prefix: at no time does the maximum exceed what it will be when all is known,
/// and of that the guarantee speaks. Prefixes long sent have no device in flight, so the test does not wait for the
/// last ones.
///
/// Only what follows a failure is looked at: there the walk is highest, once above its beginning. A mask holds 64
/// devices; over the masks lies a tree with the failures and the highest walk of each part. A result costs O(log
/// n), a device a few bytes.
public struct SequentialFailureTest: Sendable {
    /// The share of failures that is allowed, 0 to 1.
    public let threshold: Double
    /// How probable a wrong "too many" may be.
    public let errorRate: Double
    /// Devices dispatched.
    public private(set) var count = 0
    private let alternatives: [Alternative]

    /// Bit i of mask m: sample 64m + i has failed.
    private var masks: [UInt64] = []
    /// A binary tree in one array: node 1 is the root, node i has 2i and 2i + 1 below it, the masks are its last
    /// `width` nodes. Node 0 is unused.
    private var width = 1
    private var failures: [Int32] = [0, 0]
    /// Beside each node, for each alternative, the walk's maximum within its part; `none` without a failure.
    private var highest: [Int64]

    /// - Parameters:
    ///   - threshold: 0: the first failure is too many. 1: nothing ever is.
    ///   - errorRate: over 0, below 1.
    public init(threshold: Double, errorRate: Double = 0.01) {
        precondition((0...1).contains(threshold), "a threshold is a share: 0 to 1")
        precondition(errorRate > 0 && errorRate < 1, "an error rate lies between 0 and 1")
        self.threshold = threshold
        self.errorRate = errorRate
        alternatives = Alternative.all(above: threshold, errorRate: errorRate)
        highest = [Int64](repeating: Self.none, count: 2 * alternatives.count)
    }

    /// Against one rate alone: what it would be if the true rate were known. To measure the price of not knowing it.
    package init(threshold: Double, errorRate: Double, onlyAgainst rate: Double) {
        precondition(threshold > 0 && rate > threshold && rate < 1)
        self.threshold = threshold
        self.errorRate = errorRate
        alternatives = [Alternative(rate: rate, threshold: threshold, errorRate: errorRate)]
        highest = [Self.none, Self.none]
    }

    /// A device is dispatched: its sample is the next, number `count`. A device that is tried again has a new sample
    /// for each attempt, or keeps its old one: it is then attempts, or devices, whose failures the threshold allows.
    public mutating func append() {
        if count & 63 == 0 {
            if masks.count == width { widen() }
            masks.append(0)
        }
        count += 1
    }

    /// The sample's result. What was a failure may be none after all: the result came late.
    /// - Parameter index: of the sample, in the order of `append`.
    public mutating func set(_ index: Int, failed: Bool) {
        precondition(index >= 0 && index < count, "there is no sample \(index)")
        let mask = index >> 6, bit: UInt64 = 1 << (index & 63)
        guard (masks[mask] & bit != 0) != failed else { return }
        masks[mask] ^= bit
        var node = width + mask
        setLeaf(node, masks[mask])
        while node > 1 {
            node >>= 1
            join(node)
        }
    }

    /// Too many have failed, by what is known now.
    public var exceeds: Bool {
        if alternatives.isEmpty { return threshold == 0 && failures[1] > 0 }
        return alternatives.indices.contains { highest[alternatives.count + $0] >= alternatives[$0].limit }
    }

    /// Samples that have failed.
    public var failureCount: Int { Int(failures[1]) }

    /// What the answer rests on.
    public struct Explanation: Sendable, Equatable, CustomStringConvertible {
        public var threshold: Double
        public var errorRate: Double
        /// Samples and failures in all.
        public var samples: Int
        public var failures: Int
        /// The prefix, in the order of sending, that speaks loudest against the threshold: its samples and failures.
        public var first: Int
        public var firstFailures: Int
        /// The rate of failures that explains it best, of those that are tried.
        public var rate: Double
        /// Evidence for that rate and against the threshold, in nats, and from where on it is enough.
        public var statistic: Double
        public var limit: Double

        public var description: String {
            func percent(_ share: Double) -> String {
                let tenths = Int((share * 1_000).rounded())
                return tenths % 10 == 0 ? "\(tenths / 10) %" : "\(tenths / 10).\(tenths % 10) %"
            }
            func hundredths(_ value: Double) -> String {
                let all = Int((abs(value) * 100).rounded())
                return (value < 0 ? "-" : "") + "\(all / 100)." + (all % 100 < 10 ? "0" : "") + "\(all % 100)"
            }
            guard first > 0 else { return "\(failures) of \(samples) devices failed" }
            let sentence = "\(firstFailures) of the first \(first) devices failed"
            guard threshold > 0 else { return sentence + ", where none may" }
            return sentence + ": evidence of \(hundredths(statistic)) against at most \(percent(threshold)), "
                + (statistic >= limit ? "and \(hundredths(limit)) is enough" : "of \(hundredths(limit))")
        }
    }

    public var explanation: Explanation {
        var explanation = Explanation(
            threshold: threshold, errorRate: errorRate, samples: count, failures: failureCount, first: 0,
            firstFailures: 0, rate: threshold, statistic: 0, limit: 0)
        guard failures[1] > 0 else { return explanation }
        guard let best = alternatives.indices.max(by: { margin($0) < margin($1) }) else {
            if threshold == 0, let mask = masks.firstIndex(where: { $0 != 0 }) {
                explanation.first = 64 * mask + masks[mask].trailingZeroBitCount + 1
                explanation.firstFailures = 1
            }
            return explanation
        }
        (explanation.first, explanation.firstFailures) = loudestPrefix(best)
        explanation.rate = alternatives[best].rate
        explanation.statistic = Double(highest[alternatives.count + best]) / 1e9
        explanation.limit = Double(alternatives[best].limit) / 1e9
        return explanation
    }

    private func margin(_ alternative: Int) -> Int64 {
        highest[alternatives.count + alternative] - alternatives[alternative].limit
    }

    // MARK: the tree

    /// Lower than any walk, and far enough from the end of the numbers to be added to.
    private static let none = Int64.min / 2

    private mutating func setLeaf(_ node: Int, _ mask: UInt64) {
        failures[node] = Int32(mask.nonzeroBitCount)
        for index in alternatives.indices {
            let alternative = alternatives[index]
            var best = Self.none, rest = mask, found: Int64 = 0
            while rest != 0 {
                let place = Int64(rest.trailingZeroBitCount)
                found += 1
                best = max(best, alternative.walk(failures: found, samples: place + 1))
                rest &= rest - 1
            }
            highest[node * alternatives.count + index] = best
        }
    }

    private mutating func join(_ node: Int) {
        let left = 2 * node, right = left + 1, samples = samplesBelow(left)
        failures[node] = failures[left] + failures[right]
        for index in alternatives.indices {
            let before = alternatives[index].walk(failures: Int64(failures[left]), samples: Int64(samples))
            highest[node * alternatives.count + index] = max(
                highest[left * alternatives.count + index],
                failures[right] == 0 ? Self.none : before + highest[right * alternatives.count + index])
        }
    }

    private func samplesBelow(_ node: Int) -> Int {
        let depth = Int.bitWidth - 1 - node.leadingZeroBitCount
        return 64 * (width >> depth)
    }

    /// Twice as many masks.
    private mutating func widen() {
        width *= 2
        failures = [Int32](repeating: 0, count: 2 * width)
        highest = [Int64](repeating: Self.none, count: 2 * width * alternatives.count)
        for (index, mask) in masks.enumerated() where mask != 0 { setLeaf(width + index, mask) }
        for node in stride(from: width - 1, to: 0, by: -1) { join(node) }
    }

    /// Where the walk of an alternative is highest.
    private func loudestPrefix(_ index: Int) -> (samples: Int, failures: Int) {
        var node = 1, samplesBefore = 0, failuresBefore = 0
        while node < width {
            let left = 2 * node
            if highest[left * alternatives.count + index] == highest[node * alternatives.count + index] {
                node = left
            } else {
                samplesBefore += samplesBelow(left)
                failuresBefore += Int(failures[left])
                node = left + 1
            }
        }
        var rest = masks[node - width], found: Int64 = 0
        let alternative = alternatives[index], goal = highest[node * alternatives.count + index]
        while rest != 0 {
            let samples = Int64(rest.trailingZeroBitCount) + 1
            found += 1
            if alternative.walk(failures: found, samples: samples) == goal {
                return (samplesBefore + Int(samples), failuresBefore + Int(found))
            }
            rest &= rest - 1
        }
        return (samplesBefore, failuresBefore)
    }
}

/// A rate above the threshold and its walk, in whole nano-nats, so that adding in another order gives the same.
/// Rounded against "too many".
private struct Alternative: Sendable, Equatable {
    let rate: Double
    let failure: Int64
    let other: Int64
    let limit: Int64

    init(rate: Double, threshold: Double, errorRate: Double) {
        self.rate = rate
        failure = Int64((naturalLogarithm(rate / threshold) * 1e9).rounded(.down))
        other = Int64((naturalLogarithm((1 - threshold) / (1 - rate)) * 1e9).rounded(.up))
        limit = Int64((-naturalLogarithm(errorRate) * 1e9).rounded(.up))
    }

    func walk(failures: Int64, samples: Int64) -> Int64 { failures * failure - (samples - failures) * other }

    /// Twice the threshold has half of the error rate: there the test shall be as quick as one made for it. Half as
    /// much again has an eighth, for large campaigns that are somewhat too bad; what is left is shared by multiples up
    /// to 0.95, which catch a build that breaks every device after two or three.
    static func all(above threshold: Double, errorRate: Double) -> [Alternative] {
        guard threshold > 0, threshold < 1 else { return [] }
        let top = max(0.95, (1 + threshold) / 2)
        guard top < 1 else { return [] }  // as good as 1
        var higher: [Double] = []
        var rate = 4 * threshold
        while rate < 0.8 * top {
            higher.append(rate)
            rate *= 2
        }
        var shares: [(rate: Double, share: Double)] = []
        if 2 * threshold < 0.9 * top {
            shares = [(1.5 * threshold, 0.125), (2 * threshold, 0.5)]
            higher.append(top)
            shares += higher.map { ($0, 0.375 / Double(higher.count)) }
        } else {
            shares = [((threshold + top) / 2, 0.5), (top, 0.5)]
        }
        return shares.map { Alternative(rate: $0.rate, threshold: threshold, errorRate: errorRate * $0.share) }
    }
}

extension SequentialFailureTest: Equatable {
    public static func == (a: SequentialFailureTest, b: SequentialFailureTest) -> Bool {
        a.threshold == b.threshold && a.errorRate == b.errorRate && a.count == b.count && a.masks == b.masks
    }
}

/// Of a positive number. By IEEE's four operations only, which give the same everywhere; `log` of the C library may
/// differ in the last digit from machine to machine.
func naturalLogarithm(_ value: Double) -> Double {
    precondition(value > 0 && value.isFinite)
    var exponent = Double(value.exponent), part = value.significand
    if part > 1.414_213_562_373_095 {
        part /= 2
        exponent += 1
    }
    // ln x = 2·artanh((x - 1)/(x + 1)); here the argument is below 0.172, and 12 terms leave less than 1e-19.
    let argument = (part - 1) / (part + 1), square = argument * argument
    var sum = 0.0
    for term in stride(from: 23.0, through: 1, by: -2) { sum = sum * square + 1 / term }
    return 2 * argument * sum + exponent * 0.693_147_180_559_945_3
}
