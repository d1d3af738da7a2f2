import EventLog
import Foundation
import Logging
import Primitives
import Synchronization
import Threading

/// What goes on in the background for the log's sake: it watches the room on the disk and the limit of open files, and
/// reads the log again. One thread, at low priority.
final class ScrubService: Sendable {
    let scrubber: Scrubber
    private let folder: String
    private let scrubBytesPerSecond: Int
    private let logger: Logger
    private let forecastState = Mutex(DiskForecast())
    let thread = ServiceThread()
    /// The soft limit of open files that `run` has set.
    private let descriptorLimit = Descriptors.limit

    /// How often the free space is asked for.
    private static let sampleSeconds = 2.0
    /// What the scrubber reads at once at most: it must not hold up the disk.
    private static let pieceBytesMax = 4 << 20

    /// - Parameter scrubBytesPerSecond: 0 for no scrubbing.
    init(log: FileLog, folder: String, scrubBytesPerSecond: Int, logger: Logger) {
        scrubber = Scrubber(log: log)
        self.folder = folder
        self.scrubBytesPerSecond = scrubBytesPerSecond
        self.logger = logger
    }

    var forecast: DiskForecast { forecastState.withLock { $0 } }
    var isScrubbing: Bool { scrubBytesPerSecond > 0 }

    func start() {
        thread.start(name: "log-care", nice: 10) { [self] in run() }
    }

    func stop() { thread.stop() }

    private func run() {
        var nextSample = 0.0, nextPiece = 0.0, nextLimit = 0.0, damaged = 0
        while !thread.isStopping {
            let now = steadySeconds()
            // What is due soon is done at the same time.
            if now + 0.2 >= nextSample {
                if let free = freeBytes() { forecastState.withLock { $0.add(freeBytes: free, at: now) } }
                nextSample = now + Self.sampleSeconds
            }
            if now >= nextLimit {
                keepDescriptorLimit()
                nextLimit = now + 1
            }
            if isScrubbing, now >= nextPiece {
                scrubber.forgetAccepted()
                let read = scrubber.step(byteCount: min(Self.pieceBytesMax, max(64 << 10, scrubBytesPerSecond / 4)))
                // What was read is paid for with time before the next piece.
                nextPiece = now + (read > 0 ? Double(read) / Double(scrubBytesPerSecond) : 5)
                let found = scrubber.status.damages
                if found.count > damaged {
                    for damage in found.suffix(found.count - damaged).prefix(10) {
                        logger.error("the scrubber found damage: \(damage.range)")
                    }
                }
                damaged = found.count
            }
            let due = isScrubbing ? min(nextSample, nextLimit, nextPiece) : min(nextSample, nextLimit)
            thread.rest(milliseconds: Int(max(0.001, due - steadySeconds()) * 1_000) + 1)
        }
    }

    /// libdispatch ends the process when no descriptor is left: the limit is raised by a thread that is not its own.
    private func keepDescriptorLimit() {
        guard let limit = Descriptors.restoreLimit(descriptorLimit) else { return }
        logger.warning(
            "the soft limit of open files was lowered; it is raised again",
            metadata: ["found": "\(limit.found)", "limit": "\(limit.restored)"])
    }

    /// For us: what is reserved for the superuser does not count (statvfs(3), f_bavail).
    private func freeBytes() -> UInt64? {
        var status = statvfs()
        guard statvfs(folder, &status) == 0 else { return nil }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }

    private func steadySeconds() -> Double { Double(SystemTime.monotonicMicroseconds()) / 1e6 }
}
