"""The headers by which a called service tells the calls of one step apart."""

from application.steps import StepContext


def attempt_headers(context: StepContext) -> dict[str, str]:
    """Which run-through, which try, which claim; a service may refuse an epoch lower than one it
    has seen."""
    return {
        "X-Flowledger-Attempt": str(context.attempt),
        "X-Flowledger-Try": str(context.try_no),
        "X-Flowledger-Epoch": str(context.epoch),
    }
