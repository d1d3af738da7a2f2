import Glibc
import Primitives
import Testing

@testable import Output

/// What the code that logs and the thread that writes have between them. `LineQueue` is the real one; the plants are
/// the mistakes that such queues have had.
protocol LineBuffer {
    mutating func add(_ line: [UInt8])
    mutating func next() -> ArraySlice<UInt8>?
    mutating func wrote(_ count: Int)
    mutating func failed(_ code: Int32) -> LineQueue.Step
    var statistics: LineQueue.Statistics { get }
    var byteCount: Int { get }
}

extension LineQueue: LineBuffer {}

/// A model of standard error by a seed: a reader that is slow, stops, goes away; a disk that fills and is freed.
struct ModelOutput {
    enum Fault: CaseIterable { case none, slow, blocked, readerGone, diskFull, interrupted, partial, nonBlocking }

    var random: SeededRandom
    var fault = Fault.none
    var taken: [UInt8] = []

    /// Nil: the write does not return now.
    mutating func write(_ bytes: ArraySlice<UInt8>) -> LogOutput.WriteResult? {
        switch fault {
        case .none: return take(bytes, bytes.count)
        case .slow: return random.below(4) == 0 ? take(bytes, bytes.count) : nil
        case .blocked: return nil
        case .readerGone: return .failed(EPIPE)
        case .diskFull: return random.below(5) == 0 ? take(bytes, 1) : .failed(ENOSPC)
        case .interrupted: return random.below(2) == 0 ? .failed(EINTR) : take(bytes, bytes.count)
        case .partial: return take(bytes, 1 + random.below(max(1, bytes.count)))
        case .nonBlocking: return random.below(2) == 0 ? .failed(EAGAIN) : take(bytes, bytes.count)
        }
    }

    private mutating func take(_ bytes: ArraySlice<UInt8>, _ count: Int) -> LogOutput.WriteResult {
        let piece = bytes.prefix(count)
        taken += piece
        return .wrote(piece.count)
    }
}

/// One history of logging and writing; returns what is wrong with it, nil when nothing is.
func history(seed: UInt64, limits: LineQueue.Limits, _ make: () -> any LineBuffer) -> String? {
    var queue = make(), output = ModelOutput(random: SeededRandom(seed: seed)), random = SeededRandom(seed: ~seed)
    var offered: UInt64 = 0
    /// The writer has taken bytes out and its write has not returned.
    func writer(steps: Int) {
        for _ in 0..<steps {
            guard let bytes = queue.next() else { return }
            switch output.write(bytes) {
            case nil: return
            case .wrote(let count): queue.wrote(count)
            case .failed(let code): _ = queue.failed(code)
            }
        }
    }
    for _ in 0..<60 {
        if random.below(3) == 0 { output.fault = ModelOutput.Fault.allCases[random.below(8)] }
        for _ in 0..<random.below(20) {
            let before = output.taken.count
            queue.add(Array("line \(offered) .\n".utf8))
            offered += 1
            if output.taken.count != before { return "a logging call writes by itself" }
            if queue.byteCount > limits.bytes + 64 { return "the queue holds \(queue.byteCount) bytes" }
        }
        writer(steps: random.below(25))
    }
    output.fault = .none
    writer(steps: 100_000)
    queue.add(Array("line \(offered) .\n".utf8))
    offered += 1
    writer(steps: 100_000)
    let counts = queue.statistics
    if counts.waiting != 0 { return "\(counts.waiting) lines wait though the output works" }
    if counts.written + counts.dropped != offered {
        return "\(offered) lines: \(counts.written) written, \(counts.dropped) dropped"
    }
    // What the reader sees: lines in order, torn only where the reader went away, and every drop reported.
    var last = -1, whole: UInt64 = 0, reported: UInt64 = 0
    for text in String(decoding: output.taken, as: UTF8.self).split(separator: "\n") {
        let words = text.split(separator: " ")
        if text.hasPrefix("line "), text.hasSuffix(" ."), words.count == 3, let number = Int(words[1]) {
            if number <= last { return "line \(number) after line \(last)" }
            last = number
            whole += 1
        } else if text.hasSuffix(" log lines dropped"), let count = UInt64(text.prefix { $0.isNumber }) {
            reported += count
        }
    }
    if output.taken.last != 0x0A { return "the last line is torn" }
    if whole != counts.written { return "\(whole) whole lines seen, \(counts.written) counted as written" }
    return reported == counts.dropped ? nil : "\(reported) drops reported, \(counts.dropped) counted"
}

struct LineQueueTests {
    static let limits = LineQueue.Limits(lines: 20, bytes: 400)
    static let seeds: [UInt64] = Array(1...1_000)

    static func queue() -> LineQueue { LineQueue(limits) { Array("\($0) log lines dropped\n".utf8) } }

    @Test func everyLineIsWrittenOrCountedWhateverTheOutputDoes() {
        for seed in Self.seeds {
            let problem = history(seed: seed, limits: Self.limits) { Self.queue() }
            #expect(problem == nil, "seed \(seed): \(problem ?? "")")
        }
    }

    @Test(arguments: Plant.allCases) func theHistoriesFindThe(plant: Plant) {
        let found = Self.seeds.contains { seed in
            history(seed: seed, limits: Self.limits) { PlantedQueue(plant: plant) } != nil
        }
        #expect(found, "no history finds \(plant)")
    }

    @Test func aNoticeStandsWhereLinesAreMissing() {
        var queue = LineQueue(.init(lines: 2, bytes: 1000)) { Array("\($0) log lines dropped\n".utf8) }
        for number in 0..<5 { queue.add(Array("line \(number)\n".utf8)) }
        var text = ""
        func drain() {
            while let bytes = queue.next() {
                text += String(decoding: bytes, as: UTF8.self)
                queue.wrote(bytes.count)
            }
        }
        drain()
        queue.add(Array("line 5\n".utf8))
        drain()
        #expect(text == "line 0\nline 1\n3 log lines dropped\nline 5\n")
        #expect(queue.statistics == .init(written: 3, dropped: 3, waiting: 0, lastErrorCode: nil))
    }

    @Test func aFullDiskKeepsTheLineAndTheReaderThatIsGoneDoesNot() {
        var queue = Self.queue()
        queue.add(Array("one\n".utf8))
        #expect(queue.failed(ENOSPC) == .pause)
        #expect(queue.statistics.waiting == 1 && queue.statistics.lastErrorCode == ENOSPC)
        #expect(queue.failed(EPIPE) == .goOn)
        #expect(queue.statistics.waiting == 0 && queue.statistics.dropped == 1)
        #expect(queue.next() == nil, "no notice into an output that has just failed")
    }
}

enum Plant: CaseIterable, Sendable {
    case grows, dropsInSilence, startsAgainAfterAPartialWrite, overtakes, forgetsTheRest, staysAtTheLineThatFailed
}

/// `LineQueue` with one mistake.
struct PlantedQueue: LineBuffer {
    let plant: Plant
    var queue: LineQueue
    var last: [UInt8] = []

    init(plant: Plant) {
        self.plant = plant
        let limits = plant == .grows ? LineQueue.Limits(lines: .max, bytes: .max) : LineQueueTests.limits
        queue = LineQueue(limits) { Array("\($0) log lines dropped\n".utf8) }
    }

    var statistics: LineQueue.Statistics {
        var counts = queue.statistics
        if plant == .dropsInSilence { counts.dropped = 0 }
        return counts
    }
    var byteCount: Int { queue.byteCount }

    mutating func add(_ line: [UInt8]) {
        // A line that comes while another is written goes first.
        if plant == .overtakes, !last.isEmpty {
            queue.add(line)
            queue.add(last)
            last = []
        } else if plant == .overtakes {
            last = line
        } else {
            queue.add(line)
        }
    }

    mutating func next() -> ArraySlice<UInt8>? {
        guard let bytes = queue.next() else { return nil }
        last = plant == .startsAgainAfterAPartialWrite ? Array(bytes) : last
        return bytes
    }

    mutating func wrote(_ count: Int) {
        switch plant {
        case .startsAgainAfterAPartialWrite where count < last.count: break
        case .forgetsTheRest: queue.wrote(.max / 2)
        default: queue.wrote(count)
        }
    }

    mutating func failed(_ code: Int32) -> LineQueue.Step {
        // The line waits for a reader that never comes back, and all others behind it.
        if plant == .staysAtTheLineThatFailed, code == EPIPE { queue.add([]); return .pause }
        return queue.failed(code)
    }
}
