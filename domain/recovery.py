"""What happens after a step failed.

A pure decision from the step's policy, its tries and the error.
"""

from datetime import datetime, timedelta

from domain.definition import RetryPolicy
from domain.events import RetryScheduled, StepFailed


def after_failure(
    policy: RetryPolicy | None, failed: StepFailed, now: datetime
) -> RetryScheduled | None:
    """The next try, or None when the failure stands.

    Nothing to try, tries used up, or an error that will not go away.
    """
    if policy is None or not failed.retryable or failed.error_class == "permanent":
        return None
    if failed.try_no > policy.attempts:
        return None
    delay_ms = retry_delay_ms(policy, failed.try_no)
    return RetryScheduled(
        path=failed.path,
        attempt=failed.attempt,
        try_no=failed.try_no + 1,
        delay_ms=delay_ms,
        due_at=now + timedelta(milliseconds=delay_ms),
    )


def retry_delay_ms(policy: RetryPolicy, retry_no: int) -> int:
    """Wait before re-try `retry_no` (from 1).

    Min(base * multiplier^(retry_no-1), max), in milliseconds.
    """
    delay: float = policy.base_delay_ms
    for _ in range(retry_no - 1):
        delay *= policy.multiplier
        if delay >= policy.max_delay_ms:
            break
    return int(min(delay, policy.max_delay_ms))
