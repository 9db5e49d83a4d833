"""The ledger: events, the work queue, the append function, the analysts' view of events.

Times in `work_queue` are microseconds since 1970-01-01 UTC on both back ends, so that both compare
them alike; a `ready_at` of 9223372036854775807 says that nothing is due.
"""

from typing import Final

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# ---------------------------------------------------------------------------------- PostgreSQL

PG_EVENTS: Final = """
CREATE TABLE ledger_events (
    originator_id uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state bytea NOT NULL,
    notification_id bigserial NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
)
WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_analyze_scale_factor = 0.05)
"""
PG_EVENTS_ORDER: Final = """
CREATE UNIQUE INDEX ledger_events_notification_id_idx ON ledger_events (notification_id)
"""

PG_GUARD: Final = """
CREATE FUNCTION ledger_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('flowledger.purge_permit', true), '') = '' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'restrict_violation',
            MESSAGE = 'ledger_events is append-only: ' || TG_OP || ' is refused',
            HINT = 'What happened cannot be changed; only the retention of old executions removes.';
    END IF;
    RETURN NULL;
END $$
"""
PG_GUARD_ROWS: Final = """
CREATE TRIGGER ledger_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_events
FOR EACH STATEMENT EXECUTE FUNCTION ledger_events_append_only()
"""

PG_QUEUE: Final = """
CREATE TABLE work_queue (
    execution_id uuid PRIMARY KEY,
    workspace_id text NOT NULL,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    ready_at bigint NOT NULL,
    lease_owner text,
    lease_until bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    deliveries integer NOT NULL DEFAULT 0
)
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)
"""
PG_QUEUE_READY: Final = """
CREATE INDEX work_queue_ready_idx ON work_queue (priority, ready_at) WHERE lease_owner IS NULL
"""
# Not on lease_until: an append extends its lease, and that shall stay a HOT update.
PG_QUEUE_LEASED: Final = """
CREATE INDEX work_queue_leased_idx ON work_queue (lease_owner, execution_id)
WHERE lease_owner IS NOT NULL
"""
PG_EPOCH: Final = "CREATE SEQUENCE flowledger_epoch"

PG_NOW: Final = """
CREATE FUNCTION flowledger_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$
"""

# The lock comes first: positions are drawn in the order in which transactions commit, so no reader
# ever sees a position appear behind one that it has passed. FL001 tells of a lease that is gone.
PG_APPEND: Final = """
CREATE FUNCTION flowledger_append_v1(
    event_ids uuid[], event_versions bigint[], event_topics text[], event_states bytea[],
    worker text, lease_microseconds bigint,
    enqueue_ids uuid[], enqueue_versions bigint[], enqueue_workspaces text[],
    enqueue_priorities bigint[], enqueue_ready bigint[], enqueue_leased boolean[],
    touch_ids uuid[], touch_versions bigint[], touch_ready bigint[],
    progress_ids uuid[], progress_versions bigint[], progress_epochs bigint[],
    progress_ready bigint[], progress_released boolean[],
    finish_ids uuid[], finish_epochs bigint[],
    discard_ids uuid[],
    OUT positions bigint[], OUT epochs bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    lease_end bigint;
    written bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7017281934620001);
    WITH stored AS (
        INSERT INTO ledger_events (originator_id, originator_version, topic, state)
        SELECT * FROM unnest(event_ids, event_versions, event_topics, event_states)
        RETURNING notification_id
    )
    SELECT array_agg(notification_id ORDER BY notification_id) INTO positions FROM stored;

    lease_end := flowledger_now() + lease_microseconds;
    IF cardinality(enqueue_ids) > 0 THEN
        WITH queued AS (
            INSERT INTO work_queue AS q (execution_id, workspace_id, priority, ready_at,
                lease_owner, lease_until, epoch, version, deliveries)
            SELECT e.id, e.workspace, e.priority, e.ready_at, CASE WHEN e.leased THEN worker END,
                CASE WHEN e.leased THEN lease_end ELSE 0 END, nextval('flowledger_epoch'),
                e.version, 0
            FROM unnest(enqueue_ids, enqueue_versions, enqueue_workspaces, enqueue_priorities,
                enqueue_ready, enqueue_leased)
                AS e(id, version, workspace, priority, ready_at, leased)
            ON CONFLICT (execution_id) DO UPDATE SET
                workspace_id = excluded.workspace_id, priority = excluded.priority,
                ready_at = excluded.ready_at, lease_owner = excluded.lease_owner,
                lease_until = excluded.lease_until, epoch = excluded.epoch,
                version = excluded.version, deliveries = excluded.deliveries
            RETURNING q.execution_id, q.epoch
        )
        SELECT array_agg(queued.epoch ORDER BY queued.execution_id) INTO epochs FROM queued;
    END IF;
    IF cardinality(touch_ids) > 0 THEN
        UPDATE work_queue q SET version = t.version, ready_at = least(q.ready_at, t.ready_at)
        FROM unnest(touch_ids, touch_versions, touch_ready) AS t(id, version, ready_at)
        WHERE q.execution_id = t.id;
    END IF;
    IF cardinality(progress_ids) > 0 THEN
        UPDATE work_queue q SET version = p.version, ready_at = p.ready_at,
            lease_owner = CASE WHEN p.released THEN NULL ELSE q.lease_owner END,
            lease_until = CASE WHEN p.released THEN 0 ELSE lease_end END
        FROM unnest(progress_ids, progress_versions, progress_epochs, progress_ready,
            progress_released) AS p(id, version, epoch, ready_at, released)
        WHERE q.execution_id = p.id AND q.epoch = p.epoch AND q.lease_owner = worker;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written < cardinality(progress_ids) THEN
            RAISE EXCEPTION USING ERRCODE = 'FL001', MESSAGE = 'the lease is gone';
        END IF;
    END IF;
    IF cardinality(finish_ids) > 0 THEN
        DELETE FROM work_queue q USING unnest(finish_ids, finish_epochs) AS f(id, epoch)
        WHERE q.execution_id = f.id AND q.epoch = f.epoch AND q.lease_owner = worker;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written < cardinality(finish_ids) THEN
            RAISE EXCEPTION USING ERRCODE = 'FL001', MESSAGE = 'the lease is gone';
        END IF;
    END IF;
    IF cardinality(discard_ids) > 0 THEN
        DELETE FROM work_queue WHERE execution_id = ANY (discard_ids);
    END IF;
END $$
"""

# Two kinds of row can be claimed: due ones without an owner, and whatever a lost worker left. Row
# locks are never waited for, here and in the renewal, so that no deadlock with appends can be.
PG_CLAIM: Final = """
CREATE FUNCTION flowledger_claim_v1(worker text, lease_microseconds bigint, wanted bigint,
    OUT present bigint, OUT ids uuid[], OUT epochs bigint[], OUT versions bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    level smallint;
    found_ids uuid[];
BEGIN
    present := flowledger_now();
    ids := '{}'; epochs := '{}'; versions := '{}';
    SELECT coalesce(array_agg(f.execution_id), '{}') INTO ids FROM (
        SELECT execution_id FROM work_queue
        WHERE lease_owner IS NOT NULL AND lease_until <= present
        ORDER BY priority, ready_at LIMIT wanted FOR UPDATE SKIP LOCKED
    ) f;
    FOR level IN 0..9 LOOP
        EXIT WHEN cardinality(ids) >= wanted;
        SELECT coalesce(array_agg(f.execution_id), '{}') INTO found_ids FROM (
            SELECT execution_id FROM work_queue
            WHERE lease_owner IS NULL AND priority = level AND ready_at <= present
            ORDER BY ready_at LIMIT wanted - cardinality(ids) FOR UPDATE SKIP LOCKED
        ) f;
        ids := ids || found_ids;
    END LOOP;
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    WITH claimed AS (
        UPDATE work_queue q SET
            deliveries = q.deliveries + CASE WHEN q.lease_owner IS NULL THEN 0 ELSE 1 END,
            lease_owner = worker, lease_until = present + lease_microseconds,
            epoch = nextval('flowledger_epoch')
        FROM unnest(ids) AS c(id)
        WHERE q.execution_id = c.id
        RETURNING q.execution_id, q.epoch, q.version, q.priority, q.ready_at
    )
    SELECT array_agg(c.execution_id ORDER BY c.priority, c.ready_at),
        array_agg(c.epoch ORDER BY c.priority, c.ready_at),
        array_agg(c.version ORDER BY c.priority, c.ready_at)
    INTO ids, epochs, versions FROM claimed c;
END $$
"""

PG_VIEW: Final = """
CREATE VIEW execution_events AS
SELECT e.notification_id AS position,
    e.originator_id::text AS execution_id,
    e.originator_version AS version,
    e.topic,
    split_part(e.topic, '.', 2) AS type,
    (s.state #>> '{meta,at}')::timestamptz AS recorded_at,
    s.state #>> '{meta,actor}' AS actor,
    s.state #>> '{meta,cmd}' AS command_id,
    s.state #>> '{meta,corr}' AS correlation_id,
    s.state #>> '{meta,cause}' AS causation_id,
    coalesce(s.state #>> '{meta,ws}', 'default') AS workspace_id,
    (s.state -> 'data') || (s.state -> 'private') AS data
FROM ledger_events e
CROSS JOIN LATERAL (SELECT convert_from(e.state, 'UTF8')::jsonb AS state) s
WHERE substr(e.topic, 1, 10) = 'execution.'
"""

# -------------------------------------------------------------------------------------- SQLite

# AUTOINCREMENT: a position is never given twice, not even after the newest rows were purged.
LITE_EVENTS: Final = """
CREATE TABLE ledger_events (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    originator_id TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    state BLOB NOT NULL,
    UNIQUE (originator_id, originator_version)
)
"""
LITE_PERMIT: Final = "CREATE TABLE purge_permit (reason TEXT NOT NULL)"
# INSERT OR REPLACE deletes without the delete trigger, so that a repeated key is refused before.
LITE_GUARDS: Final = tuple(
    f"""
CREATE TRIGGER ledger_events_no_{operation.lower()} BEFORE {operation} ON ledger_events
WHEN {condition}
BEGIN
    SELECT RAISE(ABORT, 'ledger_events is append-only: {operation} is refused');
END
"""
    for operation, condition in (
        ("UPDATE", "NOT EXISTS (SELECT 1 FROM purge_permit)"),
        ("DELETE", "NOT EXISTS (SELECT 1 FROM purge_permit)"),
        (
            "INSERT",
            "EXISTS (SELECT 1 FROM ledger_events WHERE rowid = NEW.rowid) OR EXISTS (SELECT 1"
            " FROM ledger_events WHERE originator_id = NEW.originator_id"
            " AND originator_version = NEW.originator_version)",
        ),
    )
)

LITE_QUEUE: Final = """
CREATE TABLE work_queue (
    execution_id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
    ready_at INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""
LITE_EPOCH: Final = "CREATE TABLE lease_epoch (latest INTEGER NOT NULL)"
LITE_EPOCH_START: Final = "INSERT INTO lease_epoch (latest) VALUES (0)"

# The objects are joined as text: json_patch would drop members that are null.
LITE_VIEW: Final = """
CREATE VIEW execution_events AS
SELECT position, execution_id, version, topic, type, recorded_at, actor, command_id,
    correlation_id, causation_id, workspace_id,
    CASE
        WHEN private_part = '{}' THEN data_part
        WHEN data_part = '{}' THEN private_part
        ELSE substr(data_part, 1, length(data_part) - 1) || ',' || substr(private_part, 2)
    END AS data
FROM (
    SELECT rowid AS position,
        substr(originator_id, 1, 8) || '-' || substr(originator_id, 9, 4) || '-'
            || substr(originator_id, 13, 4) || '-' || substr(originator_id, 17, 4) || '-'
            || substr(originator_id, 21) AS execution_id,
        originator_version AS version,
        topic,
        substr(topic, 11, instr(substr(topic, 11), '.') - 1) AS type,
        json_extract(CAST(state AS TEXT), '$.meta.at') AS recorded_at,
        json_extract(CAST(state AS TEXT), '$.meta.actor') AS actor,
        json_extract(CAST(state AS TEXT), '$.meta.cmd') AS command_id,
        json_extract(CAST(state AS TEXT), '$.meta.corr') AS correlation_id,
        json_extract(CAST(state AS TEXT), '$.meta.cause') AS causation_id,
        coalesce(json_extract(CAST(state AS TEXT), '$.meta.ws'), 'default') AS workspace_id,
        json_extract(CAST(state AS TEXT), '$.data') AS data_part,
        json_extract(CAST(state AS TEXT), '$.private') AS private_part
    FROM ledger_events
    WHERE substr(topic, 1, 10) = 'execution.'
)
"""

POSTGRESQL: Final = (
    PG_EVENTS,
    PG_EVENTS_ORDER,
    PG_GUARD,
    PG_GUARD_ROWS,
    PG_QUEUE,
    PG_QUEUE_READY,
    PG_QUEUE_LEASED,
    PG_EPOCH,
    PG_NOW,
    PG_APPEND,
    PG_CLAIM,
    PG_VIEW,
)
SQLITE: Final = (
    LITE_EVENTS,
    LITE_PERMIT,
    *LITE_GUARDS,
    LITE_QUEUE,
    PG_QUEUE_READY,
    PG_QUEUE_LEASED,
    LITE_EPOCH,
    LITE_EPOCH_START,
    LITE_VIEW,
)


def upgrade() -> None:
    """Create everything; on PostgreSQL in the connection's default schema."""
    bind = op.get_bind()
    for statement in POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE:
        bind.exec_driver_sql(statement)
