import Postgres

// Who there is.

extension TableQueries {
    /// Tenants that have a device, a certificate, firmware or a campaign, and how their devices are.
    /// - Parameter tenant: only this one; nil: all.
    public func tenants(only tenant: String?) throws(PostgresError) -> [String] {
        var parameters = Parameters()
        parameters.text(tenant ?? "")
        let sql = """
            with recursive moments as materialized (
                select now() - make_interval(secs => stale_after_seconds) as stale_before,
                       now() - make_interval(secs => offline_after_seconds) as offline_before
                from refold.presence_thresholds),
            devices as (
                select tenant_id, count(*) as devices, count(*) filter (where last_seen_at >= stale_before) as online,
                       count(*) filter (where last_seen_at < stale_before and last_seen_at >= offline_before) as stale,
                       count(*) filter (where last_seen_at is null or last_seen_at < offline_before) as offline
                from refold.device_status, moments where $1 = '' or tenant_id = $1 group by tenant_id),
            certified as (
                select min(tenant_id) as tenant_id from refold.device_certificates where $1 = '' or tenant_id = $1
                union all
                select (select min(tenant_id) from refold.device_certificates as c
                        where c.tenant_id > certified.tenant_id and ($1 = '' or c.tenant_id = $1))
                from certified where tenant_id is not null),
            names as (
                select tenant_id from devices union
                select tenant_id from certified where tenant_id is not null union
                select tenant_id from refold.firmware_versions where $1 = '' or tenant_id = $1 union
                select tenant_id from refold.ota_campaigns where $1 = '' or tenant_id = $1)
            select row_to_json(t)::text from (
                select tenant_id, coalesce(devices, 0) as devices, coalesce(online, 0) as online,
                       coalesce(stale, 0) as stale, coalesce(offline, 0) as offline
                from names left join devices using (tenant_id) order by tenant_id) as t
            """
        return try all(sql, parameters, tenant: tenant)
    }
}
