import Postgres

// The life of a certificate, and which devices send.

extension TableQueries {
    public func certificateEvents(
        tenant: String, authority: String, serial: String, _ slice: Slice
    ) throws(PostgresError) -> Page {
        try page(
            "refold.certificate_events", key: "position", slice, tenant: tenant,
            where: [Condition("authority_id = ?", authority), Condition("serial = ?", serial)])
    }

    public struct Sender: Sendable {
        public let tenantID: String
        public let deviceID: String
        /// Microseconds since 1970.
        public let lastSeenAt: Int64
        public let lastPosition: Int64
    }

    /// Devices with a message in the last 24 hours, by tenant and device.
    /// - Parameters:
    ///   - device: only this one; nil: all.
    ///   - after: the last one of the page before; nil: the first page.
    public func senders(
        of tenants: [String], device: String?, after: (tenant: String, device: String)?, limit: Int
    ) throws(PostgresError) -> [Sender] {
        var parameters = Parameters()
        parameters.textArray(tenants)
        parameters.text(after?.tenant ?? "")
        parameters.text(after?.device ?? "")
        parameters.int8(Int64(limit))
        parameters.text(device ?? "")
        let sql = """
            select tenant_id, device_id, (extract(epoch from last_seen_at) * 1000000)::int8, last_position
            from refold.device_status
            where tenant_id = any ($1) and last_seen_at >= now() - interval '24 hours'
              and (tenant_id, device_id) > ($2, $3) and ($5 = '' or device_id = $5)
            order by tenant_id, device_id limit $4
            """
        let result = try ask(sql, parameters, tenant: nil)
        return (0..<result.rowCount).map { row in
            Sender(
                tenantID: result.text(row, 0) ?? "", deviceID: result.text(row, 1) ?? "",
                lastSeenAt: result.int8(row, 2) ?? 0, lastPosition: result.int8(row, 3) ?? 0)
        }
    }
}
