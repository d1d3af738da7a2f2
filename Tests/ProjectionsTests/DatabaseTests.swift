import Decisions
import EventModel
import Foundation
import Postgres
import PostgresStore
import Primitives
import Projecting
import TestSupport
import Testing

@testable import Projections

/// The folds on a real PostgreSQL, through the store: what is written, loaded again and read by tenants.
@Suite struct DatabaseTests {
    private static func database() throws -> (url: String, target: DatabaseTarget) {
        let server = try PostgresServer.shared.get()
        let url = server.url(database: try server.makeDatabase())
        let target = DatabaseTarget(url)
        _ = try RefoldSchema.migrate(target)
        return (url, target)
    }

    /// Folds in blocks of random lengths; every third block the fold is dropped, so that its state comes from the rows.
    private static func fold(
        _ history: History, _ entry: Catalog.Entry, into store: PostgresStore, seed: UInt64
    ) throws {
        var random = SeededRandom(seed: seed), fold = entry.makeFold(.all), start = 0, last: Position?
        while start < history.batches.count {
            let end = min(history.batches.count, start + Int.random(in: 1...120, using: &random))
            let block = history.block(start..<end), from = Position(UInt64(start))
            let range = from..<block.end
            try store.load(fold.prepare(block, in: range), of: entry.descriptor) { fold.load(table: $0, row: $1) }
            fold.fold(block, in: range)
            var rows = [RowBuffer](repeating: RowBuffer(), count: entry.descriptor.tables.count)
            fold.drain(into: &rows)
            let new = Position(UInt64(end - 1))
            try store.commit(rows, of: entry.descriptor, partition: 0, from: last, to: new)
            last = new
            start = end
            if Int.random(in: 0..<3, using: &random) == 0 { fold = entry.makeFold(.all) }
        }
    }

    @Test(arguments: 1...3)
    func theTablesAgreeWithTheNaiveFold(seed: Int) throws {
        let (url, target) = try Self.database()
        let history = try History.random(seed: UInt64(seed) &+ 9000, count: 2500)
        for entry in Catalog.entries {
            try Self.fold(history, entry, into: PostgresStore(target), seed: UInt64(seed))
        }
        let (code, output) = try runNaiveFold(events: history.ndjson, ["--database", url])
        #expect(code == 0, "seed \(seed)\n\(output)")
        // A planted difference is found.
        let connection = try Connection(target)
        try connection.exec("UPDATE refold.device_status SET message_count = message_count + 1 WHERE device_id = 'd3'")
        let planted = try runNaiveFold(events: history.ndjson, ["--database", url])
        #expect(planted.code == 1 && planted.output.contains("message_count"), "\(planted.output)")
    }

    @Test func theMigrationsAndTheRowsHaveTheSameColumns() throws {
        let connection = try Connection(Self.database().target)
        for table in Catalog.entries.flatMap(\.descriptor.storedTables) {
            var name = Parameters()
            name.text("refold.\(table.name)")
            let found = try connection.query(
                """
                SELECT a.attname::text || ' ' || t.typname
                       || CASE WHEN a.attnum = ANY (i.indkey) THEN ' key' ELSE '' END
                FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
                WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
                """, name)
            let migrated = (0..<found.rowCount).compactMap { found.text($0, 0) }.sorted()
            let written = table.columns.enumerated().map { index, column in
                "\(column.name) \(column.type.rawValue)" + (index < table.keyCount ? " key" : "")
            }
            #expect(migrated == written.sorted(), "\(table.name)")
        }
    }

    @Test func everyTableWithATenantIsForcedBehindItsPolicies() throws {
        let (url, target) = try Self.database()
        let connection = try Connection(target)
        let unprotected = try connection.query(
            """
            SELECT string_agg(c.relname, ', ') FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'refold'::regnamespace AND c.relkind = 'r' AND a.attname = 'tenant_id'
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
            """)
        #expect(unprotected.text(0, 0) == nil)
        let history = try History.random(seed: 77, count: 600)
        for entry in Catalog.entries { try Self.fold(history, entry, into: PostgresStore(target), seed: 7) }
        let reader = try Connection(DatabaseTarget(url.replacing("user=postgres", with: "user=refold_app")))
        for view in [
            "device_status", "device_connection_events", "firmware_versions", "ota_campaigns", "ota_device_status",
            "ota_unmatched_reports", "dead_letters", "audit_logs", "api_tokens", "device_certificates",
            "certificate_events", "crl_enforcement", "jobs", "job_attempts", "job_policies", "job_schedules",
            "job_counts", "job_hours",
        ] {
            func count(_ connection: Connection, _ condition: String = "true") throws -> Int64 {
                try connection.query("SELECT count(*) FROM refold.\(view) WHERE \(condition)").int8(0, 0) ?? -1
            }
            try reader.exec("RESET app.tenant_id")
            #expect(try count(reader) == 0, "\(view) without a tenant")
            try reader.exec("SET app.tenant_id = 'acme'")
            #expect(try count(reader) == count(connection, "tenant_id = 'acme'"), "\(view)")
            #expect(try count(reader, "tenant_id IS DISTINCT FROM 'acme'") == 0, "\(view) of others")
        }
    }

    /// Authorities of every tenant, and their CRLs, are every tenant's to read; not those of other tenants.
    @Test func everyTenantSeesSharedAuthorities() throws {
        let (url, target) = try Self.database()
        var history = History()
        for (id, tenant) in [("shared", "*"), ("own", "acme"), ("foreign", "b.corp")] {
            let time = History.time(1)
            try history.decision(
                .authorityAdded,
                AuthorityAdded(
                    id: id, tenantID: tenant, subject: "CN=x", certificate: "MAA=", spkiSHA256: "00", key: .file,
                    notBefore: time, notAfter: time, actor: "ann"))
            try history.decision(
                .crlIssued,
                CRLIssued(
                    authority: id, tenantID: tenant, number: 1, thisUpdate: time, nextUpdate: time, entries: 0,
                    canary: nil, tbsSHA256: "00", signature: "MAA=", sha256: "00", end: 0, actor: "engine"))
        }
        let entry = try #require(Catalog.entry(named: "certificates"))
        try Self.fold(history, entry, into: PostgresStore(target), seed: 1)
        let reader = try Connection(DatabaseTarget(url.replacing("user=postgres", with: "user=refold_app")))
        for (tenant, expected) in [("", nil), ("acme", "own, shared"), ("other", "shared")] as [(String, String?)] {
            try reader.exec("SET app.tenant_id = '\(tenant)'")
            for (view, column) in [("certificate_authorities", "id"), ("crls", "authority_id")] {
                let found = try reader.query(
                    "SELECT string_agg(\(column), ', ' ORDER BY \(column)) FROM refold.\(view)")
                #expect(found.text(0, 0) == expected, "\(view) as \(tenant)")
            }
        }
    }

    @Test(arguments: [
        ("NULL", "OFFLINE"), ("now()", "ONLINE"), ("now() - interval '90 seconds'", "ONLINE"),
        ("now() - interval '90.001 seconds'", "STALE"), ("now() - interval '300 seconds'", "STALE"),
        ("now() - interval '300.001 seconds'", "OFFLINE"), ("now() + interval '1 hour'", "ONLINE"),
    ])
    func presence(lastSeen: String, expected: String) throws {
        let connection = try Connection(Self.database().target)
        #expect(try connection.query("SELECT refold.presence(\(lastSeen))").text(0, 0) == expected)
    }
}
