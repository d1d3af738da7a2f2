import ArgumentParser
import Foundation

struct CampaignCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "campaign", abstract: "Create, steer and look up OTA campaigns.",
        subcommands: [Create.self, Start.self, Pause.self, Resume.self, Abort.self, List.self, Show.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a campaign; nothing is sent before it is started.")
        @OptionGroup var write: WriteOptions
        @Option(help: "For people.") var name: String
        @Option(help: "The firmware's id.") var firmware: Int64
        @Option(help: "Device ids, separated by commas.") var devices: String?
        @Option(name: .customLong("devices-file"), help: "A file with one device id a line; - for standard input.")
        var devicesFile: String?
        @Option(help: "linear or canary.") var strategy: String?
        @Option(help: "Devices a tick, for linear.") var rate: Int64?
        @Option(name: .customLong("abort-threshold"), help: "Share of failed devices, 0 to 1.")
        var abortThreshold: Double?
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard (devices == nil) != (devicesFile == nil) else {
                throw ValidationError("name the devices with either --devices or --devices-file")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["name": name, "firmware_version_id": firmware, "devices": try deviceIDs()]
            body["rollout_strategy"] = strategy
            body["rollout_rate"] = rate
            body["abort_threshold"] = abortThreshold
            let answer = try await daemon.asking {
                try await $0.post(
                    "/api/v1/tenants/\(DaemonClient.escape(write.tenant))/campaigns", body, key: write.idempotencyKey
                ).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("campaign \(TextTable.cell(answer["id"])) created, position \(TextTable.cell(answer["position"])); "
                + "start it with `refold campaign start \(TextTable.cell(answer["id"])) --tenant \(write.tenant)`")
        }

        private func deviceIDs() throws -> [String] {
            func trimmed(_ part: Substring) -> String? {
                let text = part.trimmingCharacters(in: .whitespaces)
                return text.isEmpty ? nil : text
            }
            if let devices { return devices.split(separator: ",").compactMap(trimmed) }
            let file = devicesFile ?? "-"
            do {
                let data = try file == "-"
                    ? FileHandle.standardInput.readToEnd() ?? Data() : Data(contentsOf: URL(fileURLWithPath: file))
                return String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).compactMap(trimmed)
            } catch {
                printError("cannot read \(file): \(error.localizedDescription)")
                throw ExitCode(2)
            }
        }
    }

    struct Start: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "CREATED to RUNNING.")
        @Argument(help: "The campaign's id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("start", id, nil, write, daemon) }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "RUNNING to PAUSED.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "Why, for the record.") var reason: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("pause", id, reason, write, daemon) }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "PAUSED to RUNNING.")
        @Argument(help: "The campaign's id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("resume", id, nil, write, daemon) }
    }

    struct Abort: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a campaign for good.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "Why, for the record.") var reason: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("abort", id, reason, write, daemon) }
    }

    private static func change(
        _ verb: String, _ id: Int64, _ reason: String?, _ write: WriteOptions, _ daemon: DaemonOptions
    ) async throws {
        let answer = try await daemon.asking {
            try await $0.post(
                "/api/v1/tenants/\(DaemonClient.escape(write.tenant))/campaigns/\(id)/\(verb)",
                reason.map { ["reason": $0] }, key: write.idempotencyKey
            ).object()
        }
        if daemon.json { return print(jsonLine(answer)) }
        print("campaign \(id) is \(TextTable.cell(answer["status"])), position \(TextTable.cell(answer["position"]))")
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The tenant's campaigns.")
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "Only those in this status: CREATED, RUNNING, PAUSED, COMPLETED or ABORTED.") var status: String?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            printRows(
                try await daemon.rows(.campaigns(tenant: tenant, status: status?.uppercased())), json: daemon.json,
                columns: [
                    .init("id", "id"), .init("name", "name"), .init("status", "status"),
                    .init("firmware", "firmware_version_id"), .init("devices", "total_devices"),
                    .init("succeeded", "succeeded"), .init("failed", "failed"), .init("created", "created_at"),
                ], none: "no campaigns; create one with `refold campaign create`")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "One campaign and its counts.")
        @Argument(help: "Its id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            guard let row = try await daemon.rows(.campaignByID(tenant: tenant, id: id)).first else {
                printError("there is no campaign \(id) in this tenant")
                throw ExitCode(1)
            }
            print(daemon.json ? jsonLine(row) : TextTable.record(row, order: [
                "id", "tenant_id", "name", "status", "firmware_version_id", "rollout_strategy", "rollout_rate",
                "abort_threshold", "total_devices", "succeeded", "failed",
            ]))
        }
    }
}
