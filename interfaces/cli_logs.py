"""Log lines on stderr, for people or as JSON: ours, the server's and those of libraries alike."""

import logging
import sys
from typing import Final, Literal

_QUIET: Final = ("alembic", "asyncio", "httpcore2", "httpx2", "sse_starlette", "uvicorn")
"""Libraries whose lines below a warning tell an operator nothing."""


def set_up_logs(level: str, form: Literal["text", "json"]) -> None:
    """Send everything of at least `level` (debug, info, warning, error) to stderr."""
    import structlog
    from structlog.types import Processor

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Processor]
    if form == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The default shows the variables of each frame: inputs, and credentials.
        plain = structlog.dev.plain_traceback
        colors = sys.stderr.isatty()
        render = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
