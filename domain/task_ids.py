"""The names under which a step's try is known to the agent that does it; computed, never drawn.

The same try has the same names whoever computes them, so that a call which is made again after a
lost worker, and a result which comes back, can be told from those of other tries.
"""

from uuid import UUID, uuid5


def task_id(execution_id: UUID, path: str, step_id: str, attempt: int, try_no: int) -> str:
    """`task-{step_id}-{8 hex}`: what the agent calls the work."""
    return f"task-{step_id}-{_hex8('task', execution_id, path, attempt, try_no)}"


def correlation_id(execution_id: UUID, path: str, step_id: str, attempt: int, try_no: int) -> str:
    """`corr-run-{execution}-{step_id}-{8 hex}`: what a result is matched by."""
    digits = _hex8("corr", execution_id, path, attempt, try_no)
    return f"corr-run-{execution_id}-{step_id}-{digits}"


def _hex8(kind: str, execution_id: UUID, path: str, attempt: int, try_no: int) -> str:
    return uuid5(execution_id, f"{kind}\n{path}\n{attempt}\n{try_no}").hex[:8]
