"""Logs: one structured event for whatever happened, named in the past tense, written to stderr.

JSON lines, or coloured text where a person watches.  Standard output is left to data.
"""

import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def configure(level: str = "info", *, is_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Sets the logs of this process up, those of libraries too.

    ``is_json``: by default unless ``stream`` (by default stderr) is a terminal."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    if is_json is None:
        is_json = not stream.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    ending: list[Processor] = (
        [structlog.processors.format_exc_info, _as_json] if is_json else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _configure_libraries(number, stream, shared, ending)


def _configure_libraries(number: int, stream: TextIO, shared: list[Processor], ending: list[Processor]) -> None:
    """What libraries say through the standard library looks the same."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line: ``at``, ``level`` and ``event`` first, then what is known about it."""
    first = {name: event.pop(name) for name in ("at", "level", "event") if name in event}
    return msgspec.json.encode({**first, **event}, enc_hook=_text).decode()


def _text(value: Any) -> str:
    return str(value)
