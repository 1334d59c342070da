"""Logs: one structured event for whatever happened, named in the past tense, written to stderr.

JSON lines, or coloured text where a person watches.  Standard output is left to data.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger


def configure(level: str = "info", *, is_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Sets the logs of this process up, those of libraries too.

    ``is_json``: by default unless ``stream`` (by default stderr) is a terminal."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    if is_json is None:
        is_json = not stream.isatty()
    processors: list[Processor] = [_as_json] if is_json else [_stamped, _for_people()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _loggers.clear()
    _configure_libraries(number, stream, processors)


_loggers: dict[str, FilteringBoundLogger] = {}


def logger(name: str) -> FilteringBoundLogger:
    """A logger, made once for as long as the configuration stays: for paths where every microsecond counts."""
    found = _loggers.get(name)
    if found is None:
        found = _loggers[name] = structlog.get_logger(name).bind()
    return found


def _for_people() -> Processor:
    """Tracebacks without the values of variables: one of them may be somebody's key."""
    return structlog.dev.ConsoleRenderer(timestamp_key="at", exception_formatter=structlog.dev.plain_traceback)


def _configure_libraries(number: int, stream: TextIO, processors: list[Processor]) -> None:
    """What libraries say through the standard library looks the same."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def _stamped(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """When, how bad, and what: these come first."""
    known = {"at": datetime.now(UTC).isoformat(), "level": method, "event": event.pop("event", "")}
    return {**known, **event}


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line of JSON; everything in one step, because one is written for every request."""
    if event.get("exc_info"):
        event = structlog.processors.format_exc_info(logger, method, event)
    return msgspec.json.encode(_stamped(logger, method, event), enc_hook=_text).decode()


def _text(value: Any) -> str:
    return str(value)
