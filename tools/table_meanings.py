"""What views, columns and stored tables mean, in words: what their names and types do not say."""

from collections.abc import Mapping
from typing import Final

VIEWS: Final[Mapping[str, str]] = {
    "workflow_runs": "A row per execution, and per run that [another program inserted]"
    "(../how-to/query-with-sql.md#rows-that-other-programs-insert) until its execution is there;"
    " what is not known of such a run is null.",
    "step_executions": "A row per try of a step in an attempt, and per step that another program"
    " inserted for a run that has no steps here yet.",
    "state_durations": "A row per stay of an execution or a step in a state.",
    "workflow_definitions": "A row per published version of a workflow, and per definition that"
    " another program inserted under a name that is not published.",
    "workflow_statistics": "A row per workflow and status.",
    "human_tasks": "A row per task given to a person.",
    "agent_tasks": "A row per [task](../explanation/dispatched-work.md) that went out to an agent: "
    "per try, whatever carries it.",
    "questions": "A row per question about a failed step.",
    "recovery_attempts": "A row per use of a [recovery](../explanation/recovery.md#figures) "
    "strategy: each re-try, each alternative, each question.",
    "recovery_metrics": "A row per strategy and class of error, the sums over `recovery_attempts`.",
    "agents": "A row per [agent](../how-to/register-an-agent.md), also for deleted ones.",
    "execution_events": "A row per [event](events.md) of an execution. A plain view over the log: "
    "always current, and slow for questions over all executions.",
}
EVENT_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "position": ("bigint", "Place in the global log; grows in commit order, may have gaps."),
    "execution_id": ("text", "UUID of the execution."),
    "version": ("bigint", "Place within the execution, from 1 without a gap."),
    "topic": ("text", "Name of the event with its version, as `execution.step_failed.v1`."),
    "type": ("text", "The middle of the topic, as `step_failed`."),
    "recorded_at": ("timestamptz", "When."),
    "actor": ("text", "Who; `worker` for what the engine did."),
    "command_id": ("text", "The command that caused it."),
    "correlation_id": ("text, may be null", "`X-Correlation-ID` of that command."),
    "causation_id": ("text, may be null", "What caused that command."),
    "workspace_id": ("text", "Workspace, `default`."),
    "data": ("jsonb", "The event's fields, private ones included."),
}
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "any": {
        "action": "Name of the action, `agent`, `wait`, `conditional` or `create_task`.",
        "agent_name": "The agent that did the step; of another step the action's name.",
        "allowed_actions": "Verbs that are legal now.",
        "alternative": "Id of the alternative that was used.",
        "answer": "What the person wrote.",
        "answered_at": "When it was answered; by a time-out, too.",
        "answered_by": "Who answered; `worker` after a time-out.",
        "asked_at": "When it was asked.",
        "parent": "Of an execution that a step of another one runs: that one's id, and the step's "
        "path, attempt and try.",
        "parent_run_id": "`run_id` of that other execution.",
        "assigned_to": "Who shall do it, as the definition says.",
        "atomic_mode": "strict, lenient or conditional.",
        "attempt": "Run-through of the execution: 1, and 1 more per explicit retry.",
        "attempts": "How often the strategy was used.",
        "cancelled": "Attempts that were under way when nobody wanted the step any more.",
        "cancelled_at": "When it was cancelled.",
        "cancelled_by": "Who cancelled it.",
        "code": "Error code of the failure that the attempt answers.",
        "completed_at": "When it ended, however it ended.",
        "completed_by": "Who did it.",
        "created_at": "When it came into being.",
        "created_by": "Who published it.",
        "forked_from": "UUID of the execution that it was forked from.",
        "forked_from_step": "The step that it began at.",
        "forked_from_version": "The version of that execution at the fork.",
        "definition": "The normalised definition that executions run.",
        "definition_sha256": "Hash of the normalised definition.",
        "delay_ms": "The wait before a re-try; 0 for all else.",
        "delay_ms_sum": "Sum of those waits.",
        "delivery": "Hand-over of this try to a worker: above 1 after a worker was lost.",
        "description": "Text of the author.",
        "due_at": "When a wait or the pause before a re-try ends.",
        "duration_ms": "From start to end; null before the end.",
        "duration_ms_sum": "Sum of the durations of COMPLETED executions.",
        "durations": "How many executions are in that sum.",
        "ended_at": "When it ended; null while it is under way.",
        "entered_at": "When it came into the state.",
        "entered_version": "Version of the event that led into the state.",
        "error": "`{code, error_class, message, path}`.",
        "error_class": "permanent, transient, timeout or unknown.",
        "error_message": "What went wrong, in words.",
        "execution_id": "UUID of the execution.",
        "executions": "How many executions are in this status.",
        "failures": "Attempts that did not help.",
        "id": "Id of the row.",
        "input_data": "Input after references were filled in; secrets stay references.",
        "kind": "What the answer was taken for: retry, skip, abort or alternative.",
        "labels": "Labels of the request.",
        "left_at": "When it left the state; null while it stays.",
        "name": "Name of the workflow.",
        "newest": "Whether this is the version that is executed unless another is asked for.",
        "number": "Place of the attempt in its recovery, from 1; 0 when nothing could be tried.",
        "on_timeout": "The answer that counts when nobody has answered by `due_at`.",
        "options": "The exact answers, a list.",
        "outcome": "succeeded, failed or cancelled; null while it is under way.",
        "output": "Output of the execution.",
        "output_data": "Output of the try.",
        "partial": "COMPLETED although steps that are not critical failed.",
        "path": "Place of the step: its id, inside a conditional `conditional/step`.",
        "position": "Position of the last event in this row.",
        "priority": "0 to 9, lower runs first.",
        "progress": "What the running handler reported last.",
        "question_id": "`q-{execution}-{n}`.",
        "read_as": "How the answer was understood: exact, text, ambiguous or timeout.",
        "reason": "Why the failure stands, where the attempt was the recovery's last: "
        "nothing_left, budget, total_budget, skipped, answer_timeout or user_abort.",
        "recoveries": "Recoveries that ended with an attempt of this row, well or not.",
        "recovery_ms": "What the whole recovery took, without the time a person was waited for; "
        "null but in its last attempt.",
        "recovery_ms_mean": "`recovery_ms_sum` over `recoveries`; null before the first.",
        "recovery_ms_sum": "What those recoveries took together.",
        "recovery_version": "Version of the event that began the recovery: the same for all its "
        "attempts.",
        "result": "What the person answered.",
        "run_id": "`run-` and the execution's UUID.",
        "saved_ms": "`worked_ms` less the time from the failure to the success: what running it "
        "again from the start would have cost, less what recovering cost. Null but in an "
        "attempt that succeeded; below 0 where recovering took longer.",
        "saved_ms_sum": "Sum of `saved_ms`.",
        "simulate": "Nothing outside was touched.",
        "start_at": "Not before this time.",
        "started_at": "When it began.",
        "started_version": "Version of the event that began the attempt.",
        "state": "Leaf of the [state machine](lifecycle.md), as `RUNNING.executing`.",
        "status": "See [statuses](lifecycle.md).",
        "step_execution_id": "`{execution_id}:{attempt}:{path}:{try_no}`.",
        "step_id": "Id of the step in the definition.",
        "step_name": "Name of the step.",
        "steps_done": "Steps that are COMPLETED.",
        "steps_failed": "Steps that are FAILED.",
        "steps_recovered": "Steps that failed and worked after all, in all attempts, outside of "
        "loops.",
        "steps_running": "Steps under way or about to be tried again.",
        "steps_skipped": "Steps that will not run in this attempt.",
        "steps_total": "Steps of the definition.",
        "strategy": "retry, alternative_flow or user_fulfillment; `none` when the time for "
        "recoveries was over before anything could be tried.",
        "sub_status": "Finer state while it runs: executing, retrying, ...",
        "successes": "Attempts that helped: each is a recovered step.",
        "texts": "What the person is asked, a list.",
        "title": "What to do.",
        "triggered_by": "Who asked for it.",
        "try_no": "Try inside the attempt: 1, and 1 more per automatic re-try.",
        "updated_at": "When it last changed.",
        "updated_by": "Who changed it last.",
        "version": "Number of events of the execution.",
        "wait": "Whether the execution waits for it.",
        "waiting_on": "List of what can move it next: `{kind, path, until, detail}`.",
        "why": "Why a step was skipped, or why its condition could not be evaluated.",
        "worked_ms": "How long the execution's attempt had run when the step failed.",
        "workflow_data": "The definition as it was sent.",
        "workflow_definition_id": "UUID of the workflow, or of an inline definition's content.",
        "workflow_id": "`wf-{name}-{version}`; `inline-...` for an inline definition.",
        "workflow_name": "Name of the workflow.",
        "workflow_version": "Version of the workflow; 0 for an inline definition.",
        "workspace_id": "Workspace, `default`.",
    },
    "workflow_runs": {
        "id": "The same as `run_id`.",
        "input_data": "Input of the execution.",
        "progress": "Per cent: 100 for COMPLETED, else at most 99.",
        "status": "PENDING, RUNNING, COMPLETED, FAILED or CANCELLED.",
        "duration_ms": "From `started_at` to `completed_at`, so of the last attempt only; null"
        " before the end.",
        "started_at": "When its last attempt began; null until then.",
    },
    "step_executions": {
        "id": "The same as `step_execution_id`.",
        "status": "RUNNING, RECOVERING, COMPLETED, FAILED, SKIPPED or CANCELLED. FAILED without a"
        " `started_at` is a re-try for which no time was left; `why` says so.",
        "agent_name": "The agent that did the step; of another step the action's name. Of a step"
        " that an alternative saved it is that of the work that failed; the alternative has a row"
        " of its own, at the path `step~alt.id`.",
        "output_data": "Output of the try; of a step that an alternative saved, which is COMPLETED"
        " then, the output of the alternative.",
        "why": "Why a step was skipped, why its condition could not be evaluated, or why its"
        " recovery gave up.",
    },
    "state_durations": {"path": 'The step; "" for the execution itself.'},
    "agents": {
        "id": "UUID of the agent.",
        "name": "Its name.",
        "url": "Where it is called; null when it takes its work by itself.",
        "auth_type": "none, bearer or apikey.",
        "auth_config": "A reference to a secret, or a mask; never a credential.",
        "timeout_ms": "What one call may take.",
        "retry_config": "How often, and after which waits, a step that it does is tried again.",
        "transport": "http, pull or kafka.",
        "protocol": "jsonrpc or simple.",
        "circuit_breaker_config": "When its circuit breaker opens and closes.",
        "recovery": "What is done when it fails; null for the defaults.",
        "version": "Number of events of the agent.",
        "status": "active, inactive or deleted.",
        "created_by": "Who registered it.",
    },
    "workflow_statistics": {"status": "PENDING, RUNNING, COMPLETED, FAILED or CANCELLED."},
    "workflow_definitions": {
        "id": "UUID of the workflow, the same for all its versions.",
        "version": "Number of the version, from 1.",
        "status": "active, inactive or deleted; `superseded` for older versions.",
    },
    "human_tasks": {
        "id": "`ht-{execution}-{n}`.",
        "priority": "LOW, MEDIUM, HIGH or CRITICAL.",
        "status": "TODO, DONE, or CANCELLED when nobody waits for it any more.",
    },
    "agent_tasks": {
        "task_id": "`task-{step}-{16 digits}`.",
        "correlation_id": "What a result on Kafka names.",
        "agent_name": "The agent.",
        "transport": "pull or kafka.",
        "status": "OPEN, DONE (it has a result, be it a failure), TIMED_OUT, or CANCELLED when the "
        "step ended otherwise.",
        "dispatched_at": "When it went out.",
        "deadline_at": "When its try times out.",
        "ended_at": "When its step ended; null while that recovers.",
        "input_data": "What the agent is to work on.",
    },
    "questions": {
        "status": "OPEN, ANSWERED, or CLOSED when nobody waits for an answer any more.",
        "due_at": "Until when it can be answered.",
    },
    "recovery_attempts": {
        "duration_ms": "From its start to its end, the wait before a re-try or for an answer "
        "included.",
        "error_class": "Class of the failure that the attempt answers.",
        "path": "Place of the step that failed.",
        "question_id": "The question that was asked.",
        "started_at": "When the re-try was scheduled, the alternative chosen, the question asked.",
    },
}
"""Per view what its columns mean; `any` holds what means the same in several."""
STORED: Final[Mapping[str, str]] = {
    "alembic_version": "The version of the schema.",
    "ledger_events": "The log: stream id, version, topic, state, position. Triggers refuse every "
    "change of a row; it is the only table that cannot be computed from another.",
    "work_queue": "A row per execution that still has something to do: when, who has the "
    "lease until when, epoch, version. An index over the log.",
    "outside_runs": "What other programs inserted into `workflow_runs`, taken over or not.",
    "outside_run_ids": "Which execution a run id from outside names that is not its own.",
    "outside_steps": "What other programs inserted into `step_executions`.",
    "outside_definitions": "What other programs inserted into `workflow_definitions`.",
    "agent_secrets": "Credentials of agents, sealed with `FLOWLEDGER_ENCRYPTION_KEY`; back the "
    "table up with the log, and the key elsewhere.",
    "task_leases": "A row per task that a worker asked for: who has it until when, under which "
    "epoch, handed over how often. Old ones of ended tasks are removed.",
    "agent_breakers": "A [circuit breaker](../explanation/agents.md#circuit-breaker) per agent "
    "that was called.",
    "lease_epoch": "The last epoch that was given out (SQLite; a sequence on PostgreSQL).",
    "dead_letters": "A row per message that could not be taken (or, with partition -1, not be "
    "sent): where it came from, what it says, the cause, OPEN, REPLAYED or DISCARDED.",
    "relay_checkpoints": "Up to which position of the log messages were sent.",
    "projection_checkpoints": "How far each projection has come, and how far a rebuild of it.",
    "projection_failures": "The event that paused a projection, and why.",
    "purge_permit": "While it has a row, old events may be removed (SQLite).",
}
