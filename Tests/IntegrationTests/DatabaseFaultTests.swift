import Foundation
import TestSupport
import Testing

/// A database that answers and does not do what it should: the state says so, with the reason, and only as long as it
/// is true. A server of its own for each, since they change it.
@Suite(.serialized) struct DatabaseFaultTests {
    @Test func aDatabaseThatTakesNothingIsNotHealthy_F4() async throws {
        let world = try World(postgres: try PostgresServer())
        defer { world.killDaemon() }
        try world.startDaemon()
        try await world.untilQuiet()
        #expect(try world.run(["status", "--http", world.http]).code == 0)
        func readOnly(_ value: String) throws {
            try world.postgres.psql("alter system set default_transaction_read_only = \(value)")
            try world.postgres.psql("select pg_reload_conf()")
        }
        try readOnly("on")
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "50"]))
        #expect(await eventually(within: 10) { world.codes() == ["database_read_only"] }, "\(world.codes())")
        #expect(world.get("/readyz") == 200 && world.get("/healthz") == 200)
        #expect(try world.run(["status", "--http", world.http]).code == 1)
        // Every projection is in exactly one state, and those that have something to write wait.
        let waits = await eventually(within: 10) {
            world.metrics("refold_projection_state").contains { $0.contains("waiting") && $0.hasSuffix(" 1") }
        }
        #expect(waits)
        let states = world.metrics("refold_projection_state").filter { $0.hasSuffix(" 1") }
        let names = Set(states.map { $0.split(separator: "\"")[1] })
        #expect(states.count == names.count && states.count >= 9, "\(states)")
        #expect(world.metrics("refold_problems").contains { $0.contains("database_read_only") && $0.hasSuffix(" 1") })
        try world.postgres.psql("alter system reset default_transaction_read_only")
        try world.postgres.psql("select pg_reload_conf()")
        #expect(await eventually(within: 30) { world.codes().isEmpty && world.status()?.isCaughtUp == true })
    }

    /// Sessions that began under the setting keep it when it is gone.
    @Test func aDatabaseThatWasReadOnlyIsWrittenAgain() async throws {
        let world = try World(postgres: try PostgresServer())
        defer { world.killDaemon() }
        try world.startDaemon()
        try await world.untilQuiet()
        try world.postgres.psql("alter database \(world.database) set default_transaction_read_only = on")
        try world.postgres.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '\(world.database)'")
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "50"]))
        #expect(await eventually(within: 20) { world.codes() == ["database_read_only"] }, "\(world.codes())")
        try world.postgres.psql("alter database \(world.database) reset default_transaction_read_only")
        let isCured = await eventually(within: 30) { world.codes().isEmpty && world.status()?.isCaughtUp == true }
        #expect(isCured, "\(world.codes())")
    }

    @Test func aRevokedSchemaIsAMissingRight() async throws {
        let server = try PostgresServer()
        let world = try World(postgres: server, user: "plain")
        defer { world.killDaemon() }
        try server.psql("create role plain login; grant create, temporary on database \(world.database) to plain")
        try world.startDaemon()
        try await world.untilQuiet()
        #expect(world.codes().isEmpty)
        try server.psql("revoke all on schema refold from plain", database: world.database)
        #expect(await eventually(within: 15) { world.codes().contains("database_rights") }, "\(world.codes())")
        #expect(!world.codes().contains("database_unreachable"))
        let text = try world.run(["status", "--http", world.http])
        #expect(text.out.contains("GRANT USAGE, CREATE ON SCHEMA refold TO plain"), "\(text.out)")
        try server.psql("grant usage, create on schema refold to plain", database: world.database)
        try server.psql("revoke insert on refold.device_status_v1 from plain", database: world.database)
        let isNamed = await eventually(within: 15) {
            let status = try? world.run(["status", "--http", world.http])
            return status?.out.contains("GRANT ALL ON refold.device_status_v1") == true
        }
        #expect(isNamed, "\(world.codes())")
        try server.psql("grant all on refold.device_status_v1 to plain", database: world.database)
        #expect(await eventually(within: 60) { world.codes().isEmpty }, "\(world.codes())")
    }

    /// The daemon's sessions have limits of their own.
    @Test func aRolesStatementTimeoutIsNoUnreachableDatabase() async throws {
        let server = try PostgresServer()
        let world = try World(postgres: server, user: "hasty")
        defer { world.killDaemon() }
        try server.psql("create role hasty login; grant create, temporary on database \(world.database) to hasty")
        try server.psql("alter role hasty set statement_timeout = '1ms'")
        try world.startDaemon()
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "50"]))
        try await world.untilQuiet()
        for _ in 0..<10 {
            #expect(!world.codes().contains("database_unreachable"), "\(world.codes())")
            try await Task.sleep(for: .milliseconds(500))
        }
    }

    /// The role may have four connections, and no temporary tables.
    @Test func aRoleWithNarrowLimitsIsNotHealthy_posthog4709_cubecart2485() async throws {
        let server = try PostgresServer()
        let world = try World(postgres: server, user: "narrow")
        defer { world.killDaemon() }
        try server.psql(
            """
            create role narrow login connection limit 4;
            grant create on database \(world.database) to narrow;
            revoke temporary on database \(world.database) from public
            """)
        try world.startDaemon()
        try await world.untilSubscribed()
        // Many devices at once: batches of more rows than go as arrays.
        try await world.untilEnded(try world.startFleet(["--devices", "3000", "--rate", "0", "--count", "6000"]))
        let named = await eventually(within: 15) {
            let codes = world.codes()
            return codes.contains("database_connections") && codes.contains("database_rights")
        }
        #expect(named, "\(world.codes())")
        let text = try world.run(["status", "--http", world.http])
        #expect(text.code == 1 && text.out.contains("GRANT TEMPORARY ON DATABASE \(world.database) TO narrow"))
        #expect(text.out.contains("ALTER ROLE narrow CONNECTION LIMIT"), "\(text.out)")
        try server.psql("alter role narrow connection limit 50")
        // All rows are there without the right; giving it ends the reason.
        let caughtUp = await eventually(within: 60) {
            world.status()?.isCaughtUp == true && world.codes() == ["database_rights"]
        }
        #expect(caughtUp, "\(world.codes()) \(String(describing: world.status()))")
        try server.psql("grant temporary on database \(world.database) to narrow")
        #expect(await eventually(within: 15) { world.codes().isEmpty }, "\(world.codes())")
    }

    @Test func aPoolerInTransactionModeIsRefusedClearly_emqxAuthPgsql197() async throws {
        let server = try PostgresServer()
        let pooler = try PgBouncer(server, mode: "transaction")
        let world = try World(postgres: server, url: { pooler.url(database: $0) })
        defer { world.killDaemon() }
        try world.startDaemon()
        #expect(await eventually(within: 20) { world.daemon?.isRunning == false })
        #expect(world.daemon?.exitCode == 2)
        let text = world.daemonLog
        #expect(text.contains("transaction mode") && text.contains("pool_mode = session"), "\(text)")
        let rebuild = try world.run([
            "replay", "rebuild", "--all", "--data", world.data, "--database-url", world.databaseURL, "--http",
            world.http,
        ])
        #expect(rebuild.code != 0 && (rebuild.out + rebuild.error).contains("transaction mode"), "\(rebuild)")
        try pooler.restart(mode: "session")
        try world.startDaemon()
        try await world.untilSubscribed()
        try await world.untilEnded(try world.startFleet(["--devices", "50", "--rate", "0", "--count", "3000"]))
        let works = await eventually(within: 60) { world.codes().isEmpty && world.status()?.isCaughtUp == true }
        #expect(works, "\(world.codes()) \(world.daemonLog.suffix(2000))")
        #expect(try world.naiveFoldDifferences() == nil)
    }

    /// Dashboards that give up after two seconds, and a table that nobody can read for half a minute.
    @Test func lockedTablesDelayNeitherMetricsNorOtherReads_otelContrib49351() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        defer { world.killDaemon() }
        try world.startDaemon()
        try await world.untilQuiet()
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "50"]))
        try await world.untilQuiet()
        #expect(world.get("/api/v1/tenants") == 200)
        let lock = try ChildProcess(
            [
                "/usr/bin/psql", "-X", "-d", world.databaseURL, "-c",
                "begin; lock table refold.device_status_v1, refold.dead_letters_v1; select pg_sleep(28)",
            ], log: world.folder + "/lock.log")
        defer { lock.kill(SIGKILL) }
        let loop = "while :; do curl -s -m 2 -o /dev/null \(world.root)/api/v1/tenants; done"
        let dashboards = try (0..<5).map { _ in
            try ChildProcess(["/bin/sh", "-c", loop], log: world.folder + "/dashboard.log")
        }
        defer { dashboards.forEach { $0.kill(SIGKILL) } }
        try await world.untilEnded(try world.startFleet(["--devices", "5", "--rate", "0", "--count", "50"]))
        var slowest = Duration.zero, isLagging = false
        while lock.isRunning {
            let began = ContinuousClock.now
            #expect(world.get("/metrics") == 200)
            slowest = max(slowest, ContinuousClock.now - began)
            isLagging = isLagging || world.codes().contains("projection_lagging")
            #expect(world.get("/healthz") == 200)
            try await Task.sleep(for: .milliseconds(200))
        }
        #expect(slowest < .seconds(2), "\(slowest)")
        #expect(isLagging, "a lag beyond 20 s is a reason")
        dashboards.forEach { $0.kill(SIGKILL) }
        // What nobody waits for any more is not worked off first.
        let began = ContinuousClock.now
        #expect(await eventually(within: 10) { world.get("/api/v1/tenants") == 200 })
        #expect(ContinuousClock.now - began < .seconds(6))
        #expect(await eventually(within: 20) { world.codes().isEmpty }, "\(world.codes())")
    }

    @Test func theExitCodeOfStatusFollowsTheState() async throws {
        let world = try World(postgres: try PostgresServer.shared.get())
        defer { world.killDaemon() }
        try world.startDaemon()
        try await world.untilQuiet()
        func status() throws -> Int32 { try world.run(["status", "--http", world.http]).code }
        #expect(try status() == 0)
        let address = ["--http", world.http, "--data", world.data]
        #expect(try world.run(["projection", "pause", "campaigns"] + address).code == 0)
        #expect(world.codes() == ["projection_paused"])
        #expect(try status() == 1)
        #expect(try world.run(["projection", "resume", "campaigns"] + address).code == 0)
        #expect(await eventually { world.codes().isEmpty })
        #expect(try status() == 0)
        #expect(world.stopDaemon().exitCode == 0)
        #expect(try status() == 3)
    }
}

extension World {
    var root: String { "http://\(http)" }

    /// The status code; nil without an answer.
    func get(_ path: String) -> Int? { Self.get(root + path, timeout: 30) }

    static func get(_ url: String, timeout: Int) -> Int? {
        HTTP.get(url, timeoutSeconds: timeout)?.status
    }

    /// Codes of the reasons; one that cannot be had says so.
    func codes() -> [String] {
        struct Answer: Decodable {
            struct Problem: Decodable { let code: String }
            let problems: [Problem]
        }
        guard let body = HTTP.body(root + "/api/v1/status"),
            let answer = try? JSONDecoder().decode(Answer.self, from: body)
        else { return ["no answer"] }
        return answer.problems.map(\.code)
    }

    /// Samples of a metric, as Prometheus reads them.
    func metrics(_ name: String) -> [String] {
        guard let body = HTTP.body(root + "/metrics") else { return [] }
        let lines = String(decoding: body, as: UTF8.self).split(separator: "\n")
        return lines.filter { $0.hasPrefix(name + "{") }.map(String.init)
    }
}
