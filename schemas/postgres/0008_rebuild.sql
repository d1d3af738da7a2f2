-- Rebuild: tables folded anew in refold_next take the place of those in refold, which go to refold_previous; a rollback is
-- the same the other way. A *family* below is the tables of a projection in any version: device_status_v1, device_status_v2.
--
-- Views do not move. Whoever reads refold.device_status reads the same view before and after, with its grants, its comment
-- and the users' views over it; only what it selects from is replaced. No definition is edited as text: pg_get_viewdef
-- leaves out the schema of what the search_path finds, so a definition read under one search_path and executed under
-- another means the table of that name there (PostgreSQL 15, 9.26 and 5.9.3).
--
-- A migration that brings version 2 of a table makes device_status_v2, empty, and the view device_status_v2_view, which is
-- what device_status becomes when the rows of that version stand. Columns may only be added, at the end. With the line
-- `-- suffices: NNNN` in it (the last file that an older program knows) that program runs on after a rollback.

-- Rebuilds that were begun and not finished. `program` is who folds: another program starts over.
CREATE TABLE refold.rebuilds (
    projection text PRIMARY KEY,
    version    integer NOT NULL,
    program    text NOT NULL,
    tables     text[] NOT NULL,
    begun_at   timestamptz NOT NULL DEFAULT now(),
    -- All indexes, policies and grants are there.
    finished   boolean NOT NULL DEFAULT false
);

-- The tables of these families in a schema.
CREATE FUNCTION refold.family(place text, tables text[]) RETURNS SETOF pg_class LANGUAGE sql STABLE AS $$
    SELECT c.* FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = to_regnamespace(place) AND c.relkind = 'r' AND c.relname ~ '_v[0-9]+$'
      AND regexp_replace(c.relname, '_v[0-9]+$', '')
          = ANY (SELECT regexp_replace(t, '_v[0-9]+$', '') FROM unnest(tables) AS t)
    ORDER BY c.relname
$$;

-- Views of any schema that read one of these tables directly.
CREATE FUNCTION refold.views_over(relations oid[]) RETURNS SETOF pg_class LANGUAGE sql STABLE AS $$
    SELECT c.* FROM pg_catalog.pg_class AS c
    WHERE c.relkind IN ('v', 'm') AND c.oid IN (
        SELECT r.ev_class FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.refobjid = ANY (relations))
    ORDER BY c.oid
$$;

-- The live views of these families: those in a schema of ours that are not a later version's.
CREATE FUNCTION refold.own_views(place text, tables text[]) RETURNS SETOF pg_class LANGUAGE sql STABLE AS $$
    SELECT c.* FROM refold.views_over((SELECT array_agg(f.oid) FROM refold.family(place, tables) AS f)) AS c
    WHERE c.relnamespace = to_regnamespace(place) AND c.relkind = 'v' AND c.relname !~ '_v[0-9]+_view$'
$$;

-- [{name, definition, options}]: views as text, without the schema of what lies in `place`.
CREATE FUNCTION refold.definitions(views oid[], place text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', quote_ident(place) || ', pg_temp', true);
    RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'owner', c.relowner::bigint, 'kind', c.relkind,
            'definition', rtrim(pg_get_viewdef(c.oid), '; '),
            'options', coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')) ORDER BY c.oid), '[]')
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = ANY (views));
END $$;

-- Makes a view, or gives an existing one another definition. What it showed before and does not any more is null.
CREATE FUNCTION refold.put_view(place text, name text, options text, definition text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    existing oid := to_regclass(format('%I.%I', place, name));
    missing text;
BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW %I.%I%s AS %s', place, name, options, definition);
EXCEPTION WHEN invalid_table_definition THEN
    EXECUTE format('CREATE TEMP VIEW refold_columns AS %s', definition);
    SELECT string_agg(format('NULL::%s AS %I', format_type(a.atttypid, a.atttypmod), a.attname), ', ' ORDER BY a.attnum)
    INTO missing
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = existing AND a.attnum > 0 AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS b
        WHERE b.attrelid = 'pg_temp.refold_columns'::regclass AND b.attname = a.attname);
    DROP VIEW pg_temp.refold_columns;
    IF missing IS NULL THEN
        RAISE;
    END IF;
    EXECUTE format('CREATE OR REPLACE VIEW %I.%I%s AS SELECT known.*, %s FROM (%s) AS known',
        place, name, options, missing, definition);
END $$;

-- Drops what there is of these projections in refold_next or refold_previous. Fails while somebody's view reads it.
CREATE FUNCTION refold.discard(projections text[], tables text[], place text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    relation record;
BEGIN
    IF place NOT IN ('refold_next', 'refold_previous') THEN
        RAISE EXCEPTION 'nothing is discarded in the schema %', place;
    END IF;
    FOR relation IN SELECT c.relname FROM refold.own_views(place, tables) AS c LOOP
        EXECUTE format('DROP VIEW %I.%I', place, relation.relname);
    END LOOP;
    FOR relation IN SELECT c.relname FROM refold.family(place, tables) AS c LOOP
        EXECUTE format('DROP TABLE %I.%I', place, relation.relname);
    END LOOP;
    EXECUTE format('DELETE FROM %I.projection_checkpoints WHERE projection = ANY ($1)', place) USING projections;
    EXECUTE format('DELETE FROM %I.parked_keys WHERE projection = ANY ($1)', place) USING projections;
    IF place = 'refold_next' THEN
        DELETE FROM refold.rebuilds WHERE projection = ANY (projections);
    END IF;
END $$;

-- Empty tables for a rebuild, with the live ones' columns, checks and keys, and no more: rows go faster into them.
CREATE FUNCTION refold.begin_rebuild(of_projection text, of_version integer, of_tables text[], of_program text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    of_table text;
    live oid;
    part record;
    view record;
    wanted oid;
BEGIN
    PERFORM refold.discard(ARRAY[of_projection], of_tables, 'refold_next');
    FOREACH of_table IN ARRAY of_tables LOOP
        live := to_regclass(format('refold.%I', of_table));
        IF live IS NULL THEN
            RAISE EXCEPTION 'there is no table refold.% to rebuild', of_table;
        END IF;
        EXECUTE format('CREATE TABLE refold_next.%I (LIKE refold.%I INCLUDING ALL EXCLUDING INDEXES)', of_table, of_table);
        FOR part IN
            SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_catalog.pg_constraint
            WHERE conrelid = live AND contype IN ('p', 'u', 'x') ORDER BY contype
        LOOP
            EXECUTE format('ALTER TABLE refold_next.%I ADD CONSTRAINT %I %s', of_table, part.conname, part.definition);
        END LOOP;
        FOR part IN SELECT unnest(reloptions) AS option FROM pg_catalog.pg_class WHERE oid = live LOOP
            EXECUTE format('ALTER TABLE refold_next.%I SET (%s)', of_table, part.option);
        END LOOP;
        IF obj_description(live, 'pg_class') IS NOT NULL THEN
            EXECUTE format('COMMENT ON TABLE refold_next.%I IS %L', of_table, obj_description(live, 'pg_class'));
        END IF;
    END LOOP;
    FOR view IN SELECT c.oid, c.relname FROM refold.own_views('refold', of_tables) AS c LOOP
        wanted := coalesce(to_regclass(format('refold.%I', view.relname || '_v' || of_version || '_view')), view.oid);
        PERFORM refold.copy_view(wanted, view.relname, 'refold_next');
    END LOOP;
    PERFORM set_config('search_path', 'refold, pg_temp', true);
    INSERT INTO refold.rebuilds (projection, version, program, tables)
    VALUES (of_projection, of_version, of_program, of_tables);
END $$;

-- The same view in another schema, over that schema's tables.
CREATE FUNCTION refold.copy_view(source oid, name text, place text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view jsonb := refold.definitions(ARRAY[source], 'refold') -> 0;
BEGIN
    PERFORM set_config('search_path', format('%I, refold, pg_temp', place), true);
    PERFORM refold.put_view(place, name, view ->> 'options', view ->> 'definition');
END $$;

-- What the live tables have besides rows: other indexes (users' own too), row-level security, grants. Does what is
-- missing, so that it may be called again.
CREATE FUNCTION refold.finish_rebuild(of_projection text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    of_table text;
    live pg_class;
    next oid;
    part record;
BEGIN
    FOREACH of_table IN ARRAY (SELECT tables FROM refold.rebuilds WHERE projection = of_projection) LOOP
        SELECT c.* INTO live FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass(format('refold.%I', of_table));
        next := to_regclass(format('refold_next.%I', of_table));
        PERFORM set_config('search_path', 'refold, pg_temp', true);
        FOR part IN
            SELECT pg_get_indexdef(i.indexrelid, 0, true) AS definition
            FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
            WHERE i.indrelid = live.oid AND i.indisvalid
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid)
              AND to_regclass(format('refold_next.%I', c.relname)) IS NULL
        LOOP
            PERFORM set_config('search_path', 'refold_next, refold, pg_temp', true);
            EXECUTE part.definition;
        END LOOP;
        IF live.relrowsecurity THEN
            EXECUTE format('ALTER TABLE refold_next.%I ENABLE ROW LEVEL SECURITY', of_table);
        END IF;
        IF live.relforcerowsecurity THEN
            EXECUTE format('ALTER TABLE refold_next.%I FORCE ROW LEVEL SECURITY', of_table);
        END IF;
        FOR part IN
            SELECT p.* FROM pg_catalog.pg_policies AS p
            WHERE p.schemaname = 'refold' AND p.tablename = of_table AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_policy AS q WHERE q.polrelid = next AND q.polname = p.policyname)
        LOOP
            EXECUTE format('CREATE POLICY %I ON refold_next.%I AS %s FOR %s TO %s%s%s', part.policyname, of_table,
                part.permissive, part.cmd,
                (SELECT string_agg(CASE r WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r) END, ', ')
                    FROM unnest(part.roles) AS r),
                coalesce(' USING (' || part.qual || ')', ''), coalesce(' WITH CHECK (' || part.with_check || ')', ''));
        END LOOP;
        PERFORM refold.copy_grants(live.oid, next);
    END LOOP;
    PERFORM set_config('search_path', 'refold, pg_temp', true);
    UPDATE refold.rebuilds SET finished = true WHERE projection = of_projection;
END $$;

-- Who may do what with a table, or a column of it: (column or null, grantee, privilege, grantable).
CREATE FUNCTION refold.grants(relation oid)
RETURNS TABLE (attribute name, grantee oid, privilege text, grantable boolean) LANGUAGE sql STABLE AS $$
    SELECT NULL::name, a.grantee, a.privilege_type, bool_or(a.is_grantable)
    FROM pg_catalog.pg_class AS c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a
    WHERE c.oid = relation GROUP BY 2, 3
    UNION ALL
    SELECT t.attname, a.grantee, a.privilege_type, bool_or(a.is_grantable)
    FROM pg_catalog.pg_attribute AS t, aclexplode(t.attacl) AS a WHERE t.attrelid = relation GROUP BY 1, 2, 3
$$;

CREATE FUNCTION refold.copy_grants(source oid, destination oid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT * FROM refold.grants(source) EXCEPT SELECT * FROM refold.grants(destination) LOOP
        EXECUTE format('GRANT %s%s ON %s TO %s%s', part.privilege, ' (' || quote_ident(part.attribute) || ')',
            destination::regclass, CASE part.grantee WHEN 0 THEN 'PUBLIC' ELSE part.grantee::regrole::text END,
            CASE WHEN part.grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    FOR part IN
        SELECT attribute, grantee, privilege FROM refold.grants(destination)
        EXCEPT SELECT attribute, grantee, privilege FROM refold.grants(source)
    LOOP
        EXECUTE format('REVOKE %s%s ON %s FROM %s', part.privilege, ' (' || quote_ident(part.attribute) || ')',
            destination::regclass, CASE part.grantee WHEN 0 THEN 'PUBLIC' ELSE part.grantee::regrole::text END);
    END LOOP;
END $$;

-- Waits, as long as lock_timeout allows, until nobody reads the live views, and lets nobody in until the transaction ends.
-- Those who write are not held up meanwhile: LOCK TABLE would lock the tables under a view too.
CREATE FUNCTION refold.close_views(of_tables text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view pg_class;
BEGIN
    FOR view IN SELECT * FROM refold.own_views('refold', of_tables) LOOP
        EXECUTE format('ALTER VIEW refold.%I OWNER TO %s', view.relname, view.relowner::regrole);
    END LOOP;
END $$;

-- The tables in `incoming` become the live ones, and those the `outgoing`; the checkpoints with them. To be called in a
-- transaction that holds the live checkpoints' row locks. `held_because`, for a rollback: why rows of another version must
-- not be rebuilt by the program that finds them. Returns what could not be taken along, in words.
CREATE FUNCTION refold.exchange(
    projections text[], of_tables text[], incoming text, outgoing text, held_because text DEFAULT NULL
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    leaving oid[] := (SELECT array_agg(c.oid) FROM refold.family('refold', of_tables) AS c);
    coming oid[] := (SELECT array_agg(c.oid) FROM refold.family(incoming, of_tables) AS c);
    live_views jsonb;
    other_views jsonb;
    new_views jsonb;
    triggers text[];
    view jsonb;
    relation oid;
    command text;
    remarks text[] := '{}';
BEGIN
    EXECUTE (SELECT 'LOCK TABLE ' || string_agg(o::regclass::text, ', ') || ' IN ACCESS EXCLUSIVE MODE'
        FROM unnest(leaving || coming) AS o);
    live_views := refold.definitions(
        (SELECT array_agg(c.oid) FROM refold.own_views('refold', of_tables) AS c), 'refold');
    other_views := refold.definitions(
        (SELECT array_agg(c.oid) FROM refold.views_over(leaving) AS c
            WHERE NOT (c.oid::bigint = ANY (SELECT (v ->> 'oid')::bigint FROM jsonb_array_elements(live_views) AS v))),
        'refold');
    triggers := (SELECT array_agg(pg_get_triggerdef(t.oid, true)) FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = ANY (leaving) AND NOT t.tgisinternal AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_trigger AS u JOIN pg_catalog.pg_class AS c ON c.oid = u.tgrelid
            WHERE u.tgrelid = ANY (coming) AND u.tgname = t.tgname
              AND c.relname = (SELECT relname FROM pg_catalog.pg_class WHERE oid = t.tgrelid)));
    new_views := refold.definitions(
        (SELECT array_agg(c.oid) FROM refold.own_views(incoming, of_tables) AS c), incoming);
    PERFORM set_config('search_path', 'pg_temp', true);

    FOREACH relation IN ARRAY leaving LOOP
        EXECUTE format('ALTER TABLE %s SET SCHEMA %I', relation::regclass, outgoing);
    END LOOP;
    FOREACH relation IN ARRAY coming LOOP
        EXECUTE format('ALTER TABLE %s SET SCHEMA refold', relation::regclass);
    END LOOP;

    PERFORM set_config('search_path', format('%I, refold, pg_temp', outgoing), true);
    FOR view IN SELECT * FROM jsonb_array_elements(live_views) LOOP
        PERFORM refold.put_view(outgoing, view ->> 'name', view ->> 'options', view ->> 'definition');
    END LOOP;
    PERFORM set_config('search_path', 'refold, pg_temp', true);
    FOR view IN SELECT * FROM jsonb_array_elements(new_views) LOOP
        PERFORM refold.put_view('refold', view ->> 'name', view ->> 'options', view ->> 'definition');
        EXECUTE format('DROP VIEW %I.%I', incoming, view ->> 'name');
    END LOOP;
    FOR view IN SELECT * FROM jsonb_array_elements(other_views) LOOP
        BEGIN
            IF view ->> 'kind' = 'm' THEN
                remarks := remarks || format(
                    'the materialized view %I.%I reads a table directly and now shows %s: make it anew over the view',
                    view ->> 'schema', view ->> 'name', outgoing);
            ELSE
                PERFORM refold.put_view(view ->> 'schema', view ->> 'name', view ->> 'options', view ->> 'definition');
            END IF;
        EXCEPTION WHEN insufficient_privilege OR undefined_table OR undefined_column OR invalid_table_definition THEN
            remarks := remarks || format(
                'the view %I.%I reads a table directly and now shows %s: make it anew over the view of that name (%s)',
                view ->> 'schema', view ->> 'name', outgoing, SQLERRM);
        END;
    END LOOP;
    FOREACH command IN ARRAY coalesce(triggers, '{}') LOOP
        BEGIN
            EXECUTE command;
        EXCEPTION WHEN undefined_table OR insufficient_privilege OR undefined_column THEN
            remarks := remarks || format('not taken along: %s (%s)', command, SQLERRM);
        END;
    END LOOP;
    remarks := remarks || ARRAY(
        SELECT format('the foreign key %I of %s still refers to the table in %s', k.conname, k.conrelid::regclass, outgoing)
        FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f' AND k.confrelid = ANY (leaving));

    EXECUTE format($move$
        WITH gone AS (DELETE FROM refold.projection_checkpoints WHERE projection = ANY ($1) RETURNING *)
        INSERT INTO %I.projection_checkpoints SELECT * FROM gone
    $move$, outgoing) USING projections;
    EXECUTE format($move$
        WITH found AS (DELETE FROM %1$I.projection_checkpoints WHERE projection = ANY ($1) RETURNING *)
        INSERT INTO refold.projection_checkpoints
            (projection, partition, version, position, updated_at, generation, held_version, held_reason)
        SELECT f.projection, f.partition, f.version, f.position, now(), nextval('refold.generations'),
            CASE WHEN $2 IS NOT NULL AND o.version <> f.version THEN o.version END,
            CASE WHEN $2 IS NOT NULL AND o.version <> f.version THEN $2 END
        FROM found AS f LEFT JOIN %2$I.projection_checkpoints AS o USING (projection, partition)
    $move$, incoming, outgoing) USING projections, held_because;
    -- What is parked belongs to the rows that it is missing from.
    EXECUTE format($move$
        WITH gone AS (DELETE FROM refold.parked_keys WHERE projection = ANY ($1) RETURNING *)
        INSERT INTO %I.parked_keys SELECT * FROM gone
    $move$, outgoing) USING projections;
    EXECUTE format($move$
        WITH found AS (DELETE FROM %I.parked_keys WHERE projection = ANY ($1) RETURNING *)
        INSERT INTO refold.parked_keys SELECT * FROM found
    $move$, incoming) USING projections;
    DELETE FROM refold.rebuilds WHERE projection = ANY (projections);
    RETURN remarks;
END $$;
