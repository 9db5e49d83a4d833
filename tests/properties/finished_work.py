"""Which finished work was done again, told from the events alone."""

from collections.abc import Iterable, Iterator

from domain import events as ev

_AROUND = {"conditional", "parallel", "loop", "fork_join"}


def run_again(events: Iterable[ev.Event]) -> list[str]:
    """Paths of steps that began although they had completed and nobody asked for them again.

    A retry from a step names it, with all that comes after; a loop or fork that it names goes with
    everything that was done inside.
    """
    done: set[str] = set()
    kinds: dict[str, str] = {}
    again: list[str] = []
    for event in events:
        match event.data:
            case ev.StepStarted(path=path, action=action):
                kinds[path] = action
                if path in done:
                    again.append(path)
            case (
                ev.StepKept(path=path, state="COMPLETED")
                | ev.StepSettled(path=path, state="COMPLETED")
            ):
                done.add(path)
            case ev.StepCompleted(path=path) if kinds[path] not in _AROUND:
                done.add(path)
            case ev.Retried(reset=reset):
                for path in reset:
                    done.discard(path)
                    if kinds.get(path) in ("loop", "fork_join"):
                        done = {
                            each for each in done if not each.startswith((path + "/", path + "["))
                        }
    return again


def reset_though_finished(events: Iterable[ev.Event], reason: str) -> Iterator[tuple[int, str]]:
    """(version, path) of finished steps that a retry with this `reason` resets: one that is known
    to name no step.

    Nothing is said of a retry after something was undone, which begins that anew with all after it.
    Where nothing had worked, all that has completed is around failures.
    """
    done: set[str] = set()
    undone = False
    for event in events:
        match event.data:
            case ev.StepCompleted(path=path) if "~" not in path:
                done.add(path)
            case ev.StepSettled(path=path, state="COMPLETED") if "~" not in path:
                done.add(path)
            case ev.Failed(reason="no_success"):
                done.clear()
            case ev.StepStarted(path=path):
                done.discard(path)
            case ev.CompensationFinished():
                undone = True
            case ev.Retried(reset=reset) as retried:
                if retried.reason == reason and not undone:
                    yield from ((event.version, path) for path in reset if path in done)
                done -= set(reset)
                undone = False
