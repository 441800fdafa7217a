"""The log: lines for people on a terminal, JSON elsewhere.

Of an exception only its kind and its place are told. Its words and the variables around it may be a token or
a patient's.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import structlog


def begin(level: int = logging.INFO, form: Literal["text", "json"] | None = None) -> None:
    """`form`: none chosen is text on a terminal and JSON elsewhere."""
    as_text = sys.stderr.isatty() if form is None else form == "text"
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _tell_places,
    ]
    if as_text:
        shared.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        shared.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries speak of urls and header values: only their warnings, and none of the HTTP client's.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _AsJson("%(message)s") if form == "json" else _Discreet("%(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # What pydicom warns of, it quotes: a name, a date of birth.
    handler.addFilter(lambda record: not record.name.startswith("pydicom"))
    warnings.filterwarnings("ignore", module="pydicom")


@contextmanager
def about_job(job_id: object) -> Iterator[None]:
    """Each line within it, whoever writes it, says which job it belongs to."""
    with structlog.contextvars.bound_contextvars(job=str(job_id)):
        yield


def places_of(trouble: BaseException) -> list[str]:
    """Where it broke."""
    frames = traceback.extract_tb(trouble.__traceback__)
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-12:]]


def _tell_places(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    trouble = given[1] if isinstance(given, tuple) else given
    if isinstance(trouble, BaseException):
        event["exception"] = type(trouble).__name__
        event["places"] = places_of(trouble)
    return event


class _Discreet(logging.Formatter):
    """For libraries' own words: asyncio repeats an exception in the lines below the first."""

    def format(self, record: logging.LogRecord) -> str:
        lines = record.getMessage().splitlines() or [""]
        first = logging.LogRecord(
            record.name,
            record.levelno,
            record.pathname,
            record.lineno,
            lines[0].replace("%", "%%"),
            None,
            None,
        )
        told = super().format(first)
        trouble = record.exc_info[1] if record.exc_info else None
        if trouble is None:
            return told
        return f"{told} ({type(trouble).__name__} at {', '.join(places_of(trouble))})"


class _AsJson(_Discreet):
    """As our own lines are, with the job that they belong to."""

    def format(self, record: logging.LogRecord) -> str:
        told = super().format(record)
        line = {
            **structlog.contextvars.get_contextvars(),
            "event": told.splitlines()[0],
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        return json.dumps(line)
