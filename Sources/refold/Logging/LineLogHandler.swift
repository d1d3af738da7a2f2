import EventModel
import Foundation
import Logging

/// Log lines on standard error: for people on a terminal, one JSON object a line otherwise (journald, Loki, …).
struct LineLogHandler: LogHandler {
    enum Format: Sendable { case text, json }

    let label: String
    let format: Format
    /// Standard error, or a file while the live screen has the terminal.
    let output: FileHandle
    let notes: RecentNotes?
    var logLevel: Logger.Level = .info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let level = event.level, message = event.message
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let now = wallClock()
        var text: String
        switch format {
        case .text:
            let time = now.description.dropFirst(11).prefix(12)
            text = "\(time) \(Self.word(level)) \(message)"
            for (key, value) in fields { text += "  \(key)=\(value)" }
        case .json:
            var object: [String: Any] = ["time": now.description, "level": level.rawValue, "message": "\(message)"]
            for (key, value) in fields { object[key] = "\(value)" }
            let data = try? JSONSerialization.data(
                withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
            text = data.map { String(decoding: $0, as: UTF8.self) } ?? "\(message)"
        }
        text = text.replacing("\n", with: "\\n") + "\n"
        if level >= .warning { notes?.add("\(message)") }
        output.write(Data(text.utf8))
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
        var output = FileHandle.standardError
        if let screen {
            let path = screen.folder + "/refold.log"
            try? FileManager.default.createDirectory(atPath: screen.folder, withIntermediateDirectories: true)
            if !FileManager.default.fileExists(atPath: path) {
                _ = FileManager.default.createFile(atPath: path, contents: nil)
            }
            if let file = FileHandle(forWritingAtPath: path) {
                file.seekToEndOfFile()
                output = file
            }
        }
        let least = Logger.Level(rawValue: level) ?? .info
        LoggingSystem.bootstrap { [output] label in
            var handler = LineLogHandler(label: label, format: chosen, output: output, notes: screen?.notes)
            handler.logLevel = least
            return handler
        }
    }
}

/// The time now, in UTC.
func wallClock() -> Timestamp {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return Timestamp(microseconds: Int64(now.tv_sec) * 1_000_000 + Int64(now.tv_nsec) / 1000)
}
