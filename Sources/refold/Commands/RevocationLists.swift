import ArgumentParser
import Foundation

struct RevocationListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "crl", abstract: "Show and issue certificate revocation lists.",
        subcommands: [List.self, Show.self, Issue.self])

    static let columns: [TextTable.Column] = [
        .init("authority", "authority"), .init("number", "number"), .init("entries", "entries"),
        .init("this update", "this_update"), .init("next update", "next_update"), .init("in force at", "in_force"),
        .init("sha256", "sha256"),
    ]

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the newest CRL of each authority.")
        @Option(help: "Authorities that certify this tenant's devices.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.get("/api/v1/tenants/\(DaemonClient.escape(tenant))/crls").object()["items"]
                    as? [[String: Any]] ?? []
            }
            printRows(
                daemon.json ? rows : rows.map(Self.withBrokers), json: daemon.json, columns: columns,
                none: "no CRL yet; create an authority with `refold ca init`")
        }

        /// Adds `in_force`: the brokers, each with what is not done there yet.
        private static func withBrokers(_ row: [String: Any]) -> [String: Any] {
            let brokers = row["brokers"] as? [[String: Any]] ?? []
            let texts = brokers.map { broker in
                var open: [String] = []
                if broker["is_in_force"] as? Bool != true {
                    open.append((broker["proved_number"] as? Int).map { "CRL \($0)" } ?? "not proved")
                }
                for (key, text) in [("uncut", "to disconnect"), ("banned", "banned")] {
                    if let count = broker[key] as? Int, count > 0 { open.append("\(count) \(text)") }
                }
                let name = broker["broker"] as? String ?? ""
                return open.isEmpty ? name : "\(name) (\(open.joined(separator: ", ")))"
            }
            return row.merging(["in_force": texts.joined(separator: ", ")]) { $1 }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print an authority's newest CRL in PEM.",
            discussion: "Example: refold crl show fleet | openssl crl -noout -text")
        @Argument(help: "The authority.") var authority: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking { try await $0.get("/crl/\(DaemonClient.escape(authority)).pem") }
            print(String(decoding: answer.body, as: UTF8.self), terminator: "")
        }
    }

    struct Issue: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Issue an authority's next CRL now.",
            discussion: "The daemon issues one after each revocation, and at half of the last one's life.")
        @Argument(help: "The authority.") var authority: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let row = try await daemon.asking {
                try await $0.post("/api/v1/authorities/\(DaemonClient.escape(authority))/crl").object()
            }
            if daemon.json { return print(jsonLine(row)) }
            print(
                "CRL \(TextTable.cell(row["number"])) of \(authority): \(TextTable.cell(row["entries"])) entries, "
                    + "valid until \(TextTable.cell(row["next_update"]))")
        }
    }
}
