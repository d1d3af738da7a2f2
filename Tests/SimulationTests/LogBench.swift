import EventModel
import Foundation
import Primitives
import Testing
@testable import EventLog
@testable import Simulation

/// A log over a simulated disk, stepped by hand.
final class LogBench {
    static let directory = "/data/log"

    let disk: SimulatedDisk
    let view: SimulatedFileSystem
    let threads = SteppedThreads()
    let log: FileLog

    init(
        _ disk: SimulatedDisk, segmentBytes: Int = 64 << 10, blockBytes: Int = 512 << 10, isKeeping: Bool = false
    ) throws {
        self.disk = disk
        view = disk.process()
        try view.makeDirectory(Self.directory)
        try view.synchronizeDirectory("/data")
        try view.synchronizeDirectory("/")
        var options = FileLogOptions()
        (options.segmentBytes, options.blockBytes, options.isKeeping) = (segmentBytes, blockBytes, isKeeping)
        (options.fileSystem, options.threads, options.clock) = (view, threads, SimulatedClock())
        options.keepsTree = isKeeping
        log = try FileLog.open(directory: Self.directory, options: options)
    }

    deinit { threads.abandon() }

    /// What the append came to, after as many steps of the writer as it takes.
    @discardableResult
    func append(_ payloads: [String]) -> Result<Range<Position>, AppendError>? {
        let outcome = Outcome()
        do {
            try log.submit(Self.batch(payloads)) { outcome.result = $0 }
        } catch {
            return .failure(error)
        }
        stepWriter()
        return outcome.result
    }

    func stepWriter() {
        if let index = threads.names.firstIndex(of: "log-writer") { threads.step(index) }
    }

    static func batch(_ payloads: [String]) -> RecordBatch {
        var batch = RecordBatch()
        for payload in payloads {
            Array("tenant/acme/device/d1/telemetry".utf8).withUnsafeBytes { topic in
                Array(payload.utf8).withUnsafeBytes { payload in
                    let none = UnsafeRawBufferPointer(start: nil, count: 0)
                    batch.append(
                        kind: .message, verdict: .accepted, flags: RecordFlags(qos: 1),
                        receivedAt: Timestamp(microseconds: 1_790_000_000_000_000), packetID: 7, broker: none,
                        topic: topic, properties: none, payload: payload)
                }
            }
        }
        return batch
    }

    func payloads(from: UInt64 = 0) throws -> [String] { try LogBench.payloads(log, from: from) }

    static func payloads(_ source: any LogSource, from: UInt64 = 0) throws -> [String] {
        let reader = try source.reader(from: Position(from))
        let block = EventBlock()
        var result: [String] = []
        while try reader.read(into: block, atLeast: 1 << 20) {
            block.forEach { record, position in
                if position.rawValue >= from { result.append(String(decoding: record.payload, as: UTF8.self)) }
            }
        }
        return result
    }

    /// The machine loses its power and comes up again.
    func cutPower(keeping keeps: ((String, Int) -> Bool)? = nil) {
        disk.cutPower()
        threads.abandon()
        disk.powerUp(keeping: keeps)
    }

    /// The process is killed.
    func kill() {
        disk.kill(view)
        threads.abandon()
        disk.settle()
    }

    var segments: [String] { disk.names(in: Self.directory).filter { $0.hasSuffix(".seg") } }

    static func text(_ count: Int, _ random: inout SeededRandom) -> String {
        String(decoding: (0..<count).map { _ in UInt8(97 + random.below(26)) }, as: UTF8.self)
    }
}
