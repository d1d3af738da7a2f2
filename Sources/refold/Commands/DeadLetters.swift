import ArgumentParser
import Foundation

struct DeadLettersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead-letters", abstract: "Messages that were refused or not understood, and keys that wait.",
        subcommands: [List.self, Show.self, ParkedList.self, ParkedRetryVerb.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Dead letters, by position.")
        @Option(help: "Only this tenant's.") var tenant: String?
        @Option(help: "Only this device's.") var device: String?
        @Option(help: "Only those with this reason, such as INVALID_JSON.") var reason: String?
        @Option(help: "Only those behind this position.") var after: Int64?
        @Option(help: "At most so many.") var limit = 100
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard limit > 0 else { throw ValidationError("--limit must be 1 or more") }
        }

        func run() async throws {
            let rows = try await daemon.rows(
                .deadLetters(tenant: tenant, device: device, reason: reason, after: after), limit: limit)
            printRows(
                rows, json: daemon.json,
                columns: [
                    .init("position", "position"), .init("at", "at"), .init("reason", "reason"),
                    .init("tenant", "tenant_id"), .init("device", "device_id"), .init("topic", "topic"),
                    .init("details", "details"),
                ], none: "no dead letters")
            if !daemon.json, rows.count == limit, let last = rows.last?["position"] {
                printError("there may be more: --after \(TextTable.cell(last))")
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "One dead letter, with its payload.")
        @Argument(help: "The event's position.") var position: UInt64
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.rows(.deadLettersAt(position: position))
            guard !rows.isEmpty else {
                throw ExitCode(1, printing: "the event at position \(position) is no dead letter")
            }
            for row in rows {
                guard !daemon.json else {
                    print(jsonLine(row))
                    continue
                }
                var shown = row
                if let base64 = row["payload_base64"] as? String, let payload = Data(base64Encoded: base64) {
                    shown["payload_base64"] = nil
                    shown["payload"] = String(decoding: payload, as: UTF8.self)
                }
                print(
                    TextTable.record(
                        shown, order: ["position", "at", "reason", "details", "tenant_id", "device_id", "topic"]))
            }
        }
    }
}
