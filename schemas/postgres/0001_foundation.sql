-- The ground on which every projection's tables stand: the schema, the role that reads through row-level
-- security, the checkpoints, and the bookkeeping of these files. Each file runs once, in a transaction of its
-- own.

DO $$
BEGIN
    IF to_regnamespace('refold') IS NULL THEN
        CREATE SCHEMA refold;
    END IF;
    -- A rebuild folds into refold_next; what it replaced is kept in refold_previous, for a rollback.
    IF to_regnamespace('refold_next') IS NULL THEN
        CREATE SCHEMA refold_next;
    END IF;
    IF to_regnamespace('refold_previous') IS NULL THEN
        CREATE SCHEMA refold_previous;
    END IF;
END $$;

-- Whoever dropped the schema refold left those two behind: their rows belong to nothing any more.
DO $$
DECLARE
    relation record;
    routine regprocedure;
BEGIN
    FOR relation IN
        SELECT oid, relkind FROM pg_class WHERE relkind IN ('r', 'v')
            AND relnamespace IN (to_regnamespace('refold_next'), to_regnamespace('refold_previous'))
    LOOP
        IF EXISTS (SELECT FROM pg_class WHERE oid = relation.oid) THEN
            EXECUTE format('DROP %s %s CASCADE', CASE relation.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
                relation.oid::regclass);
        END IF;
    END LOOP;
    FOR routine IN
        SELECT oid FROM pg_proc WHERE pronamespace IN (to_regnamespace('refold_next'), to_regnamespace('refold_previous'))
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', routine);
    END LOOP;
END $$;

-- Whoever reads for a tenant connects as refold_app (or as a member of it) and sets app.tenant_id. The role
-- has no password: where authentication is by password nobody can connect as it until an administrator gives
-- it one.
DO $$
BEGIN
    IF to_regrole('refold_app') IS NULL THEN
        BEGIN
            CREATE ROLE refold_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this server was first
            WHEN insufficient_privilege THEN
                RAISE WARNING 'the role refold_app does not exist and % may not create it', current_user
                    USING HINT = 'Have an administrator run: CREATE ROLE refold_app LOGIN; '
                                 'then grant it what refold.grant_read() would have granted.';
        END;
    END IF;
    IF to_regrole('refold_app') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA refold TO refold_app;
    END IF;
END $$;

CREATE TABLE refold.schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL, -- SHA-256 of the file, hexadecimal
    applied_at timestamptz NOT NULL DEFAULT now(),
    suffices   integer -- programs that know the files up to this one may go on with what this file made
);

-- How far each projection has come. `position` is the last event whose rows are committed. `generation` is new whenever
-- other tables take the place of these, so that nobody goes on with what it remembers of the old ones.
CREATE SEQUENCE refold.generations;
CREATE TABLE refold.projection_checkpoints (
    projection   text NOT NULL,
    partition    integer NOT NULL,
    version      integer NOT NULL,
    position     bigint NOT NULL CHECK (position >= 0),
    updated_at   timestamptz NOT NULL,
    generation   bigint NOT NULL DEFAULT nextval('refold.generations'),
    -- These rows were rolled back to from that version, which must not replace them again by itself.
    held_version integer,
    held_reason  text,
    PRIMARY KEY (projection, partition)
);
CREATE TABLE refold_next.projection_checkpoints (LIKE refold.projection_checkpoints INCLUDING ALL);
CREATE TABLE refold_previous.projection_checkpoints (LIKE refold.projection_checkpoints INCLUDING ALL);

-- Keys (devices, brokers, campaigns) whose rows were refused: from `position` on their events wait, and the checkpoint
-- has moved on past them. Written in the transaction that moves the checkpoint.
CREATE TABLE refold.parked_keys (
    projection text NOT NULL,
    partition  integer NOT NULL,
    key        text COLLATE "C" NOT NULL, -- tenant/T/device/D, campaign/N, firmware/N, a broker's name, a schema
    position   bigint NOT NULL CHECK (position >= 0),
    reason     text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, partition, key)
);
CREATE TABLE refold_next.parked_keys (LIKE refold.parked_keys INCLUDING ALL);
CREATE TABLE refold_previous.parked_keys (LIKE refold.parked_keys INCLUDING ALL);

-- Positions mean something in one log only. A program with another log, or with an older copy of this one, must not
-- go on from these checkpoints: events would be left out or mixed in silence.
CREATE TABLE refold.log_identity (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    log_id      text NOT NULL,
    -- Set, for good, when a checkpoint was found beyond the log's end.
    diverged_at timestamptz
);

-- Moves a checkpoint from old_position (null: none yet) to new_position and returns its generation, or raises RF001 when
-- it stands elsewhere, so that the transaction which holds the rows fails with it. Called first in that transaction: of
-- two projectors one waits here for the other's row lock, and then finds that it was too late. The generation is not
-- compared when it is null: by who never asked for it.
DO $$
DECLARE
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['refold', 'refold_next'] LOOP
        EXECUTE format($definition$
            CREATE FUNCTION %1$I.move_checkpoint(
                of_projection text, of_partition integer, of_version integer, of_generation bigint,
                old_position bigint, new_position bigint
            ) RETURNS bigint LANGUAGE plpgsql AS $function$
            DECLARE
                moved bigint;
            BEGIN
                IF old_position IS NULL THEN
                    INSERT INTO %1$I.projection_checkpoints (projection, partition, version, position, updated_at)
                    VALUES (of_projection, of_partition, of_version, new_position, now())
                    ON CONFLICT DO NOTHING RETURNING generation INTO moved;
                ELSE
                    UPDATE %1$I.projection_checkpoints SET position = new_position, updated_at = now()
                    WHERE projection = of_projection AND partition = of_partition AND version = of_version
                      AND generation = coalesce(of_generation, generation) AND position = old_position
                    RETURNING generation INTO moved;
                END IF;
                IF moved IS NULL THEN
                    RAISE EXCEPTION 'the checkpoint of %% (partition %%, version %%) is not at %% any more',
                        of_projection, of_partition, of_version, coalesce(old_position::text, 'the beginning')
                        USING ERRCODE = 'RF001';
                END IF;
                RETURN moved;
            END $function$
        $definition$, place);
    END LOOP;
END $$;

-- Deltas are added to rows that exist. When one does not, the transaction must fail rather than lose the
-- delta.
CREATE FUNCTION refold.expect_rows(of_table text, present bigint, expected bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF present IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'deltas for % rows of %, of which only % exist', expected, of_table, present
            USING ERRCODE = 'RF002';
    END IF;
END $$;

-- For the files that follow. refold_app may read the relation.
CREATE FUNCTION refold.grant_read(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('refold_app') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT ON %s TO refold_app', relation);
    END IF;
END $$;

-- For the files that follow. Rows of a table with a tenant_id are seen by the table's owner (who folds) and,
-- by anybody else who may read it, only where tenant_id is the connection's app.tenant_id: none at all while
-- that is not set.
CREATE FUNCTION refold.protect_tenant_rows(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY owner_folds ON %s TO CURRENT_USER USING (true) WITH CHECK (true)', relation);
    EXECUTE format(
        'CREATE POLICY tenant_reads ON %s FOR SELECT USING (tenant_id = current_setting(''app.tenant_id'', true))',
        relation);
    PERFORM refold.grant_read(relation);
END $$;
