"""The options of `execute` that say what happens when a step fails."""

from typing import Annotated, Literal

import typer

from domain.recovery_config import ATTEMPTS_MAX, MILLISECONDS_LIMIT
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_session import Body

AtomicMode = Annotated[
    Literal["strict", "lenient", "conditional"] | None,
    typer.Option(
        case_sensitive=False,
        help="What a failed step means: strict (default) ends and undoes, conditional ends, "
        "lenient goes on.",
    ),
]
Recovery = Annotated[
    bool | None,
    typer.Option(
        "--recovery/--no-recovery",
        help="Failed steps recover by the settings, or only by re-tries of their own; default as "
        "the server is set.",
    ),
]
MaxRecoveryTime = Annotated[
    int | None,
    typer.Option(
        "--max-recovery-time-ms",
        min=0,
        max=MILLISECONDS_LIMIT,
        help="What the recovery of one step may take.",
    ),
]
AlternativeFlows = Annotated[
    bool | None,
    typer.Option(
        "--enable-alternative-flows/--no-enable-alternative-flows",
        help="Whether other work may take a failed step's place.",
    ),
]
UserFulfillment = Annotated[
    bool | None,
    typer.Option(
        "--enable-user-fulfillment/--no-enable-user-fulfillment",
        help="Whether a person is asked in the end.",
    ),
]
RetryAttempts = Annotated[
    int | None,
    typer.Option("--retry-attempts", min=0, max=ATTEMPTS_MAX, help="Re-tries of a failed step."),
]


def recovery_settings(
    *,
    recovery: bool | None,
    max_recovery_time_ms: int | None,
    enable_alternative_flows: bool | None,
    enable_user_fulfillment: bool | None,
    retry_attempts: int | None,
) -> Body | None:
    """The member `recovery` of a request; None leaves it to the server.

    Raises CommandFailed when --no-recovery stands beside a setting of it.
    """
    settings: Body = {
        "max_recovery_time_ms": max_recovery_time_ms,
        "enable_alternative_flows": enable_alternative_flows,
        "enable_user_fulfillment": enable_user_fulfillment,
        "retry_attempts": retry_attempts,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if recovery is False:
        if given:
            option = "--" + next(iter(given)).replace("_", "-")
            message = f"--no-recovery leaves nothing for {option} to say; leave one of them out."
            raise CommandFailed(ExitCode.INVALID, message)
        return {
            "retry_attempts": 0,
            "enable_alternative_flows": False,
            "enable_user_fulfillment": False,
        }
    return given if given or recovery else None
