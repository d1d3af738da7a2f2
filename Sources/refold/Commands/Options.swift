import ArgumentParser
import EventLog
import EventModel
import Foundation
import PrivateServices

/// Where events come from that retention has removed from the log.
struct RestoreOption: ParsableArguments {
    @Option(
        name: .customLong("restore-command"),
        help: """
            Shell command that fetches a removed segment from the archive: %f its name, %p where to put it. Default: \
            REFOLD_RESTORE_COMMAND.
            """)
    var restoreCommandText: String?

    /// Nil when there is none.
    var restoreCommand: String? {
        let text = restoreCommandText ?? ProcessInfo.processInfo.environment["REFOLD_RESTORE_COMMAND"]
        return text.flatMap { $0.isEmpty ? nil : $0 }
    }

    func validate() throws {
        if let problem = restoreCommand.flatMap({ ShellCommand.problem(with: $0) }) {
            throw ValidationError("--restore-command: \(problem)")
        }
    }

    /// Opens the log of a data folder to read. Says why not, and ends with the right code, when it cannot.
    func openLog(in folder: String) throws -> ReadOnlyLog {
        do throws(LogError) {
            let log = try ReadOnlyLog(directory: folder + "/log")
            log.setRestorer(restoreCommand.map { SegmentRestorer(command: ShellCommand.restoring($0)) })
            return log
        } catch {
            throw error.exit
        }
    }
}

/// Where the log is, for verbs that work on the files alone, with the daemon up or down.
struct DataOption: ParsableArguments {
    @Option(help: "The data folder. Default: REFOLD_DATA, else ./data.") var data: String?
    @OptionGroup var restore: RestoreOption

    var folder: String {
        data ?? ProcessInfo.processInfo.environment["REFOLD_DATA"].flatMap { $0.isEmpty ? nil : $0 } ?? "data"
    }

    func openLog() throws -> ReadOnlyLog { try restore.openLog(in: folder) }
}

extension ShellCommand {
    static func restoring(_ template: String, timeoutSeconds: Int = 3600) -> SegmentCommand {
        let command = ShellCommand(template, timeoutSeconds: timeoutSeconds)
        return { path, name in try command.run(path: path, file: name) }
    }
}

extension ExitCode {
    /// Prints an error that ends the command with this code.
    init(_ code: Int32, printing text: String) {
        printError(text)
        self.init(code)
    }
}

extension LogError {
    /// Prints the error; the code says what kind it is: 1 for damage and what was removed, 2 for a wrong folder or
    /// position.
    var exit: ExitCode { ExitCode(code == .corrupt || code == .beforeHorizon ? 1 : 2, printing: description) }
}

/// Which events of the log to show.
struct LogFilterOptions: ParsableArguments {
    @Option(help: "Only messages of this tenant.") var tenant: String?
    @Option(help: "Only messages of this device.") var device: String?
    @Option(help: "Only topics that this MQTT filter matches; + and # are wildcards.") var topic: String?
    @Option(help: "Only this kind: message, rejection, connection, decision, system.") var kind: String?
    @Option(help: "Only this verdict, such as ACCEPTED or RATE_LIMITED.") var verdict: String?
    @Option(help: "Only what came over the broker connection with this name.") var broker: String?

    func validate() throws { _ = try filter() }

    /// The events of one device, where one is named: those that need not be searched for in the whole log.
    var selection: EventSelection? {
        device.map { device in
            tenant.map { .device(tenant: $0, device: device) } ?? .anyTenant(device: device)
        }
    }

    func filter() throws -> LogFilter {
        var filter = LogFilter()
        filter.tenant = tenant.map { Array($0.utf8) }
        filter.device = device.map { Array($0.utf8) }
        filter.broker = broker.map { Array($0.utf8) }
        if let topic {
            guard let parsed = TopicFilter(topic) else {
                throw ValidationError("--topic \(topic): + must stand alone between slashes, and # alone at the end")
            }
            filter.topic = parsed
        }
        if let kind {
            guard let parsed = EventKind(name: kind.lowercased()) else {
                throw ValidationError(
                    "--kind \(kind): must be one of \(EventKind.allCases.map(\.name).joined(separator: ", "))")
            }
            filter.kind = parsed
        }
        if let verdict {
            guard let parsed = Verdict(name: verdict.uppercased()) else {
                throw ValidationError(
                    "--verdict \(verdict): must be one of \(Verdict.allCases.map(\.name).joined(separator: ", "))")
            }
            filter.verdict = parsed
        }
        return filter
    }
}
