import ArgumentParser
import Foundation

// What there is to see of campaigns.

extension CampaignCommand {
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
                throw ExitCode(1, printing: "there is no campaign \(id) in this tenant")
            }
            print(
                daemon.json
                    ? jsonLine(row)
                    : TextTable.record(
                        row,
                        order: [
                            "id", "tenant_id", "name", "status", "status_code", "status_reason", "firmware_version_id",
                            "rollout_strategy", "rollout_rate", "abort_threshold", "total_devices", "pending",
                            "in_flight",
                            "succeeded", "failed", "skipped",
                        ]))
        }
    }

    struct Devices: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List a campaign's devices with their status.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @Option(help: "Only those in this status: PENDING, DOWNLOADING, …, FAILED, TIMED_OUT.") var status: String?
        @Option(help: "Only those that failed so: DOWNLOAD, INSTALL, REJECTED, …") var kind: String?
        @Option(help: "Only those whose id begins so.") var search: String?
        @Option(help: "At most so many.") var limit: Int?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(
                    CampaignCommand.path(tenant, id, "devices"),
                    [("status", status?.uppercased()), ("kind", kind?.uppercased()), ("search", search)], limit: limit)
            }
            printRows(
                rows, json: daemon.json,
                columns: [
                    .init("device", "device_id"), .init("status", "status"), .init("kind", "failure_kind"),
                    .init("attempt", "attempt"), .init("%", "progress_pct"), .init("sent", "dispatched_at"),
                    .init("ended", "completed_at"), .init("error", "error_message"),
                ], none: "no such devices")
        }
    }

    struct Timeline: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "What was decided of a campaign, by whom, and why.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @Flag(help: "The newest first.") var newest = false
        @Option(help: "At most so many.") var limit: Int?
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.pages(
                    CampaignCommand.path(tenant, id, "timeline"), [("order", newest ? "newest" : nil)], limit: limit)
            }
            printRows(
                rows, json: daemon.json,
                columns: [
                    .init("position", "position"), .init("at", "at"), .init("what", "event_type"),
                    .init("by", "actor"), .init("stage", "stage"), .init("devices", "devices"), .init("code", "code"),
                    .init("reason", "reason"), .init("cause", "cause"),
                ], none: "nothing")
        }
    }

    struct Failures: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List failure causes, most frequent first.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let rows = try await daemon.asking {
                try await $0.get(CampaignCommand.path(tenant, id, "failures")).object()["items"] as? [[String: Any]]
            }
            printRows(
                rows ?? [], json: daemon.json,
                columns: [
                    .init("devices", "devices"), .init("status", "status"), .init("kind", "failure_kind"),
                    .init("error", "error"), .init("for example", "examples"),
                ], none: "no device has failed")
        }
    }

    struct TimeZoneCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "time-zone",
            abstract: "The time zone of the tenant's maintenance windows: shown, or set for campaigns to come.")
        @Argument(help: "A name of the IANA time zone database, such as Europe/Berlin.") var zone: String?
        @OptionGroup var write: WriteOptions
        @OptionGroup var daemon: DaemonOptions

        func run() async throws {
            let path = "/api/v1/tenants/\(DaemonClient.escape(write.tenant))/settings"
            let answer = try await daemon.asking { client in
                if let zone { _ = try await client.put(path, ["time_zone": zone], key: write.idempotencyKey) }
                return zone == nil ? try await client.get(path).object() : ["time_zone": zone ?? ""]
            }
            print(daemon.json ? jsonLine(answer) : TextTable.cell(answer["time_zone"]))
        }
    }

    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A campaign's progress, live, until it has ended. Exit code 1 when it was aborted.")
        @Argument(help: "The campaign's id.") var id: Int64
        @Option(help: "The tenant.") var tenant: String
        @OptionGroup var daemon: DaemonOptions

        func run() async throws { try await CampaignWatch(tenant: tenant, id: id, daemon: daemon).run() }
    }
}
