import ArgumentParser
import Foundation

struct FirmwareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "firmware", abstract: "Make firmware known and look it up.",
        subcommands: [Add.self, List.self, Show.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a firmware image known.")
        @OptionGroup var write: WriteOptions
        @Option(help: "Its version, as devices report it.") var version: String
        @Option(help: "Where devices fetch it: an absolute URL.") var url: String
        @Option(help: "For people.") var description: String?
        @Option(help: "Its size in bytes.") var size: Int64?
        @Option(help: "Its SHA-256: 64 hex digits.") var sha256: String?
        @Option(name: .customLong("device-type"), help: "What it runs on.") var deviceType: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            var body: [String: Any] = ["version": version, "file_url": url]
            body["description"] = description
            body["file_size_bytes"] = size
            body["checksum_sha256"] = sha256
            body["device_type"] = deviceType
            let answer = try await daemon.asking {
                try await $0.post(
                    "/api/v1/tenants/\(DaemonClient.escape(write.tenant))/firmware", body, key: write.idempotencyKey
                ).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("firmware \(TextTable.cell(answer["id"])) added, position \(TextTable.cell(answer["position"]))")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The tenant's firmware.")
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            printRows(
                try await daemon.rows(.firmware(tenant: tenant)), json: daemon.json,
                columns: [
                    .init("id", "id"), .init("version", "version"), .init("device type", "device_type"),
                    .init("bytes", "file_size_bytes"), .init("created", "created_at"), .init("url", "file_url"),
                ], none: "no firmware; add some with `refold firmware add`")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "One firmware image.")
        @Argument(help: "Its id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            guard let row = try await daemon.rows(.firmwareByID(tenant: tenant, id: id)).first else {
                throw ExitCode(1, printing: "there is no firmware \(id) in this tenant")
            }
            print(
                daemon.json
                    ? jsonLine(row) : TextTable.record(row, order: ["id", "tenant_id", "version", "file_url"]))
        }
    }
}
