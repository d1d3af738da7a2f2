import EventModel
import Foundation
import Logging
import Output
import Primitives

/// Log lines on standard error: for people on a terminal, one JSON object a line otherwise (journald, Loki, …).
/// A call formats the line and queues it; `LogOutput` writes it from a thread of its own.
struct LineLogHandler: LogHandler {
    enum Format: Sendable { case text, json }

    let label: String
    let format: Format
    let output: LogOutput
    let notes: RecentNotes?
    var logLevel: Logger.Level = .info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
            .map { (key: $0.key, value: "\($0.value)") }.sorted { $0.key < $1.key }
        if event.level >= .warning { notes?.add(terminalSafe("\(event.message)")) }
        output.add(Self.line(event.level, "\(event.message)", fields, format))
    }

    static func line(
        _ level: Logger.Level, _ message: String, _ fields: [(key: String, value: String)], _ format: Format
    ) -> [UInt8] {
        let now = wallClock()
        var text: String
        switch format {
        case .text:
            text = "\(now.description.dropFirst(11).prefix(12)) \(word(level)) \(message)"
            for (key, value) in fields { text += "  \(key)=\(value)" }
            text = terminalSafe(text.replacing("\n", with: "\\n"))
        case .json:
            var object: [String: Any] = ["time": now.description, "level": level.rawValue, "message": message]
            for (key, value) in fields { object[key] = value }
            text = jsonLine(object)
        }
        return Array((text + "\n").utf8)
    }

    private static func word(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "      "
        case .info, .notice: "info  "
        case .warning: "WARN  "
        case .error, .critical: "ERROR "
        }
    }

    /// With a `screen`, lines go to `refold.log` in its folder, and the last warnings to its notes.
    static func bootstrap(level: String, format: String, screen: (folder: String, notes: RecentNotes)? = nil) {
        let chosen: Format = format == "json" || (format == "auto" && isatty(2) == 0) ? .json : .text
        var file: Int32?
        if let screen {
            try? FileManager.default.createDirectory(atPath: screen.folder, withIntermediateDirectories: true)
            let path = screen.folder + "/refold.log"
            let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
            if descriptor >= 0 { file = descriptor }
        }
        let output = LogOutput.shared
        output.redirect(to: file) { count in
            line(.warning, "log lines dropped", [("count", "\(count)")], chosen)
        }
        // The last lines of an orderly end are written, if somebody takes them.
        atexit { LogOutput.shared.flush(atMostMilliseconds: 1000) }
        let least = Logger.Level(rawValue: level) ?? .info
        LoggingSystem.bootstrap { label in
            var handler = LineLogHandler(label: label, format: chosen, output: output, notes: screen?.notes)
            handler.logLevel = least
            return handler
        }
    }
}

/// The time now, in UTC.
func wallClock() -> Timestamp { Timestamp(microseconds: SystemTime.wallMicroseconds()) }
