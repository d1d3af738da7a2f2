// refold: the executable.
//
//     Commands    one file a verb: arguments, output, exit code
//     Daemon      composition root of `refold run`: what is started, in which order, and how it ends
//     Offline     what verbs do with the log's files when no daemon runs
//     Demo        demo fleet and live screen
//     Logging     log lines and standard output
//
// Policy lives in the libraries; here they are connected.
import ArgumentParser
import Foundation
import Output
import Primitives

@main
struct Refold: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "refold",
        abstract: "An event-sourced MQTT stream processor: every message durable in a log, folded into PostgreSQL.",
        version: "0.1.0",
        subcommands: [
            Run.self, StatusCommand.self, LogCommand.self, Simulate.self, ProjectionCommand.self, BrokerCommand.self,
            FirmwareCommand.self, GroupCommand.self,
            CampaignCommand.self, AuthorityCommand.self, CertificateCommand.self, RevocationListCommand.self,
            JobVerb.self, QueueVerb.self, WorkerVerb.self,
            TokenCommand.self, DeadLettersCommand.self, ReplayCommand.self,
            AuditCommand.self, SnapshotCommand.self, BackupCommand.self, RestoreCommand.self, Config.self,
        ]
    )

    /// As the library's own, but wrong usage exits with 2, not with 64: the same codes for every verb.
    static func main() async {
        signal(SIGPIPE, SIG_IGN)  // EPIPE says the same, where somebody can act on it
        openMissingStandardStreams()
        keepOpenSSLUntilTheEnd()
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            let code = exitCode(for: error), text = fullMessage(for: error)
            if !text.isEmpty {
                if code == .success { print(text) } else { printToStandardError(terminalSafeLines(text) + "\n") }
            }
            Foundation.exit(code == .validationFailure ? 2 : code.rawValue)
        }
    }
}
