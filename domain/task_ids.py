"""The names under which an agent knows a try of a step; computed, never drawn."""

from typing import Final
from uuid import UUID, uuid5

from domain.definition import step_id_of
from domain.workflow import NAMESPACE

_DIGITS: Final = 8


def task_ids(execution_id: UUID, path: str, attempt: int, try_no: int) -> tuple[str, str]:
    """`task-{step}-{8hex}` and `corr-run-{execution}-{step}-{8hex}` of a try: the same at each
    look, and another for each try.
    """
    seed = f"task\n{execution_id}\n{path}\n{attempt}\n{try_no}"
    digits, step_id = uuid5(NAMESPACE, seed).hex[:_DIGITS], step_id_of(path)
    return f"task-{step_id}-{digits}", f"corr-run-{execution_id}-{step_id}-{digits}"
