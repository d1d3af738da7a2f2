import EventModel
import Foundation
import Synchronization

/// A bar on standard error for work that takes long; only on a terminal, and drawn at most ten times a second.
final class ProgressBar: Sendable {
    private let title: String
    private let began = ContinuousClock.now
    private let lastDrawn = Mutex<ContinuousClock.Instant?>(nil)

    /// Nil when standard error is no terminal.
    init?(_ title: String) {
        guard isatty(STDERR_FILENO) == 1 else { return nil }
        self.title = title
    }

    /// - Parameter unit: of the numbers; nil: they are bytes.
    func show(_ done: UInt64, of total: UInt64, unit: String? = nil) {
        let now = ContinuousClock.now
        let isDue = lastDrawn.withLock { last in
            guard last.map({ now - $0 >= .milliseconds(100) }) ?? true else { return false }
            last = now
            return true
        }
        guard isDue, total > 0 else { return }
        let share = min(1, Double(done) / Double(total)), width = 30, filled = Int(saturating: share * Double(width))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        let passed = (now - began) / .seconds(1)
        let left = share > 0.01 ? String(format: ", %.0f s left", passed / share - passed) : ""
        let amount = unit.map { "\(total) \($0)" } ?? byteCountText(total)
        let text = "\r\(title) \(bar) \(Int(share * 100)) % of \(amount)\(left)\u{1B}[K"
        printToStandardError(text)
    }

    func clear() {
        guard lastDrawn.withLock({ $0 }) != nil else { return }
        printToStandardError("\r\u{1B}[K")
    }
}
