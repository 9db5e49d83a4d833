"""What a diagram is made of: boxes and arrows, each with what there is to say about it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

START: Final = "start"
END: Final = "end"
STOP: Final = "stop"
NOT_TAKEN: Final = "branch_not_taken"
NOT_NEEDED: Final = "join_satisfied"
ENDED: Final = "ENDED"
"""Status of a step whose states are gone with the iterations that ended, each in its own way."""

Travel = Literal["plain", "taken", "pending", "skipped"]
"""Whether the execution went along an edge: `plain` without an execution and inside iterations that
ended, `pending` while nobody knows, `skipped` never in this attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A box. `kind` is start, end, or the step's: action, agent (`action` is its name), human_task,
    wait, validate, sub_workflow (`action` is the workflow), wait_for_event (`action` is the
    signal), conditional, parallel, loop, fork_join; or alternative or compensation, for what is
    done in the place of a step, or to undo it, at a path of its own.

    A step inside a loop is one box: its path has `[]` for the iteration, and it shows the iteration
    that runs, else one that stopped; `iteration` says which, like `each[3]`. `lanes` says how many
    iterations or branches ended. `condition` is the text a conditional tests. Without an execution
    `status` is "" and everything after it is empty; with one it is the step's status, ENDED where
    only its iterations know, or NOT_REACHED once nothing leads to it any more. `tries` counts the
    tries of all attempts, `due_at` is when a wait or the next try comes, `current` marks where it
    stands: the step itself, not what is around it. `via` is the alternative that did the step's
    work, or does it; `undone` says that its compensation has ended. `why` is one of the engine's
    words, before a condition's text; `answer` is what the last question about the step was
    answered with: retry, skip, abort, or an alternative. `on_failure` lists in order what is tried
    when it fails, without an execution only.
    """

    id: str
    kind: str
    path: str
    name: str
    action: str
    condition: str | None = None
    status: str = ""
    sub_status: str | None = None
    current: bool = False
    attempt: int = 0
    try_no: int = 0
    tries: int = 0
    due_at: datetime | None = None
    duration_ms: int | None = None
    error_class: str | None = None
    error_code: str | None = None
    why: str | None = None
    lanes: str | None = None
    iteration: str | None = None
    via: str | None = None
    undone: bool = False
    answer: str | None = None
    on_failure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow between node ids.

    `label`: then, else, failed, cancelled, the name of a branch, `each item`, `next item` and
    `done` around a loop, `alternative` and `undone by` to what stands aside of a step, "" for what
    comes next.
    """

    source: str
    target: str
    label: str
    travel: Travel
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A flow. `execution_id`, `status` and `attempt` are None for a definition alone.

    `sub_status` is that of the execution itself, such as `compensating`, not of its steps.
    `partial` says that it completed although steps that are not critical failed.
    """

    name: str
    workflow_version: int | None
    execution_id: str | None
    status: str | None
    attempt: int | None
    partial: bool
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    sub_status: str | None = None
