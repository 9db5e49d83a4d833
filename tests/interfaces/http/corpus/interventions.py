"""Pauses, settled steps and forks that mean nothing, or too much."""

from typing import Any

from tests.interfaces.http.corpus.case import API, Case, body, query, value

_VICTIM = f"{API}/executions/victim"
_REASONS: tuple[Any, ...] = (None, "", 7, ["a"], {"a": 1}, True, "x" * 501)
_DURATIONS: tuple[Any, ...] = (0, -1, 1e9, "60", "", True, [60], {"seconds": 60}, 10**30)
_PATHS: tuple[Any, ...] = (
    *(None, "", 7, ["pay"], {"path": "pay"}, True, "x" * 1_101),
    *("../../etc/passwd", "each[-1]/p", "each[" + "9" * 900 + "]/p", "a\x00b", "\ud800"),
    *("~undo", "pay~undo~undo", "[", "]", "/", "each[0][0]/p", "'; DROP TABLE x; --"),
)
_STEPS: tuple[Any, ...] = (None, "", 7, ["a"], {"id": "a"}, "x" * 1_101, "nowhere", "a\x00")
_INPUTS: tuple[Any, ...] = ("text", 7, [1], True, {"deep": "x" * 300_000})

CASES: tuple[Case, ...] = (
    *(
        value(f"{verb} because of {reason!r:.40}", {"reason": reason}, f"{_VICTIM}/{verb}")
        for verb in ("pause", "resume")
        for reason in _REASONS
    ),
    *(
        value(
            f"pause for {seconds!r}",
            {"max_pause_duration_seconds": seconds},
            f"{_VICTIM}/pause",
        )
        for seconds in _DURATIONS
    ),
    *(
        body(f"pause for {word}", f'{{"max_pause_duration_seconds": {word}}}', f"{_VICTIM}/pause")
        for word in ("NaN", "Infinity", "-Infinity", "1e999")
    ),
    *(
        value(f"{verb} {path!r:.40}", {"path": path, "reason": "why"}, f"{_VICTIM}/steps/{verb}")
        for verb in ("skip", "complete")
        for path in _PATHS
    ),
    *(
        value(
            f"{verb} because of {reason!r:.40}",
            {"path": "pause", "reason": reason},
            f"{_VICTIM}/steps/{verb}",
        )
        for verb in ("skip", "complete")
        for reason in _REASONS
    ),
    value("skip without a reason", {"path": "pause"}, f"{_VICTIM}/steps/skip"),
    value(
        "skip with an output",
        {"path": "pause", "reason": "why", "output": 1},
        f"{_VICTIM}/steps/skip",
    ),
    value(
        "complete with too much",
        {"path": "pause", "reason": "why", "output": "x" * 300_000},
        f"{_VICTIM}/steps/complete",
    ),
    body(
        "complete with NaN",
        '{"path": "pause", "reason": "why", "output": NaN}',
        f"{_VICTIM}/steps/complete",
    ),
    body(
        "complete with 2^70",
        '{"path": "pause", "reason": "why", "output": 1180591620717411303424}',
        f"{_VICTIM}/steps/complete",
    ),
    *(value(f"fork from {step!r:.40}", {"from_step": step}, f"{_VICTIM}/fork") for step in _STEPS),
    *(
        value(
            f"fork with {given!r:.40}",
            {"from_step": "pause", "input_data": given},
            f"{_VICTIM}/fork",
        )
        for given in _INPUTS
    ),
    value("fork without a step", {}, f"{_VICTIM}/fork"),
    value("fork with more", {"from_step": "pause", "attempt": 2}, f"{_VICTIM}/fork"),
    query("/executions/victim/lineage", "min_position=-1"),
    query("/executions/victim/lineage", "page=1"),
    query("/executions", "forked_from="),
    query("/executions", "forked_from=%00"),
    query("/executions", "forked_from=" + "x" * 201),
)
