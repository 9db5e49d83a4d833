"""Examples for the OpenAPI page: one small workflow and what it leads to; tests send them."""

from typing import Final

from domain.json_values import JsonObject

DEFINITION: Final[JsonObject] = {
    "name": "etl",
    "description": "Fetch, check, report.",
    "start_step": "fetch",
    "timeout_seconds": 3600,
    "steps": {
        "fetch": {
            "id": "fetch",
            "type": "action",
            "action": "set_variables",
            "config": {"variables": {"count": "${workflow.input.count}"}},
            "next_step": "check",
        },
        "check": {
            "id": "check",
            "type": "conditional",
            "condition": {"expression": "${fetch.output.count} > 100"},
            "if_true_step": "report",
            "next_step": None,
        },
        "report": {
            "id": "report",
            "type": "action",
            "action": "send_notification",
            "config": {"channel": "log", "message": "${fetch.output.count} rows"},
            "on_error": "retry",
            "retry": {"attempts": 3, "base_delay_ms": 1000},
            "next_step": None,
        },
    },
}
EXECUTE: Final[JsonObject] = {
    "input_data": {"count": 250},
    "priority": 5,
    "labels": {"customer": "acme"},
}
_ID: Final = "0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11"
_WORKFLOW_ID: Final = "5d0c6b2e-2b0e-5a38-9b40-0c4bbd3c3f7e"
_SHA: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_OWN: Final = f"/api/v1/executions/{_ID}"
EXECUTION: Final[JsonObject] = {
    "id": _ID,
    "execution_id": _ID,
    "run_id": f"run-{_ID}",
    "workspace_id": "default",
    "workflow_id": "wf-etl-3",
    "workflow_name": "etl",
    "workflow_version": 3,
    "workflow_definition_id": _WORKFLOW_ID,
    "definition_sha256": _SHA,
    "status": "RUNNING",
    "sub_status": "retrying",
    "attempt": 1,
    "version": 7,
    "position": 123,
    "atomic_mode": "strict",
    "priority": 5,
    "labels": {"customer": "acme"},
    "simulate": False,
    "input_data": {"count": 250},
    "output": None,
    "partial": False,
    "error": None,
    "error_message": None,
    "progress": {
        "total": 3,
        "done": 2,
        "failed": 0,
        "skipped": 0,
        "running": 1,
        "percentage": 66,
    },
    "waiting_on": [
        {"kind": "retry", "path": "report", "until": "2026-11-20T09:30:04Z", "detail": "HTTP 503"}
    ],
    "triggered_by": "alice",
    "created_at": "2026-11-20T09:30:00Z",
    "start_at": None,
    "started_at": "2026-11-20T09:30:00.012Z",
    "updated_at": "2026-11-20T09:30:03Z",
    "completed_at": None,
    "cancelled_at": None,
    "cancelled_by": None,
    "duration_ms": None,
    "allowed_actions": ["cancel"],
    "steps_recovered": 0,
    "parent": None,
    "forked_from": None,
    "links": {"self": _OWN, "events": f"{_OWN}/events", "cancel": f"{_OWN}/cancel"},
}
STEP: Final[JsonObject] = {
    "id": f"{_ID}:1:fetch:1",
    "step_execution_id": f"{_ID}:1:fetch:1",
    "run_id": f"run-{_ID}",
    "step_id": "fetch",
    "step_name": "fetch",
    "path": "fetch",
    "agent_name": "set_variables",
    "action": "set_variables",
    "attempt": 1,
    "try_no": 1,
    "delivery": 1,
    "status": "COMPLETED",
    "sub_status": None,
    "input_data": {"variables": {"count": 250}},
    "output_data": {"count": 250},
    "error": None,
    "error_message": None,
    "error_class": None,
    "why": None,
    "progress": None,
    "due_at": None,
    "started_at": "2026-11-20T09:30:00.012Z",
    "completed_at": "2026-11-20T09:30:00.013Z",
    "duration_ms": 1,
}
WORKFLOW: Final[JsonObject] = {
    "id": _WORKFLOW_ID,
    "workflow_id": "wf-etl-3",
    "name": "etl",
    "description": "Fetch, check, report.",
    "version": 3,
    "definition_id": _WORKFLOW_ID,
    "definition_sha256": _SHA,
    "workflow_data": DEFINITION,
    "status": "active",
    "created_at": "2026-11-20T09:00:00Z",
    "updated_at": "2026-11-20T09:00:00Z",
    "created_by": "alice",
    "updated_by": "alice",
}
HUMAN_TASK: Final[JsonObject] = {
    "id": "7b8e7c1a-6d56-5a77-8a0b-5f6a2a1f9e10",
    "execution_id": _ID,
    "workflow_name": "etl",
    "path": "approve",
    "attempt": 1,
    "status": "TODO",
    "priority": "HIGH",
    "wait": True,
    "title": "Approve 250 rows",
    "description": None,
    "assigned_to": "bob",
    "created_at": "2026-11-20T09:30:01Z",
    "completed_at": None,
    "completed_by": None,
    "result": None,
}
STATISTICS: Final[JsonObject] = {
    "workflow_name": "etl",
    "total": 12,
    "by_status": {"COMPLETED": 10, "FAILED": 1, "RUNNING": 1},
    "success_rate": 0.909,
    "mean_duration_ms": 812.5,
    "p95_duration_ms": 1900,
}
PROJECTION: Final[JsonObject] = {
    "name": "workflow_runs",
    "version": 1,
    "state": "running",
    "position": 123,
    "head": 123,
    "lag_events": 0,
    "lag_seconds": 0.0,
    "last_error": None,
    "failed_position": None,
}
EVENT: Final[JsonObject] = {
    "position": 118,
    "version": 4,
    "stream_id": _ID,
    "topic": "execution.step_completed.v1",
    "type": "step_completed",
    "recorded_at": "2026-11-20T09:30:00.013Z",
    "actor": "worker",
    "command_id": "1c8b6a1e-6d56-5a77-8a0b-5f6a2a1f9e10",
    "correlation_id": None,
    "causation_id": None,
    "workspace_id": "default",
    "reason": None,
    "data": {
        "path": "fetch",
        "attempt": 1,
        "try_no": 1,
        "epoch": 1,
        "size": 13,
        "output": {"count": 250},
    },
}
EXECUTE_INLINE: Final[JsonObject] = {"definition": DEFINITION, "input_data": {"count": 250}}
BATCH: Final[JsonObject] = {
    "items": [
        {"workflow_id": "etl", "input_data": {"count": 250}, "idempotency_key": "order-1"},
        {"workflow_id": "etl", "version": 1, "idempotency_key": "order-2"},
    ]
}
