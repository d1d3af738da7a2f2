import ArgumentParser
import Foundation

extension CertificateCommand {
    struct Missing: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List devices that send without a live certificate.",
            discussion: """
                Counted since the daemon started; most messages first, at most 1,000 a broker. The gate's table is \
                limited: it evicts devices that have not sent for long. The messages were accepted with \
                certificates.enforce report, and refused with enforce. Nothing is counted with off.

                Example: refold cert missing --tenant acme
                """)
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.get("\(CertificateCommand.path(tenant))/missing").object()
            }
            printRows(
                answer["items"] as? [[String: Any]] ?? [], json: daemon.json,
                columns: [.init("device", "device"), .init("broker", "broker"), .init("messages", "messages")],
                none: "no device that the gate tracks has sent without a live certificate (certificates.enforce)")
        }
    }
}
