"""The headers by which a called service tells the calls of one step apart."""

from application.steps import StepContext


def attempt_headers(context: StepContext) -> dict[str, str]:
    """Which run-through, which try, which claim; a service may refuse an epoch lower than one it
    has seen."""
    tried = try_headers(context.attempt, context.try_no)
    return tried | {"X-Flowledger-Epoch": str(context.epoch)}


def try_headers(attempt: int | None, try_no: int | None) -> dict[str, str]:
    """Those of a call under no claim, which has no epoch; nothing of what is not known."""
    told = {"X-Flowledger-Attempt": attempt, "X-Flowledger-Try": try_no}
    return {name: str(number) for name, number in told.items() if number is not None}
