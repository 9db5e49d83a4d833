"""Where things stand inside loops and forks.

A composite runs *lanes*: a loop its iterations (`each[3]`), a fork_join its branches
(`split/left`). The steps of a lane lie under it: `each[3]/p`, `split/left/p`.
"""


def iteration_path(loop: str, index: int) -> str:
    """Lane of an iteration, counted from 0."""
    return f"{loop}[{index}]"


def branch_path(fork: str, branch: str) -> str:
    """Lane of a branch."""
    return f"{fork}/{branch}"


def lane_name(lane: str) -> str:
    """The iteration's number as text, or the branch's name."""
    if lane.endswith("]"):
        return lane[lane.rindex("[") + 1 : -1]
    return lane.rpartition("/")[2]


def lane_owner(lane: str) -> str:
    """Path of the loop or fork_join that a lane belongs to."""
    return lane[: lane.rindex("[")] if lane.endswith("]") else lane.rpartition("/")[0]


def iteration_around(path: str) -> str:
    """The innermost iteration that a path lies in, "" outside of loops."""
    return path[: path.rfind("]") + 1]


def under(path: str) -> tuple[str, str]:
    """What the paths of everything inside a composite begin with."""
    return (path + "/", path + "[")


def is_inside(path: str, around: str) -> bool:
    """Whether `path` lies inside the composite (or lane) `around`."""
    return path.startswith(under(around))


def counts(path: str) -> bool:
    """Whether a step is one of those that progress counts: one in a loop runs many times."""
    return "[" not in path


def top_of(path: str) -> str:
    """Id of the main-line step that a path lies in."""
    return path.partition("/")[0].partition("[")[0]
