import ArgumentParser
import EventLog
import EventModel
import Foundation

struct LogRepair: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair", abstract: "Show what is damaged, and give lost events up for good.",
        discussion: """
            Damage is never cut away, and nothing here changes a damaged file: restore it from a backup or the archive \
            if you can. --accept-loss appends a record of each gap, signed with your name and reason \
            (log.loss_accepted/1): readers and projections then go on behind it. Through the daemon when it runs, else \
            on the files. Exit code 1 when damage remains.
            """)
    @OptionGroup var daemon: DaemonOptions
    @OptionGroup var range: LogRangeOptions
    @Flag(help: "Give up the events that cannot be read.") var acceptLoss = false
    @Option(name: .customLong("operator"), help: "Who gives them up.") var operatorName: String?
    @Option(help: "Why, in a sentence.") var reason: String?
    @Flag(name: .shortAndLong, help: "Do not ask.") var yes = false

    func validate() throws {
        guard acceptLoss else { return }
        guard let operatorName, !operatorName.isEmpty, operatorName.utf8.count <= 255 else {
            throw ValidationError("--accept-loss needs --operator NAME: who signs for it")
        }
        guard let reason, !reason.isEmpty, reason.utf8.count <= 4096 else {
            throw ValidationError("--accept-loss needs --reason TEXT: why the events are given up")
        }
    }

    func run() async throws {
        do {
            try await repair()
        } catch let error as LogError {
            throw error.exit
        } catch let error as AppendError {
            throw ExitCode(1, printing: "nothing was accepted: \(error)")
        }
    }

    private func repair() async throws {
        let log: ReadOnlyLog
        do throws(LogError) {
            log = try ReadOnlyLog(directory: daemon.dataFolder + "/log")
        } catch {
            throw error.exit
        }
        let report = try LogVerify.verify(log, try range.positions(in: log), deep: true, quiet: daemon.json)
        let open = report.unaccepted
        if !daemon.json {
            for damage in report.damages where damage.accepted == nil { print(damage.text) }
        }
        guard !open.isEmpty else {
            if daemon.json { print(jsonLine(["accepted": [Any](), "damage": report.damages.map(\.json)])) }
            if report.isSound {
                if !daemon.json { print("nothing is damaged that is not accepted already") }
                return
            }
            if !daemon.json { print("\nno event is lost: there is nothing to accept") }
            throw ExitCode(1)
        }
        let lost = open.reduce(0) { $0 + $1.lostEvents }
        guard acceptLoss else {
            if daemon.json { print(jsonLine(["accepted": [Any](), "damage": report.damages.map(\.json)])) }
            printError("with --accept-loss, \(open.count) records of a gap would be appended, giving up \(lost) events")
            throw ExitCode(1)
        }
        guard yes || confirmed("Give up \(lost) events in \(open.count) places for good?") else {
            throw ExitCode(1, printing: "nothing was changed; without a terminal, confirm with --yes")
        }
        let accepted = try await accept(open.map(\.range.positions), writerIsUp: log.isWriterUp)
        if daemon.json {
            print(jsonLine(["accepted": accepted, "damage": report.damages.map(\.json)]))
        } else {
            print("")
            for loss in accepted {
                print(
                    "accepted: positions \(TextTable.cell(loss["from"])) to \(TextTable.cell(loss["to"])), "
                        + "recorded at position \(TextTable.cell(loss["position"]))")
            }
        }
        // What has damage without lost events stays damaged.
        if report.damages.contains(where: { $0.accepted == nil && $0.lostEvents == 0 }) { throw ExitCode(1) }
    }

    private func accept(_ ranges: [Range<Position>], writerIsUp: Bool) async throws -> [[String: Any]] {
        if writerIsUp {
            let body: [String: Any] = [
                "operator": operatorName ?? "", "reason": reason ?? "",
                "ranges": ranges.map { ["from": $0.lowerBound.rawValue, "to": $0.upperBound.rawValue - 1] },
            ]
            let answer = try await daemon.asking { try await $0.post("/api/v1/log/losses", body) }
            return try answer.object()["items"] as? [[String: Any]] ?? []
        }
        var options = FileLogOptions()
        // One record is appended; a clock that is wrong is no reason to leave the log damaged.
        options.acceptClock = true
        let log = try FileLog.open(directory: daemon.dataFolder + "/log", options: options)
        defer { log.close() }
        return try log.acceptLosses(in: ranges, operatorName: operatorName ?? "", reason: reason ?? "").map(\.json)
    }

    private func confirmed(_ question: String) -> Bool {
        guard isatty(STDIN_FILENO) == 1 else { return false }
        printToStandardError("\(question) [yes/no] ")
        return readLine()?.trimmingCharacters(in: .whitespaces).lowercased() == "yes"
    }
}
