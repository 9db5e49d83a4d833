"""The one rule of order in the log, which every reader of a stream holds it to."""

from domain.errors import LogDamaged
from domain.events import Event


def check_follows(version: int, event: Event) -> None:
    """The events of a stream are numbered without a gap; `version` is that of the last one before,
    0 when there is none. Raises LogDamaged.
    """
    if event.version != version + 1:
        kind = event.data.TOPIC.partition(".")[0]
        raise LogDamaged(kind, event.execution_id, after=version, found=event.version)
