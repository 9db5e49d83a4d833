"""What the members and headers of Kafka messages mean, for the page of topics."""

from typing import Final

MEMBERS: Final = {
    "execution_request": {
        "run_id": "By which sender and readers know the run.",
        "workflow_plan": "What to run: the definition as it was published or sent.",
        "input_data": "Its input.",
        "timestamp": "When it was asked for.",
        "message_type": "`execution_request`.",
    },
    "cancellation_request": {
        "run_id": "The run.",
        "cancelled_by": "Who wants it to stop: the actor of the command.",
        "reason": "Why, or null.",
        "timestamp": "When it was asked for.",
        "message_type": "`cancellation_request`.",
    },
    "task": {
        "run_id": "The run; to be sent back.",
        "task_id": "`task-{step}-{16 digits}`: the try; to be sent back.",
        "agent_name": "Who is to do it.",
        "input_data": "The input of the step, its references filled in.",
        "correlation_id": "`corr-{run}-{step}-{16 digits}`: the try; to be sent back. Both are "
        "computed from execution, path, attempt and try: the same try has the same ones.",
        "timestamp": "When the try began.",
    },
    "result": {
        "run_id": "As in the task.",
        "task_id": "As in the task.",
        "status": "`SUCCESS` or `FAILURE`.",
        "output_data": "The output of the step: any JSON, at most 256 KB.",
        "correlation_id": "As in the task.",
        "error_message": "With `FAILURE`: why. It is cut at 10,000 characters.",
        "timestamp": "When it was done.",
    },
    "monitoring_update": {
        "run_id": "The run.",
        "step_id": "The step; `workflow` for the run as a whole.",
        "step_name": "The same as `step_id`.",
        "status": "A step: `RUNNING`, `COMPLETED`, `FAILED`. The run: `COMPLETED`, `FAILED`, "
        "`CANCELLED`.",
        "timestamp": "When it came to that.",
        "metadata.step_execution_id": "Of a step: `{execution}:{attempt}:{path}:{try}`, which "
        "tells iterations, tries and attempts apart.",
        "metadata.task_id": "Of a step of an agent, with `RUNNING`: its task.",
        "metadata.failed_step": "Of a run that failed: the step, if it failed by one.",
        "metadata.error": "Of a failure: why.",
        "metadata.error_message": "The same: readers look for either.",
    },
}
HEADERS: Final = {
    "content-type": "`application/json`: the body is one JSON object in UTF-8.",
    "flowledger-position": "Of what the log told: the position of the event, as decimal text. A "
    "message that is repeated has the same one.",
    "flowledger-idempotency-key": "Of a task: the same for all tries of the step, unless it says "
    '`"idempotency": "try"`. A bridge gives it to the agent as `Idempotency-Key`.',
    "flowledger-attempt": "Of a task: which run-through of the execution. A bridge gives it to the "
    "agent as `X-Flowledger-Attempt`.",
    "flowledger-try": "Of a task: which try of the step. A bridge gives it to the agent as "
    "`X-Flowledger-Try`.",
    "flowledger-error-code": "Of a `FAILURE` of a bridge: the [code](errors.md) of the failure. "
    "Results without it fail with `agent_failed`.",
    "flowledger-error-class": "Of the same: permanent, transient, timeout or unknown. Results "
    "without it are of class unknown, and so tried again.",
    "flowledger-retryable": "Of the same: `false` when the same call fails again.",
    "ce_specversion": "CloudEvents: `1.0`.",
    "ce_id": "Computed from position and body: a message that is repeated has the same one.",
    "ce_source": "`/flowledger`.",
    "ce_type": "`flowledger.{kind}.v1`, where the kind is `execution_request`, "
    "`cancellation_request`, `task`, `result` or `monitoring_update`.",
    "ce_subject": "The run; of a step's monitoring update `{run}/{step}`.",
    "ce_time": "The `timestamp` of the body.",
}
