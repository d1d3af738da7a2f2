import ArgumentParser
import Foundation

struct CampaignCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "campaign", abstract: "Create, steer and look up OTA campaigns.",
        subcommands: [
            Create.self, Start.self, Pause.self, Resume.self, Abort.self, Retry.self, Delete.self, Watch.self,
            List.self, Show.self, Devices.self, Timeline.self, Failures.self, TimeZoneCommand.self,
        ])

    static func path(_ tenant: String, _ id: Int64? = nil, _ part: String? = nil) -> String {
        "/api/v1/tenants/\(DaemonClient.escape(tenant))/campaigns" + (id.map { "/\($0)" } ?? "")
            + (part.map { "/\($0)" } ?? "")
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a campaign; nothing is sent before it is started.",
            discussion: """
                The plan has stages, maintenance windows, the abort rule, time limits, retries, \
                verification. Give it as JSON with --plan, and single settings with --set: --set abort.method=ratio \
                --set timeouts.download_seconds=600. What is left out has its default.
                """)
        @OptionGroup var write: WriteOptions
        @Option(help: "For people.") var name: String
        @Option(help: "The firmware's id.") var firmware: Int64
        @Option(help: "The id of a group: its devices, as they are now.") var group: Int64?
        @OptionGroup var list: DeviceListOptions
        @Option(help: "linear or canary.") var strategy: String?
        @Option(help: "Devices a tick.") var rate: Int64?
        @Option(name: .customLong("abort-threshold"), help: "Share of failed devices, 0 to 1.")
        var abortThreshold: Double?
        @Option(help: "A file with the plan in JSON; - for standard input.") var plan: String?
        @Option(
            name: .customLong("set"), parsing: .singleValue,
            help: "A setting of the plan: name=value. May be given several times.")
        var settings: [String] = []
        @OptionGroup var daemon: DaemonOptions

        func validate() throws {
            guard list.isGiven != (group != nil), !list.isTwice else {
                throw ValidationError("name the devices with one of --devices, --devices-file and --group")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["name": name, "firmware_version_id": firmware]
            if let group { body["target_group_id"] = group } else { body["devices"] = try list.devices() }
            body["rollout_strategy"] = strategy
            body["rollout_rate"] = rate
            body["abort_threshold"] = abortThreshold
            body["plan"] = try planObject()
            let answer = try await daemon.asking {
                try await $0.post(CampaignCommand.path(write.tenant), body, key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print(
                "campaign \(TextTable.cell(answer["id"])) created, position \(TextTable.cell(answer["position"])); "
                    + "start it with `refold campaign start \(TextTable.cell(answer["id"])) --tenant \(write.tenant)`")
        }

        private func planObject() throws -> [String: Any]? {
            var object: [String: Any] = [:]
            if let plan {
                let data = try readAll(plan)
                guard let given = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
                    throw ExitCode(2, printing: "\(plan) holds no JSON object")
                }
                object = given
            }
            for setting in settings {
                guard let equals = setting.firstIndex(of: "="), equals > setting.startIndex else {
                    throw ExitCode(2, printing: "--set \(setting) is not name=value")
                }
                let path = setting[..<equals].split(separator: ".").map(String.init)
                let text = String(setting[setting.index(after: equals)...])
                // What is no JSON is text: --set verify=shadow.
                let value = try? JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed)
                object = Self.set(value ?? text, path[...], in: object)
            }
            return object.isEmpty ? nil : object
        }

        private static func set(_ value: Any, _ path: ArraySlice<String>, in object: [String: Any]) -> [String: Any] {
            var object = object
            guard let name = path.first else { return object }
            object[name] =
                path.count == 1
                ? value : set(value, path.dropFirst(), in: object[name] as? [String: Any] ?? [:])
            return object
        }
    }

    struct Start: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "CREATED to RUNNING.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Flag(help: "Then show its progress until it has ended.") var watch = false
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws {
            try await change("start", id, nil, write, daemon)
            if watch { try await CampaignWatch(tenant: write.tenant, id: id, daemon: daemon).run() }
        }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "RUNNING to PAUSED.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "Why, for the record.") var reason: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change("pause", id, reason.map { ["reason": $0] }, write, daemon) }
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
        func run() async throws { try await change("abort", id, reason.map { ["reason": $0] }, write, daemon) }
    }

    struct Retry: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Try devices again that have failed; a campaign that has ended runs again.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(
            name: .customLong("kind"), parsing: .singleValue,
            help: "Only what failed so: DOWNLOAD, INSTALL, TIMED_OUT, … May be given several times.")
        var kinds: [String] = []
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws {
            let body: [String: Any]? = kinds.isEmpty ? nil : ["kinds": kinds.map { $0.uppercased() }]
            try await change("retry", id, body, write, daemon)
        }
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a campaign that was never started.")
        @Argument(help: "The campaign's id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.delete(CampaignCommand.path(write.tenant, id), key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("campaign \(id) is deleted, position \(TextTable.cell(answer["position"]))")
        }
    }

    private static func change(
        _ verb: String, _ id: Int64, _ body: [String: Any]?, _ write: WriteOptions, _ daemon: DaemonOptions
    ) async throws {
        let answer = try await daemon.asking {
            try await $0.post(path(write.tenant, id, verb), body, key: write.idempotencyKey).object()
        }
        if daemon.json { return print(jsonLine(answer)) }
        print("campaign \(id) is \(TextTable.cell(answer["status"])), position \(TextTable.cell(answer["position"]))")
    }
}

/// Devices named one by one.
struct DeviceListOptions: ParsableArguments {
    @Option(name: .customLong("devices"), help: "Device ids, separated by commas.") var names: String?
    @Option(name: .customLong("devices-file"), help: "A file with one device id a line; - for standard input.")
    var file: String?

    var isGiven: Bool { names != nil || file != nil }
    var isTwice: Bool { names != nil && file != nil }

    func devices() throws -> [String] {
        func trimmed(_ part: Substring) -> String? {
            let text = part.trimmingCharacters(in: .whitespaces)
            return text.isEmpty ? nil : text
        }
        if let names { return names.split(separator: ",").compactMap(trimmed) }
        return String(decoding: try readAll(file ?? "-"), as: UTF8.self).split(whereSeparator: \.isNewline)
            .compactMap(trimmed)
    }
}

/// A file, or `-` for standard input.
func readAll(_ file: String) throws -> Data {
    do {
        return try file == "-"
            ? FileHandle.standardInput.readToEnd() ?? Data() : Data(contentsOf: URL(fileURLWithPath: file))
    } catch {
        throw ExitCode(2, printing: "cannot read \(file): \(error.localizedDescription)")
    }
}
