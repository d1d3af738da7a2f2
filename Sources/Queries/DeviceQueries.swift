import Decisions
import EventModel
import Postgres

// Devices, groups of them, and what was found wrong with their messages.

extension TableQueries {
    public func device(tenant: String, device: String) throws(PostgresError) -> String? {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.text(device)
        return try all(
            "select row_to_json(t)::text from refold.device_status t where tenant_id = $1 and device_id = $2",
            parameters, tenant: tenant
        ).first
    }

    public func devices(
        tenant: String, status: String?, site: String?, firmwareVersion: String?, search: String?, limit: Int,
        after: String?
    ) throws(PostgresError) -> TextPage {
        try textPage(
            "refold.device_status", tenant: tenant, limit: limit, after: after,
            where: Self.conditions(search: search) + [
                Self.presence(status), Condition("site_id = ?", site),
                Condition("firmware_version = ?", firmwareVersion),
            ])
    }

    /// The view's `status`, in moments that are known before the first row is read: a function a row takes 9 µs each.
    private static func presence(_ status: String?) -> Condition {
        func before(_ threshold: String) -> String {
            "(select now() - make_interval(secs => \(threshold)) from refold.presence_thresholds)"
        }
        let stale = before("stale_after_seconds"), offline = before("offline_after_seconds")
        let holds =
            switch status {
            case "ONLINE": "last_seen_at >= \(stale)"
            case "STALE": "last_seen_at < \(stale) and last_seen_at >= \(offline)"
            default: "(last_seen_at is null or last_seen_at < \(offline))"
            }
        return Condition("? in ('ONLINE', 'STALE', 'OFFLINE') and \(holds)", status)
    }

    public func deviceHistory(tenant: String, device: String, _ slice: Slice) throws(PostgresError) -> Page {
        try page(
            Self.historyRows, key: "position", slice, tenant: tenant, where: [Condition("device_id = ?", device)])
    }

    private static let historyRows = """
        (select tenant_id, device_id, position, at, 'connection' as kind, event_type as what, null::int8 as campaign_id,
                details
         from refold.device_connection_events
         union all
         select d.tenant_id, d.device_id, d.last_position, greatest(d.created_at, d.dispatched_at, d.last_report_at,
                d.completed_at), 'campaign', d.status, d.campaign_id,
                to_jsonb(d) - 'tenant_id' - 'device_id' - 'last_position'
         from refold.ota_device_status as d)
        """

    public struct FleetCounts: Sendable {
        public let online: Int, stale: Int, offline: Int, deadLetters: Int
    }

    public func fleetCounts() throws(PostgresError) -> FleetCounts {
        let sql = """
            select count(*) filter (where status = 'ONLINE'), count(*) filter (where status = 'STALE'),
                   count(*) filter (where status = 'OFFLINE'), (select count(*) from refold.dead_letters)
            from refold.device_status
            """
        let result = try ask(sql, Parameters(), tenant: nil)
        func count(_ column: Int) -> Int { Int(result.int8(0, column) ?? 0) }
        return FleetCounts(online: count(0), stale: count(1), offline: count(2), deadLetters: count(3))
    }

    public func fleet(tenant: String) throws(PostgresError) -> String {
        var parameters = Parameters()
        parameters.text(tenant)
        let sql = """
            select row_to_json(t)::text from (
                select count(*) filter (where age <= p.stale_after_seconds) as online,
                       count(*) filter (where age > p.stale_after_seconds and age <= p.offline_after_seconds) as stale,
                       count(*) filter (where age is null or age > p.offline_after_seconds) as offline
                from (select extract(epoch from now() - last_seen_at)::float8 as age from refold.device_status
                      where tenant_id = $1) as d, refold.presence_thresholds as p) as t
            """
        return try all(sql, parameters, tenant: tenant).first ?? "{}"
    }

    // MARK: groups

    public func groups(tenant: String, _ slice: Slice) throws(PostgresError) -> Page {
        try page("refold.device_groups", key: "id", slice, tenant: tenant, where: [])
    }

    public func group(tenant: String, id: Int64) throws(PostgresError) -> String? {
        try byID("refold.device_groups", tenant: tenant, id: id)
    }

    public func groupMembers(
        tenant: String, id: Int64, limit: Int, after: String?
    ) throws(PostgresError) -> TextPage {
        try textPage(
            "refold.device_group_members", tenant: tenant, fixed: ("group_id", id), limit: limit, after: after,
            where: [])
    }

    public func tenantSettings(tenant: String) throws(PostgresError) -> String? {
        var parameters = Parameters()
        parameters.text(tenant)
        return try all(
            "select row_to_json(t)::text from refold.tenant_settings t where tenant_id = $1", parameters,
            tenant: tenant
        ).first
    }

    /// The devices that the query finds now.
    public func resolve(tenant: String, query: GroupQuery) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.text(tenant)
        var sql = "select device_id from refold.device_status where tenant_id = $1"
        func add(_ values: [String]?, _ condition: String) {
            guard let values else { return }
            parameters.textArray(values)
            sql += " and " + condition.replacing("?", with: "$\(parameters.types.count)")
        }
        add(query.sites, "site_id = any (?)")
        add(query.firmwareVersions, "firmware_version = any (?)")
        add(query.firmwareVersionsNot, "(firmware_version is null or firmware_version <> all (?))")
        if let seconds = query.seenWithinSeconds {
            parameters.text("\(seconds)")
            sql += " and last_seen_at >= now() - make_interval(secs => ($\(parameters.types.count))::float8)"
        }
        return try all(sql + " order by device_id", parameters, tenant: tenant)
    }

    // MARK: dead letters

    public func deadLetters(
        tenant: String?, device: String?, reason: String?, _ slice: Slice
    ) throws(PostgresError) -> Page {
        try page(
            Self.deadLetterRows, key: "position", slice, tenant: tenant,
            where: [Condition("device_id = ?", device), Condition("reason = ?", reason)])
    }

    public func deadLetters(at position: Int64) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.int8(position)
        return try all(
            "select row_to_json(t)::text from \(Self.deadLetterRows) t where position = $1 order by projection",
            parameters, tenant: nil)
    }

    /// Dead letters by reason.
    public func deadLetterReasons() throws(PostgresError) -> [(reason: String, count: Int64)] {
        let result = try ask(
            "select reason, count(*) from refold.dead_letters group by reason order by reason", Parameters(),
            tenant: nil)
        return (0..<result.rowCount).map { (result.text($0, 0) ?? "", result.int8($0, 1) ?? 0) }
    }

    private static let deadLetterRows = """
        (select position, projection, tenant_id, device_id, topic, reason, details, at, status,
                replace(encode(payload, 'base64'), E'\\n', '') as payload_base64 from refold.dead_letters)
        """
}
