"""Executions that run others: a mark in the work queue, functions that know it, the parent's id.

A row that is woken stays ready until it is claimed anew, so that a lease holder that looked too
early cannot put it off. The functions of the release before stay for its processes.
"""

from typing import Final

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PG_WOKEN: Final = "ALTER TABLE work_queue ADD COLUMN woken boolean NOT NULL DEFAULT false"
PG_APPEND: Final = """
CREATE FUNCTION flowledger_append_v2(
    event_ids uuid[], event_versions bigint[], event_topics text[], event_states bytea[],
    worker text, lease_microseconds bigint,
    enqueue_ids uuid[], enqueue_versions bigint[], enqueue_workspaces text[],
    enqueue_priorities bigint[], enqueue_ready bigint[], enqueue_leased boolean[],
    touch_ids uuid[], touch_versions bigint[], touch_ready bigint[],
    progress_ids uuid[], progress_versions bigint[], progress_epochs bigint[],
    progress_ready bigint[], progress_released boolean[],
    finish_ids uuid[], finish_epochs bigint[],
    discard_ids uuid[],
    wake_ids uuid[], wake_ready bigint[],
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
        UPDATE work_queue q SET version = p.version,
            ready_at = CASE WHEN q.woken THEN least(q.ready_at, p.ready_at) ELSE p.ready_at END,
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
    IF cardinality(wake_ids) > 0 THEN
        UPDATE work_queue q SET woken = true, ready_at = least(q.ready_at, w.ready_at)
        FROM (SELECT id, min(ready_at) AS ready_at
            FROM unnest(wake_ids, wake_ready) AS each(id, ready_at) GROUP BY id) w
        WHERE q.execution_id = w.id;
    END IF;
END $$
"""
PG_CLAIM: Final = """
CREATE FUNCTION flowledger_claim_v2(worker text, lease_microseconds bigint, wanted bigint,
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
            epoch = nextval('flowledger_epoch'), woken = false
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
LITE_WOKEN: Final = "ALTER TABLE work_queue ADD COLUMN woken INTEGER NOT NULL DEFAULT 0"

# The columns come last, and an execution that was requested before has no parent.
VIEW: Final = """
VIEW workflow_runs AS SELECT run_id AS id, run_id, workflow_id, workflow_name,
    workflow_definition_id, status, input_data, error_message, triggered_by, created_at,
    updated_at, completed_at, cancelled_at, cancelled_by, substr(run_id, 5) AS execution_id,
    workspace_id, workflow_version, definition_sha256, sub_status, attempt, version, position,
    atomic_mode, priority, labels, simulate, output, partial, error, steps_total, steps_done,
    steps_failed, steps_skipped, steps_running, progress, waiting_on, start_at, started_at,
    duration_ms, allowed_actions, steps_recovered, forked_from, forked_from_version,
    forked_from_step, parent, parent_run_id FROM workflow_runs_v1
"""
INDEX: Final = """
CREATE INDEX workflow_runs_v1_parent_g0 ON workflow_runs_v1 (workspace_id, parent_run_id,
    created_at, run_id) WHERE parent_run_id IS NOT NULL
"""

POSTGRESQL: Final = (
    PG_WOKEN,
    PG_APPEND,
    PG_CLAIM,
    "ALTER TABLE workflow_runs_v1 ADD COLUMN parent json",
    'ALTER TABLE workflow_runs_v1 ADD COLUMN parent_run_id text COLLATE "C"',
    f"CREATE OR REPLACE {VIEW.strip()}",  # views of others stay over it
    INDEX,
)
SQLITE: Final = (
    LITE_WOKEN,
    "ALTER TABLE workflow_runs_v1 ADD COLUMN parent TEXT",
    "ALTER TABLE workflow_runs_v1 ADD COLUMN parent_run_id TEXT",
    "DROP VIEW workflow_runs",
    f"CREATE {VIEW.strip()}",
    INDEX,
)


def upgrade() -> None:
    """Add what is missing; on PostgreSQL in the connection's default schema."""
    bind = op.get_bind()
    for statement in POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE:
        bind.exec_driver_sql(statement)
