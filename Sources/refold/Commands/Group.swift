import ArgumentParser
import Foundation

struct GroupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "group", abstract: "Devices under one name: lists, or stored queries.",
        subcommands: [Create.self, List.self, Show.self, Members.self, Add.self, Remove.self, Delete.self])

    static func path(_ tenant: String, _ id: Int64? = nil, _ part: String? = nil) -> String {
        "/api/v1/tenants/\(DaemonClient.escape(tenant))/groups" + (id.map { "/\($0)" } ?? "")
            + (part.map { "/\($0)" } ?? "")
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a group: of named devices, or of whatever a query finds when a campaign is created.")
        @OptionGroup var write: WriteOptions
        @Option(help: "For people.") var name: String
        @Option(help: "For people.") var description: String?
        @OptionGroup var list: DeviceListOptions
        @Option(name: .customLong("site"), parsing: .singleValue, help: "A site. May be given several times.")
        var sites: [String] = []
        @Option(
            name: .customLong("firmware"), parsing: .singleValue,
            help: "A firmware version that devices report. May be given several times.")
        var firmware: [String] = []
        @Option(
            name: .customLong("not-firmware"), parsing: .singleValue,
            help: "A firmware version that they must not have. May be given several times.")
        var notFirmware: [String] = []
        @Option(name: .customLong("seen-within"), help: "A message within so many seconds.") var seenWithin: Double?
        @OptionGroup var daemon: DaemonOptions

        private var isQuery: Bool {
            !sites.isEmpty || !firmware.isEmpty || !notFirmware.isEmpty || seenWithin != nil
        }

        func validate() throws {
            guard list.isGiven != isQuery, !list.isTwice else {
                throw ValidationError(
                    "name the devices with --devices or --devices-file, or say which with --site, --firmware, "
                        + "--not-firmware and --seen-within")
            }
        }

        func run() async throws {
            var body: [String: Any] = ["name": name]
            body["description"] = description
            if isQuery {
                var query: [String: Any] = [:]
                if !sites.isEmpty { query["sites"] = sites }
                if !firmware.isEmpty { query["firmware_versions"] = firmware }
                if !notFirmware.isEmpty { query["firmware_versions_not"] = notFirmware }
                query["seen_within_seconds"] = seenWithin
                body["query"] = query
            } else {
                body["devices"] = try list.devices()
            }
            let answer = try await daemon.asking {
                try await $0.post(GroupCommand.path(write.tenant), body, key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("group \(TextTable.cell(answer["id"])) created, position \(TextTable.cell(answer["position"]))")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The tenant's groups.")
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            printRows(
                try await daemon.asking { try await $0.pages(GroupCommand.path(tenant), [], limit: nil) },
                json: daemon.json,
                columns: [
                    .init("id", "id"), .init("name", "name"), .init("devices", "member_count"),
                    .init("query", "query"), .init("created", "created_at"), .init("by", "created_by"),
                ], none: "no groups; create one with `refold group create`")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "One group.")
        @Argument(help: "Its id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let row = try await daemon.asking { try await $0.get(GroupCommand.path(tenant, id)).object() }
            print(daemon.json ? jsonLine(row) : TextTable.record(row, order: ["id", "tenant_id", "name"]))
        }
    }

    struct Members: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A group's devices, one id a line: those on the list, or those that the query finds now.")
        @Argument(help: "Its id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "At most so many.") var limit: Int?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(GroupCommand.path(tenant, id, "members"), [], limit: limit)
            }
            for row in rows { print(daemon.json ? jsonLine(row) : TextTable.cell(row["device_id"])) }
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Put devices on a group's list.")
        @Argument(help: "Its id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var list: DeviceListOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change(id, "add", write, list, daemon) }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take devices off a group's list.")
        @Argument(help: "Its id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var list: DeviceListOptions
        @OptionGroup var daemon: DaemonOptions
        func run() async throws { try await change(id, "remove", write, list, daemon) }
    }

    private static func change(
        _ id: Int64, _ what: String, _ write: WriteOptions, _ list: DeviceListOptions, _ daemon: DaemonOptions
    ) async throws {
        let devices = try list.devices()
        let answer = try await daemon.asking {
            try await $0.post(path(write.tenant, id, "members"), [what: devices], key: write.idempotencyKey).object()
        }
        if daemon.json { return print(jsonLine(answer)) }
        print("group \(id) is changed, position \(TextTable.cell(answer["position"]))")
    }

    struct Delete: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a group; campaigns that named it keep their devices.")
        @Argument(help: "Its id.") var id: Int64
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let answer = try await daemon.asking {
                try await $0.delete(GroupCommand.path(write.tenant, id), key: write.idempotencyKey).object()
            }
            if daemon.json { return print(jsonLine(answer)) }
            print("group \(id) is deleted, position \(TextTable.cell(answer["position"]))")
        }
    }
}
