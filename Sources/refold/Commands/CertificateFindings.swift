import ArgumentParser
import Foundation

extension CertificateCommand {
    struct Audit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what needs attention: expiring, revoked and sending, weak keys, …",
            discussion: """
                Each finding has a code, a severity, evidence (positions in the log) and a remedy. The codes are in \
                docs/certificates.md. Exit code 1: there is a finding that is high or critical.

                Example: refold cert audit --tenant acme --code revoked_sending
                """)
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "Only findings of this code, or of several, separated by commas.") var code: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.get("\(CertificateCommand.path(tenant))/findings", query: [("code", code)]).object()
            }
            let items = answer["items"] as? [[String: Any]] ?? []
            if daemon.json {
                print(jsonLine(answer))
            } else {
                if let why = answer["senders_unknown"] as? String {
                    printError("findings about devices that send are missing: \(why)")
                }
                for item in items { print(Self.text(item)) }
                if items.isEmpty {
                    print(try await AuthorityCommand.nothing(of: tenant, daemon) ?? "no findings")
                }
            }
            guard !items.contains(where: { ["critical", "high"].contains($0["severity"] as? String) }) else {
                throw ExitCode(1)
            }
        }

        private static func text(_ item: [String: Any]) -> String {
            func cell(_ key: String) -> String { TextTable.cell(item[key]) }
            let certificate = item["serial"] == nil ? nil : "\(cell("authority"))/\(cell("serial"))"
            let subject = [
                item["device"].map { _ in "device \(cell("device"))" },
                certificate ?? item["authority"].map { _ in "authority \(cell("authority"))" },
            ].compactMap { $0 }.joined(separator: ", ")
            let evidence = (item["evidence"] as? [[String: Any]] ?? []).map {
                "\(TextTable.cell($0["what"])) at position \(TextTable.cell($0["position"]))"
            }
            return """
                \(cell("severity").uppercased())  \(cell("code"))  \(subject)
                  \(cell("text"))
                  since \(cell("since")); \(evidence.joined(separator: ", "))
                  \(cell("remedy"))
                """
        }
    }
}
