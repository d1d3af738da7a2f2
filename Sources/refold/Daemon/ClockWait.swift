import EventLog
import Logging

/// Waits for the wall clock as the daemon waits for a broker or the database: while it is behind the log's last event,
/// nothing is received and no campaign decides, since what is recorded now would bear wrong times for ever.
struct ClockWait: Sendable {
    let clock: GuardedClock
    let logger: Logger

    private static let pollMilliseconds = 100
    private static let reportMilliseconds = 60_000

    /// False when the task was cancelled first.
    func run() async -> Bool {
        var unreported = Self.reportMilliseconds, hasWaited = false
        var status = clock.poll()
        while status.state == .waiting {
            if unreported >= Self.reportMilliseconds {
                logger.warning("\(status.reason ?? "waiting for the clock")")
                unreported = 0
            }
            hasWaited = true
            do { try await Task.sleep(for: .milliseconds(Self.pollMilliseconds)) } catch { return false }
            unreported += Self.pollMilliseconds
            status = clock.poll()
        }
        if hasWaited { logger.info("the clock is right; receiving begins") }
        return !Task.isCancelled
    }
}

extension ClockStatus {
    /// What an operator should know; nil while the wall clock is followed.
    var reason: String? {
        guard state != .following else { return nil }
        let seconds = Double(abs(stepMicroseconds)) / 1e6
        let size = seconds < 10 ? "\((seconds * 10).rounded() / 10) s" : "\(Int(seconds)) s"
        let left = holdMicroseconds.map { $0 / 1_000_000 + 1 }
        if state == .waiting {
            let until = left.map { "; if it stays, the log goes back to it in \($0) s" } ?? ""
            return "waiting for the clock: it is \(size) behind the log's last event, and nothing is received until it "
                + "is right\(until) (set the clock, or start with --accept-clock)"
        }
        let direction = stepMicroseconds > 0 ? "forward" : "back"
        return "the clock stepped \(direction) by \(size) and is not believed yet: received-at goes on as before"
            + (left.map { "; if the step stays, it is adopted in \($0) s" } ?? "")
    }
}
