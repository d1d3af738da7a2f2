import EventModel
import Foundation
import Output

/// What the live screen shows, as of one moment.
struct ScreenContents: Sendable {
    struct Projection: Sendable {
        var name: String
        var position: Int64
        var lagEvents: UInt64
        var lagSeconds: Double
        var state: String
        var lastError: String?
    }
    struct Broker: Sendable {
        var name: String
        var address: String
        var connected: Bool
        var detail: String
    }

    var state = "starting"
    var uptimeSeconds = 0
    var received: UInt64 = 0
    var acknowledged: UInt64 = 0
    var durable: UInt64 = 0
    var segments = 0
    var logBytes: UInt64 = 0
    var projections: [Projection] = []
    var brokers: [Broker] = []
    var databaseConnected = false
    var databaseError: String?
    /// Nil while the database cannot be asked.
    var devices: (online: Int, stale: Int, offline: Int)?
    var deadLetters: Int?
    /// The last few warnings and errors.
    var notes: [String] = []
    /// What to type in another terminal.
    var hints: [(String, String)] = []
}

/// One calm screen on a terminal, redrawn in place once a second. `render` is pure; `LiveScreen` writes.
struct LiveScreen {
    private var rates: [Double] = []
    private var previous: (received: UInt64, at: ContinuousClock.Instant)?

    mutating func draw(_ contents: ScreenContents, at now: ContinuousClock.Instant) {
        if let previous, now > previous.at {
            let seconds = Double((now - previous.at) / .milliseconds(1)) / 1000
            rates.append(Double(contents.received &- previous.received) / max(seconds, 0.001))
            if rates.count > 40 { rates.removeFirst() }
        }
        previous = (contents.received, now)
        var size = winsize()
        let known = ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        let lines = Self.render(contents, rates: rates, width: known ? Int(size.ws_col) : 100)
        let shown = known && size.ws_row > 1 ? lines.prefix(Int(size.ws_row) - 1) : lines[...]
        // Home, each line to its end, then everything below: no flicker.
        var text = "\u{1B}[H"
        for line in shown { text += line + "\u{1B}[K\n" }
        Self.output.add(Array((text + "\u{1B}[J").utf8))
    }

    /// The alternate screen keeps what the terminal showed before.
    static func open() { output.add(Array("\u{1B}[?1049h\u{1B}[?25l".utf8)) }
    static func close() {
        output.add(Array("\u{1B}[?25h\u{1B}[?1049l".utf8))
        output.flush(atMostMilliseconds: 500)
    }

    /// A stopped terminal (Ctrl-S) blocks only this thread; frames that it does not take are dropped.
    private static let output = LogOutput(STDOUT_FILENO, limits: .init(lines: 4, bytes: 256 << 10)) { _ in [] }

    static func render(_ c: ScreenContents, rates: [Double], width: Int) -> [String] {
        var lines: [String] = []
        // Errors of brokers and servers are text from outside.
        func row(_ label: String, _ text: String) {
            lines.append(cut("  " + pad(label, 14) + terminalSafe(text), width))
        }
        let clock = "\(c.uptimeSeconds / 3600):\(two(c.uptimeSeconds / 60 % 60)):\(two(c.uptimeSeconds % 60))"
        lines.append("")
        lines.append(cut("  \(bold("refold"))  \(coloured(c.state))  up \(clock)   Ctrl-C stops in order", width + 20))
        lines.append("")
        row("messages", "\(grouped(Int(saturating: rates.last ?? 0)))/s  \(sparkline(rates))")
        row(
            "",
            "\(grouped(Int(clamping: c.received))) received, "
                + "\(grouped(Int(clamping: c.acknowledged))) acknowledged")
        row("log", "durable \(grouped(Int(clamping: c.durable))) events, \(c.segments) segments, \(bytes(c.logBytes))")
        lines.append("")
        row("projections", pad("", 26) + right("position", 12) + right("lag", 10) + "  state")
        for p in c.projections {
            row(
                "",
                pad(p.name, 26) + right(grouped(Int(clamping: p.position)), 12)
                    + right(grouped(Int(clamping: p.lagEvents)), 10) + "  \(p.state.lowercased())"
                    + (p.lastError.map { ": \($0)" } ?? ""))
        }
        lines.append("")
        if let devices = c.devices {
            row(
                "devices",
                "\(devices.online) online, \(devices.stale) stale, \(devices.offline) offline"
                    + (c.deadLetters.map { "; \(grouped($0)) dead letters" } ?? ""))
        } else {
            row("devices", "not known while the database is away")
        }
        for broker in c.brokers {
            let state = broker.connected ? "connected" : "NOT CONNECTED"
            row("broker", "\(broker.name) at \(broker.address): \(state)\(broker.detail)")
        }
        row("database", c.databaseConnected ? "connected" : "NOT CONNECTED: \(c.databaseError ?? "no answer yet")")
        if !c.notes.isEmpty { lines.append("") }
        for note in c.notes { row("note", note) }
        lines.append("")
        for (label, command) in c.hints { row(label, command) }
        return lines
    }

    private static func coloured(_ state: String) -> String {
        let colour =
            switch state {
            case "healthy": "32"
            case "degraded", "starting": "33"
            default: "31"
            }
        return "\u{1B}[\(colour)m\(state)\u{1B}[0m"
    }
    private static func bold(_ text: String) -> String { "\u{1B}[1m\(text)\u{1B}[0m" }
    private static func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    private static func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }
    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
    private static func cut(_ text: String, _ width: Int) -> String {
        text.count <= width ? text : text.prefix(max(0, width - 1)) + "…"
    }

    static func grouped(_ value: Int) -> String {
        var digits = Array(String(value.magnitude)), index = digits.count - 3
        while index > 0 {
            digits.insert(",", at: index)
            index -= 3
        }
        return (value < 0 ? "-" : "") + String(digits)
    }

    static func bytes(_ value: UInt64) -> String {
        var scaled = Double(value), unit = 0
        while scaled >= 1024, unit < 4 {
            scaled /= 1024
            unit += 1
        }
        return "\((scaled * 10).rounded() / 10) \(["B", "KiB", "MiB", "GiB", "TiB"][unit])"
    }

    private static func sparkline(_ values: [Double]) -> String {
        let highest = max(values.max() ?? 0, 1)
        return String(values.map { Array("▁▂▃▄▅▆▇█")[max(0, min(7, Int(saturating: $0 / highest * 7.99)))] })
    }
}
