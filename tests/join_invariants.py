"""I20, told from the events of one execution alone: a join counts branches that completed.

`tests/invariants.py` runs it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from domain import events as ev
from domain.definition import Definition, ForkJoinStep, compile_definition, declared_at
from domain.events import Event
from domain.lifecycle import COMPLETED
from tests.recovery_invariants import Finding


def joined_too_soon(events: Iterable[Event]) -> Iterator[Finding]:
    """I20: a fork completes when as many branches did as its policy asks for, and no others count.

    Told of executions whose definition came with the request.
    """
    definition: Definition | None = None
    completed: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        match event.data:
            case ev.Requested(definition=source) if source is not None:
                definition = compile_definition(source)
            case ev.BranchFinished(path=path, branch=branch, state=state):
                if state == COMPLETED:
                    completed[path].add(branch)
            case ev.Retried(reset=reset):
                for path in reset:
                    completed.pop(path, None)
            case ev.StepCompleted(path=path) if definition is not None:
                fork = declared_at(definition, path)
                if isinstance(fork, ForkJoinStep) and len(completed[path]) < fork.needed:
                    what = f"{path} completes with {sorted(completed[path])} of {fork.needed}"
                    yield "I20", event, what
