import EventModel
import Foundation
import Threading

@testable import EventLog

/// The event log's hot paths, on a log of its own in a temporary folder.
enum LogPaths {
    /// Caller and writer thread together, from `append` until the batch is durable.
    @Sendable static func append() throws -> HotPath.Round {
        let log = try MeasuredLog()
        var batch = RecordBatch(), number = 0
        return { meter in
            number += 1
            FleetRecords.fill(&batch, at: FleetRecords.time(ofBlock: number))
            return try log.allocations(meter) { _ = try log.log.append(&batch) }
        }
    }

    /// One block out of a reader that follows the log.
    @Sendable static func read() throws -> HotPath.Round {
        let log = try MeasuredLog()
        var batch = RecordBatch()
        for number in 0..<(HotPath.warmUps + HotPath.runs) {
            FleetRecords.fill(&batch, at: FleetRecords.time(ofBlock: number))
            _ = try log.log.append(&batch)
        }
        let reader = try log.log.reader(from: Position(0)), block = EventBlock()
        return { meter in
            let allocations = try meter.count { _ = try reader.read(into: block, atLeast: 1) }
            guard block.count == FleetRecords.count else { throw PathError("\(block.count) records were read") }
            withExtendedLifetime(log) {}
            return allocations
        }
    }
}

/// A log whose writer thread counts its allocations. The folder is removed with the object.
final class MeasuredLog {
    let log: FileLog
    private let threads = MeasuredThreads()
    private let folder = FileManager.default.temporaryDirectory.appending(path: "refold-\(UUID())").path

    init() throws {
        var options = FileLogOptions()
        options.threads = threads
        // The tree and the maintainer follow the writer on threads of their own, at a pace of their own.
        (options.keepsTree, options.isKeeping) = (false, false)
        log = try FileLog.open(directory: folder, options: options)
    }

    deinit {
        log.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// The allocations of `body`, which appends once, and of the writer's step for it.
    func allocations(_ meter: AllocationMeter, _ body: () throws -> Void) throws -> Int {
        let before = threads.written
        let caller = try meter.count(body)
        return caller + threads.allocations(ofStepAfter: before)
    }
}

/// Runs the log's work on threads, as `SystemThreads` does, and counts what the writer allocates.
private final class MeasuredThreads: LogThreads {
    private struct State {
        /// Steps of the writer that committed something.
        var steps = 0
        /// Allocations of the last of these.
        var allocations = 0
    }
    private let state = Monitor(State())

    var written: Int { state.withLock { $0.steps } }

    func allocations(ofStepAfter step: Int) -> Int { state.wait { $0.steps > step ? $0.allocations : nil } }

    func start(name: String, niceness: Int, _ work: any LogWork) -> any LogThread {
        guard name == "log-writer" else { return SystemThreads().start(name: name, niceness: niceness, work) }
        return SystemThreads().start(
            name: name, niceness: niceness,
            CountedWork(work) { [state] allocations in
                state.withLock { state in
                    state.steps += 1
                    state.allocations = allocations
                }
                state.wakeAll()
            })
    }
}

private final class CountedWork: LogWork {
    private let work: any LogWork
    private let report: @Sendable (Int) -> Void

    init(_ work: any LogWork, _ report: @escaping @Sendable (Int) -> Void) { (self.work, self.report) = (work, report) }

    func step() -> LogWorkStep {
        var result = LogWorkStep.idle
        let allocations = AllocationMeter().count { result = work.step() }
        if case .worked = result { report(allocations) }
        return result
    }

    func wait() { work.wait() }
}
