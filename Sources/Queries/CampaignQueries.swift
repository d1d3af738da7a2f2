import Postgres

// Firmware, campaigns, and who decided what.

extension TableQueries {
    public func firmware(tenant: String, id: Int64) throws(PostgresError) -> String? {
        try byID("refold.firmware_versions", tenant: tenant, id: id)
    }

    public func firmware(tenant: String, _ slice: Slice) throws(PostgresError) -> Page {
        try page("refold.firmware_versions", key: "id", slice, tenant: tenant, where: [])
    }

    public func campaign(tenant: String, id: Int64) throws(PostgresError) -> String? {
        try byID(Self.campaignRows, tenant: tenant, id: id)
    }

    public func campaigns(tenant: String, status: String?, _ slice: Slice) throws(PostgresError) -> Page {
        try page(
            Self.campaignRows, key: "id", slice, tenant: tenant, where: [Condition("status = ?", status)])
    }

    private static let campaignRows = """
        (select c.*, f.version as firmware_version from refold.ota_campaigns as c
         left join refold.firmware_versions as f on f.id = c.firmware_version_id and f.tenant_id = c.tenant_id)
        """

    public func campaignDevices(
        tenant: String, id: Int64, status: String?, failureKind: String?, search: String?, limit: Int, after: String?
    ) throws(PostgresError) -> TextPage {
        try textPage(
            "refold.ota_device_status", tenant: tenant, fixed: ("campaign_id", id), limit: limit, after: after,
            where: Self.conditions(search: search) + [
                Condition("status = ?", status), Condition("failure_kind = ?", failureKind),
            ])
    }

    public func campaignEvents(tenant: String, id: Int64, _ slice: Slice) throws(PostgresError) -> Page {
        try page(
            "(select * from refold.campaign_events where campaign_id = \(id))", key: "position", slice,
            tenant: tenant, where: [])
    }

    /// Never more rows than a chart has room for: minutes are taken together where there are many.
    static let progressRowsMax = 500

    public func campaignProgress(tenant: String, id: Int64) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.int8(id)
        let sql = """
            with minutes as (
                select *, (extract(epoch from minute) / 60)::int8 as number from refold.campaign_progress
                where tenant_id = $1 and campaign_id = $2),
            span as (select min(number) as first, (max(number) - min(number)) / \(Self.progressRowsMax) + 1 as width
                     from minutes),
            parts as (
                select (number - first) / width as part, first, width, sum(dispatched) as dispatched,
                       sum(succeeded) as succeeded, sum(failed) as failed, sum(skipped) as skipped
                from minutes, span group by 1, 2, 3)
            select row_to_json(t)::text from (
                select to_timestamp((first + (part + 1) * width) * 60) as at,
                       (sum(dispatched) over upto)::int8 as dispatched, (sum(succeeded) over upto)::int8 as succeeded,
                       (sum(failed) over upto)::int8 as failed, (sum(skipped) over upto)::int8 as skipped
                from parts window upto as (order by part)) as t
            order by at
            """
        return try all(sql, parameters, tenant: tenant)
    }

    public func campaignFailures(tenant: String, id: Int64) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.text(tenant)
        parameters.int8(id)
        let sql = """
            select row_to_json(t)::text from (
                select status, failure_kind, left(error_message, 200) as error, count(*) as devices,
                       (array_agg(device_id order by device_id))[1:5] as examples
                from refold.ota_device_status
                where tenant_id = $1 and campaign_id = $2 and status in ('FAILED', 'TIMED_OUT', 'UNREACHABLE')
                group by 1, 2, 3 order by devices desc, 1, 2, 3 limit 50) as t
            """
        return try all(sql, parameters, tenant: tenant)
    }

    public func auditLogs(tenant: String, subject: String?, _ slice: Slice) throws(PostgresError) -> Page {
        try page(
            "refold.audit_logs", key: "position", slice, tenant: tenant,
            where: [
                // What the index holds of a subject, and then all of it.
                Condition("left(subject, 64) = left(?, 64)", subject), Condition("subject = ?", subject),
            ])
    }
}
