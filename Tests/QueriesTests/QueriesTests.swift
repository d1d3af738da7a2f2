import Decisions
import EventModel
import Foundation
import Postgres
import PostgresStore
import TestSupport
import Testing

@testable import Queries

/// Tables with rows of two tenants, and questions to them.
struct QueryBench {
    let owner: Connection
    let queries: TableQueries

    init() throws {
        let server = try PostgresServer.shared.get()
        let url = server.url(database: try server.makeDatabase())
        _ = try RefoldSchema.migrate(DatabaseTarget(url))
        owner = try Connection(DatabaseTarget(url))
        queries = TableQueries(databaseURL: url)
    }

    /// A campaign of `count` devices, id 1 for tenant a, id 2 for tenant b: every tenth FAILED, every hundredth
    /// TIMED_OUT, every third PENDING, the others SUCCESS.
    func fill(_ count: Int) throws {
        for (id, tenant) in [(1, "a"), (2, "b")] {
            try owner.exec(
                """
                insert into refold.firmware_versions_v1 (id, tenant_id, version, file_url, created_at, created_by)
                values (\(id), '\(tenant)', '2.\(id)', 'https://x/y', '2026-01-01Z', 'ann');
                insert into refold.ota_campaigns_v2 (id, tenant_id, name, firmware_version_id, rollout_strategy, status,
                    total_devices, status_at, status_by, created_at, created_by, last_position, created_position)
                values (\(id), '\(tenant)', 'c', \(id), 'linear', 'RUNNING', \(count), '2026-01-01Z', 'ann',
                    '2026-01-01Z', 'ann', 1, 1);
                insert into refold.ota_device_status_v2 (campaign_id, device_id, id, tenant_id, status, failure_kind,
                    attempt, error_message, created_at, dispatched_at, report_count, late_report_count, has_begun,
                    last_position)
                select \(id), 'dev-' || lpad(n::text, 6, '0'), \(id) * 1000000 + n, '\(tenant)', s,
                    case s when 'FAILED' then 'INSTALL' when 'TIMED_OUT' then s end, 1,
                    case s when 'FAILED' then 'flash error ' || n % 3 end, '2026-01-01Z', '2026-01-01Z', 1, 0, true, n
                from (select n, case when n % 100 = 5 then 'TIMED_OUT' when n % 10 = 7 then 'FAILED'
                    when n % 3 = 0 then 'PENDING' else 'SUCCESS' end as s from generate_series(1, \(count)) as n) as d;
                insert into refold.device_status_v1 (tenant_id, device_id, site_id, last_seen_at, message_count,
                    telemetry_count, heartbeat_count, ack_count, rejected_count, reported_state, last_position)
                select '\(tenant)', 'dev-' || lpad(n::text, 6, '0'), 's' || n % 5,
                    now() - make_interval(secs => n % 2 * 3600), n, n, 0, 0, 0,
                    case n % 4 when 0 then null else jsonb_build_object('firmware_version', '1.' || n % 4) end, n
                from generate_series(1, \(count)) as n;
                insert into refold.campaign_progress_v1 (campaign_id, minute, tenant_id, dispatched, succeeded, failed,
                    skipped)
                select \(id), 29500000 + n, '\(tenant)', 3, 2, 1, 0 from generate_series(1, \(count / 10)) as n;
                insert into refold.campaign_events_v1 (position, tenant_id, campaign_id, at, event_type, actor)
                select \(id) * 1000000 + n, '\(tenant)', \(id), '2026-01-01Z', 'dispatched', 'engine'
                from generate_series(1, \(count / 10)) as n;
                insert into refold.audit_logs_v1 (position, tenant_id, at, actor, action, subject, after)
                select \(id) * 1000000 + n, '\(tenant)', '2026-01-01Z', 'ann', 'campaign.started',
                    'campaign:' || n % 7, '{}'
                from generate_series(1, \(count / 10)) as n;
                insert into refold.device_connection_events_v1 (position, tenant_id, device_id, event_type, at, details)
                select \(id) * 1000000 + n, '\(tenant)', 'dev-000007', 'CONNECTED', '2026-01-01Z', '{}'
                from generate_series(1, 3) as n;
                insert into refold.device_groups_v1 (id, tenant_id, name, member_count, created_at, created_by,
                    last_position) values (\(id), '\(tenant)', 'g', 5, '2026-01-01Z', 'ann', 1);
                insert into refold.device_group_members_v1 (group_id, device_id, tenant_id, is_member, added_at,
                    position)
                select \(id), 'dev-' || lpad(n::text, 6, '0'), '\(tenant)', n <> 3, '2026-01-01Z', 1
                from generate_series(1, 6) as n;
                insert into refold.tenant_settings_v1 values ('\(tenant)', 'Europe/Berlin', '2026-01-01Z', 'ann', 1);
                """)
        }
        try owner.exec("analyze")
    }
}

private func object(_ row: String) -> [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(row.utf8))) as? [String: Any] ?? [:]
}

@Suite struct QueriesTests {
    @Test func rowLevelSecurityHoldsForTheAPI() async throws {
        let bench = try QueryBench()
        try bench.fill(20)
        let queries = bench.queries
        // A question that forgets whose rows it wants gets those of its tenant.
        for table in [
            "ota_campaigns", "ota_device_status", "campaign_progress", "campaign_events", "device_status",
            "firmware_versions", "audit_logs", "device_groups", "device_group_members", "tenant_settings",
            "device_connection_events",
        ] {
            let sql = "select distinct tenant_id from refold.\(table) order by 1"
            for tenant in ["a", "b"] {
                #expect(try await queries.all(sql, Parameters(), tenant: tenant) == [tenant], "\(table)")
            }
            #expect(try await queries.all(sql, Parameters(), tenant: "c").isEmpty, "\(table)")
            #expect(try await queries.all(sql, Parameters(), tenant: nil) == ["a", "b"], "\(table)")
        }
        let whose = "select current_user::text || current_setting('app.tenant_id', true)"
        #expect(try await queries.all(whose, Parameters(), tenant: "a") == ["refold_appa"])
        #expect(await queries.isIsolated)
        // Nothing of it is left behind, nor after a question that fails.
        await #expect(throws: PostgresError.self) {
            _ = try await queries.all("select 1 / 0", Parameters(), tenant: "a")
        }
        await #expect(throws: PostgresError.self) {
            _ = try await queries.all("delete from refold.ota_campaigns returning name", Parameters(), tenant: "a")
        }
        #expect(try await queries.all(whose, Parameters(), tenant: nil).allSatisfy { !$0.contains("refold_app") })
    }

    @Test func whatIsAnothersIsNotThere() async throws {
        let bench = try QueryBench()
        try bench.fill(20)
        let queries = bench.queries
        #expect(try await queries.campaign(tenant: "a", id: 2) == nil)
        #expect(try await queries.campaign(tenant: "b", id: 2).map(object)?["firmware_version"] as? String == "2.2")
        #expect(try await queries.firmware(tenant: "a", id: 2) == nil)
        #expect(try await queries.group(tenant: "a", id: 2) == nil)
        #expect(try await queries.groupMembers(tenant: "a", id: 2, limit: 10, after: nil).rows.isEmpty)
        #expect(
            try await queries.campaignDevices(
                tenant: "a", id: 2, status: nil, failureKind: nil, search: nil, limit: 10, after: nil
            ).rows.isEmpty)
        #expect(try await queries.campaignEvents(tenant: "a", id: 2, .init(limit: 10)).rows.isEmpty)
        #expect(try await queries.campaignProgress(tenant: "a", id: 2).isEmpty)
        #expect(try await queries.campaignFailures(tenant: "a", id: 2).isEmpty)
    }

    @Test func devicesOfACampaign() async throws {
        let bench = try QueryBench()
        try bench.fill(200)
        let queries = bench.queries
        func devices(
            _ status: String? = nil, kind: String? = nil, search: String? = nil, limit: Int = 1000, after: String? = nil
        ) async throws -> (ids: [String], next: String?) {
            let page = try await queries.campaignDevices(
                tenant: "a", id: 1, status: status, failureKind: kind, search: search, limit: limit, after: after)
            return (page.rows.compactMap { object($0)["device_id"] as? String }, page.next)
        }
        var all: [String] = [], next: String?
        repeat {
            let page = try await devices(limit: 30, after: next)
            all += page.ids
            next = page.next
        } while next != nil
        #expect(all.count == 200 && all == all.sorted() && Set(all).count == 200)
        #expect(try await devices("TIMED_OUT").ids == ["dev-000005", "dev-000105"])
        #expect(try await devices(kind: "INSTALL").ids.count == 20)
        #expect(try await devices("FAILED", search: "dev-00010").ids == ["dev-000107"])
        #expect(try await devices(search: "dev-0001").ids.count == 100)
        #expect(try await devices(search: "nothing").ids.isEmpty)
        #expect(try await devices(search: "dev-%").ids.isEmpty)

        let failures = try await queries.campaignFailures(tenant: "a", id: 1).map(object)
        #expect(failures.count == 4 && failures.first?["devices"] as? Int == 7)
        #expect(failures.last?["failure_kind"] as? String == "TIMED_OUT" && failures.last?["devices"] as? Int == 2)
    }

    @Test func timelineAndAuditGoBothWays() async throws {
        let bench = try QueryBench()
        try bench.fill(100)
        let queries = bench.queries
        func positions(_ page: TableQueries.Page) -> [Int] { page.rows.compactMap { object($0)["position"] as? Int } }
        let first = try await queries.campaignEvents(tenant: "a", id: 1, .init(limit: 4))
        #expect(positions(first) == [1_000_001, 1_000_002, 1_000_003, 1_000_004] && first.next == 1_000_004)
        let last = try await queries.campaignEvents(tenant: "a", id: 1, .init(limit: 4, newestFirst: true))
        #expect(positions(last) == [1_000_010, 1_000_009, 1_000_008, 1_000_007] && last.next == 1_000_007)
        let end = try await queries.campaignEvents(
            tenant: "a", id: 1, .init(limit: 40, after: last.next, newestFirst: true))
        #expect(positions(end).count == 6 && end.next == nil)
        let audit = try await queries.auditLogs(tenant: "a", subject: "campaign:3", .init(limit: 10))
        #expect(positions(audit) == [1_000_003, 1_000_010])
        #expect(try await queries.auditLogs(tenant: "a", subject: nil, .init(limit: 100)).rows.count == 10)
        let history = try await queries.deviceHistory(
            tenant: "a", device: "dev-000007", .init(limit: 10, newestFirst: true)
        ).rows.map(object)
        #expect(history.map { $0["kind"] as? String } == ["connection", "connection", "connection", "campaign"])
        #expect(history.last?["campaign_id"] as? Int == 1)
    }

    @Test func progressIsASumThatFitsAChart() async throws {
        let bench = try QueryBench()
        try bench.fill(30_000)
        let rows = try await bench.queries.campaignProgress(tenant: "a", id: 1).map(object)
        #expect((400...501).contains(rows.count))
        #expect(rows.last?["dispatched"] as? Int == 9000 && rows.last?["succeeded"] as? Int == 6000)
        let failed = rows.compactMap { $0["failed"] as? Int }
        #expect(failed == failed.sorted() && failed.first! > 0)
        #expect(try await bench.queries.campaignProgress(tenant: "a", id: 9).isEmpty)
    }

    @Test func devicesAndWhatAQueryFinds() async throws {
        let bench = try QueryBench()
        try bench.fill(100)
        let queries = bench.queries
        #expect(
            object(try await queries.fleet(tenant: "a")) as? [String: Int] == [
                "online": 50, "stale": 0, "offline": 50,
            ])
        let page = try await queries.devices(
            tenant: "a", status: "ONLINE", site: "s2", firmwareVersion: nil, search: nil, limit: 3, after: nil)
        #expect(
            page.rows.compactMap { object($0)["device_id"] as? String }
                == ["dev-000002", "dev-000012", "dev-000022"])
        #expect(page.next == "dev-000022")
        var query = GroupQuery()
        #expect(try await queries.resolve(tenant: "a", query: query).count == 100)
        query.sites = ["s1", "s2"]
        #expect(try await queries.resolve(tenant: "a", query: query).count == 40)
        query.firmwareVersionsNot = ["1.1", "1.2"]
        #expect(try await queries.resolve(tenant: "a", query: query).count == 20)  // those that report none too
        query.firmwareVersions = ["1.3"]
        query.seenWithinSeconds = 1800
        #expect(try await queries.resolve(tenant: "a", query: query).isEmpty)  // odd ones were seen an hour ago
        query.seenWithinSeconds = 7200
        #expect(try await queries.resolve(tenant: "a", query: query).count == 10)
        let members = try await queries.groupMembers(tenant: "a", id: 1, limit: 3, after: "dev-000001")
        #expect(
            members.rows.compactMap { object($0)["device_id"] as? String }
                == ["dev-000002", "dev-000004", "dev-000005"])
        #expect(members.next == "dev-000005")
        #expect(try await queries.tenantSettings(tenant: "a").map(object)?["time_zone"] as? String == "Europe/Berlin")
    }
}
