import EventModel
import Postgres
import PostgresStore
import ProjectionTestSupport
import Projections
@testable import Rebuilding
import TestSupport
import Testing

@Suite struct RollbackTests {
    @Test func withinAVersionItCatchesUp() async throws {
        let bench = try RebuildBench()
        bench.append(1000)
        try await bench.project()
        let projector = bench.projector(), run = Task { await projector.run() }
        try bench.rebuild().run()
        bench.append(1000)
        #expect(await projector.waitUntilApplied(Position(1999), timeout: .seconds(10)))
        try Connection(bench.target).exec("UPDATE refold.test_counts_v1 SET messages = 7")  // the rebuild was a mistake
        let report = try bench.rollback()
        #expect(report.results == [.init(projection: "test_counting", version: 1, position: 999, isHeld: false)])
        bench.append(10)
        #expect(await eventually { (try? bench.isRight()) == true })
        await projector.stop()
        await run.value
        // What was live is in refold_next, and is no unfinished rebuild: a new one starts over.
        #expect(try bench.ask("SELECT max(messages)::text FROM refold_next.test_counts") == ["7"])
        let rebuild = bench.rebuild()
        try rebuild.run()
        #expect(rebuild.progress.from == 0)
        #expect(try bench.difference() == nil)
    }

    @Test func acrossVersionsTheOlderProgramGoesOn() async throws {
        let bench = try RebuildBench(versions: [1, 2])
        bench.append(1000)
        try await bench.project()
        try Connection(bench.target).exec("CREATE VIEW public.mine AS SELECT topic, messages FROM refold.test_counts")
        let store = PostgresStore(bench.target)
        func problem(_ version: Int) -> String? {
            do throws(StoreProblem) {
                do { _ = try store.checkpoint(of: CountingFold.versioned(version), partition: 0) } catch {
                    throw StoreProblem(text: "\(error)")
                }
                return nil
            } catch { return error.text }
        }
        #expect(problem(2)?.contains("must be rebuilt") == true)

        try bench.rebuild(2).run()
        #expect(try bench.difference(version: 2) == nil)
        #expect(try bench.ask("SELECT sum(messages)::text FROM mine") == ["2000"])
        #expect(try bench.ask("SELECT min(version)::text FROM refold.test_counts") == ["2"])
        #expect(try bench.ask("SELECT sum(messages)::text FROM refold_previous.test_counts") == ["1000"])
        bench.append(50)
        try await bench.project(2)

        let report = try bench.rollback(2)
        #expect(report.results == [.init(projection: "test_counting", version: 1, position: 999, isHeld: true)])
        // A view's columns stay: the older rows have none for it.
        #expect(try bench.ask("SELECT count(version)::text FROM refold.test_counts") == ["0"])
        #expect(try bench.ask("SELECT sum(messages)::text FROM mine") == ["1000"])
        #expect(problem(2)?.hasPrefix("paused: ") == true, "\(problem(2) ?? "")")
        // The older program.
        try await bench.project(1)
        #expect(try bench.difference() == nil)
        // The newer one again, by its operator's decision.
        try bench.rebuild(2).run()
        #expect(try bench.difference(version: 2) == nil)
        #expect(try bench.ask("SELECT sum(messages)::text FROM mine") == ["2100"])
        #expect(problem(2) == nil)
    }

    private struct StoreProblem: Error { let text: String }

    /// What is parked belongs to the rows that lack it: it leaves with them, and comes back with them.
    @Test func parkedKeysGoWithTheirRows() async throws {
        let bench = try RebuildBench()
        bench.append(100)
        try await bench.project()
        let parked = "SELECT count(*)::text FROM refold.parked_keys WHERE projection = 'test_counting'"
        try Connection(bench.target).exec(
            """
            INSERT INTO refold.parked_keys (projection, partition, key, position, reason)
            VALUES ('test_counting', 0, 'k', 0, 'x')
            """)
        try bench.rebuild().run()
        #expect(try bench.ask(parked) == ["0"])
        _ = try bench.rollback()
        #expect(try bench.ask(parked) == ["1"])
        try bench.rebuild().run()
        try bench.rebuild().run()
        #expect(throws: RebuildError.self) {
            _ = try bench.rollback(); _ = try bench.rollback()
        }
        #expect(try bench.ask(parked) == ["0"])
    }

    @Test func thereIsNoWayBackTwice() async throws {
        let bench = try RebuildBench()
        bench.append(100)
        try await bench.project()
        #expect(throws: RebuildError.self) { try bench.rollback() }
        try bench.rebuild().run()
        _ = try bench.rollback()
        #expect(throws: RebuildError.self) { try bench.rollback() }
        #expect(try bench.difference() == nil)
    }

    @Test func whatWasReplacedCanBeDropped() async throws {
        let bench = try RebuildBench()
        bench.append(100)
        try await bench.project()
        try bench.rebuild().run()
        try Rollback.drop([RebuildBench.entry()], in: .previous, target: bench.target)
        #expect(throws: RebuildError.self) { try bench.rollback() }
        let left = "FROM pg_class WHERE relnamespace = 'refold_previous'::regnamespace AND relkind = 'r'"
        #expect(try bench.ask("SELECT count(*)::text " + left) == ["2"])  // of checkpoints and parked keys
    }
}

/// What users made of and for our tables.
@Suite struct SurvivalTests {
    @Test func viewsGrantsIndexesAndTriggersSurvive() async throws {
        let bench = try RebuildBench()
        bench.append(500)
        try await bench.project()
        let role = "reader_\(UInt32.random(in: 0 ... .max))"
        let owner = try Connection(bench.target)
        try owner.exec(
            """
            CREATE ROLE \(role); GRANT USAGE ON SCHEMA refold TO \(role);
            GRANT SELECT ON refold.test_counts TO \(role) WITH GRANT OPTION;
            GRANT SELECT ON refold.test_counts_v1, refold.test_events TO \(role);
            GRANT SELECT (position) ON refold.test_events_v1 TO \(role);
            COMMENT ON VIEW refold.test_counts IS 'of mine'; COMMENT ON TABLE refold.test_counts_v1 IS 'rows';
            CREATE INDEX mine ON refold.test_counts_v1 (messages) WHERE messages > 3;
            ALTER TABLE refold.test_counts_v1 SET (fillfactor = 70);
            ALTER TABLE refold.test_counts_v1 ENABLE ROW LEVEL SECURITY;
            CREATE POLICY early ON refold.test_counts_v1 FOR SELECT TO \(role) USING (topic < 't5');
            CREATE VIEW public.above AS SELECT topic FROM refold.test_counts WHERE messages > 5;
            CREATE VIEW public.direct AS
                SELECT c.topic FROM refold.test_counts_v1 c JOIN refold.test_events_v1 e USING (topic);
            CREATE TABLE public.noted (topic text);
            CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.noted VALUES (NEW.topic); RETURN NEW; END';
            CREATE TRIGGER note AFTER INSERT ON refold.test_events_v1 FOR EACH ROW EXECUTE FUNCTION public.note();
            CREATE MATERIALIZED VIEW public.kept AS SELECT topic FROM refold.test_counts_v1;
            """)
        let described = """
            SELECT concat_ws(' ', c.oid::regclass::text, c.relacl::text, c.reloptions::text, c.relrowsecurity::text,
                obj_description(c.oid), (SELECT string_agg(attacl::text, ',') FROM pg_attribute WHERE attrelid = c.oid),
                (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid::regclass::text)
                    FROM pg_index WHERE indrelid = c.oid),
                (SELECT string_agg(polname || pg_get_expr(polqual, polrelid), ',')
                    FROM pg_policy WHERE polrelid = c.oid),
                (SELECT string_agg(pg_get_triggerdef(oid), ',') FROM pg_trigger WHERE tgrelid = c.oid),
                (SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY conname)
                    FROM pg_constraint WHERE conrelid = c.oid),
                CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) END)
            FROM pg_class AS c WHERE c.relnamespace IN ('refold'::regnamespace, 'public'::regnamespace)
                AND c.relkind IN ('r', 'v', 'm') ORDER BY 1
            """
        let before = try bench.ask(described)
        let rebuild = bench.rebuild()
        try rebuild.run()
        let after = try bench.ask(described)
        for (before, after) in zip(before, after) where before?.hasPrefix("kept") != true { #expect(before == after) }
        #expect(before.count == after.count)
        #expect(rebuild.progress.remarks.count == 1 && rebuild.progress.remarks[0].contains("public.kept"))
        #expect(try bench.ask("SELECT count(*)::text FROM noted") == ["0"], "a rebuild is no news")
        bench.append(1)
        try await bench.project()
        #expect(try bench.ask("SELECT count(*)::text FROM noted") == ["1"])
        #expect(try bench.ask("SELECT count(*)::text FROM direct") == ["501"])
        try owner.exec("SET ROLE \(role)")
        let seen = try owner.query("SELECT count(*) FROM refold.test_counts").int8(0, 0)
        #expect(seen == 45, "a policy of the user's: t0 to t4, t10 to t49, and no other")
        #expect(try bench.difference() == nil)
    }

    /// COPY is refused where row-level security is forced, and other users' sessions cannot be looked at.
    @Test func anOwnerWithoutPrivilegesRebuilds() async throws {
        let bench = try RebuildBench(owner: "owner_\(UInt32.random(in: 0 ... .max))")
        try Connection(bench.target).exec(
            """
            ALTER TABLE refold.test_events_v1 ENABLE ROW LEVEL SECURITY;
            ALTER TABLE refold.test_events_v1 FORCE ROW LEVEL SECURITY;
            CREATE POLICY owner_folds ON refold.test_events_v1 TO CURRENT_USER USING (true) WITH CHECK (true);
            """)
        bench.append(5000)
        try await bench.project()
        let user = try Connection(bench.target)
        try user.exec("BEGIN; SELECT count(*) FROM refold.test_counts")
        let first = bench.rebuild(), task = bench.start(first)
        #expect(await eventually { first.progress.attempts > 0 })
        first.cancel()
        _ = await task.result
        try user.exec("COMMIT")
        bench.append(5000)  // into tables that have it already
        try bench.rebuild().run()
        #expect(try bench.difference() == nil)
        bench.append(10)
        try await bench.project()
        #expect(try bench.difference() == nil)
        _ = try bench.rollback()
        try await bench.project()
        #expect(try bench.difference() == nil)
    }
}
