"""How pages say moments, spans, counts and names: in the hospital's own time, in words of one kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from markupsafe import Markup, escape

from gateway.ailments import ailment_in
from gateway.jobs.store.circuits import Circuit
from gateway.settings.sections import Settings

_MOST_TOLD = 5


def now() -> datetime:
    return datetime.now(UTC)


def clock(at: datetime | None) -> str:
    """The time; with the day, once it is another."""
    if at is None:
        return "–"
    here = at.astimezone()
    today = datetime.now().astimezone().date()
    if here.date() == today:
        return f"{here:%H:%M}"
    return f"{here:%d %b %H:%M}" if here.year == today.year else f"{here:%d %b %Y %H:%M}"


def zone() -> str:
    """Whose times are told."""
    here = datetime.now().astimezone()
    ahead = f"UTC{here:%z}"
    return "UTC" if ahead == "UTC+0000" else f"{here:%Z} ({ahead[:-2]}:{ahead[-2:]})"


def moment(at: datetime | None) -> Markup:
    """To be read by machines and, pointed at, to the second."""
    return _tell_time(at, clock(at))


def exact(at: datetime | None) -> Markup:
    """To the second, with its day: where an order of events has to be proved."""
    return Markup("–") if at is None else _tell_time(at, f"{at.astimezone():%Y-%m-%d %H:%M:%S}")


def second(at: datetime | None) -> Markup:
    """As the clock says it, to the second."""
    return Markup("–") if at is None else _tell_time(at, f"{clock(at)}:{at.astimezone():%S}")


def _tell_time(at: datetime | None, words: str) -> Markup:
    if at is None:
        return Markup("–")
    written = f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), written, words)


def span(seconds: float | timedelta | None) -> str:
    """As long as it matters: two units at most."""
    if seconds is None:
        return "–"
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if left < 0.95:
        return f"{max(left, 0) * 1000:.0f} ms"
    if left < 9.95:
        return f"{left:.1f} s"
    whole = round(left)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds_left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {seconds_left} s" if minutes < 10 and seconds_left else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(at: datetime | None) -> str:
    return "–" if at is None else span(max(0.0, round((now() - at).total_seconds())) or 1.0)


def count(number: int | None, thing: str = "") -> str:
    """37 jobs, 1 job; 12 345 with thin spaces."""
    if number is None:
        return "–"
    written = f"{number:,}".replace(",", "\u2009")
    if not thing:
        return written
    return f"{written} {thing}" if number == 1 else f"{written} {_several(thing)}"


def _several(thing: str) -> str:
    turns = thing.endswith("y") and thing[-2:-1] not in "aeou"
    return f"{thing[:-1]}ies" if turns else f"{thing}s"


def size(number: float | None) -> str:
    if number is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def short(job_id: UUID | str) -> str:
    """Enough of an id for a person to tell it from others; the search takes it too."""
    return str(job_id)[:8]


def in_full(text: str | None) -> str:
    """A failure's message begins small and has no full stop."""
    if not text:
        return ""
    return begun(text) if text.endswith((".", "!", "?", "…")) else f"{begun(text)}."


def ailing(circuit: Circuit) -> str:
    """What is the matter with a peer, after its name."""
    return ailment_in(circuit).words.replace("'", "’")


def begun(text: str) -> str:
    """As a sentence begins."""
    return text[:1].upper() + text[1:]


def sentence(text: str | None) -> Markup:
    """`in_full`; what is to be written as it stands is `so`."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(in_full(text)))))  # noqa: S704


def told(value: object) -> str:
    """A detail of an act as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {told(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        shown = ", ".join(told(each) for each in value[:_MOST_TOLD])
        return shown if len(value) <= _MOST_TOLD else f"{shown} and {len(value) - _MOST_TOLD} more"
    if value is None:
        return "–"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def breakable(text: object) -> Markup:
    """A long identifier may be broken where its parts meet."""
    return Markup(str(escape(text)).replace(".", ".<wbr>").replace("-", "-<wbr>"))  # noqa: S704


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": clock,
    "moment": moment,
    "exact": exact,
    "second": second,
    "span": span,
    "ago": ago,
    "counted": count,
    "size": size,
    "short": short,
    "begun": begun,
    "sentence": sentence,
    "told": told,
    "breakable": breakable,
}

_KINDS = {
    "archives": "the archive {}",
    "adapters": "the vendor {}",
    "quotas": "the vendor {}",
    "destinations": "the destination {}",
    "sectra": "Sectra ({})",
    "audit_log": "the audit collector",
    "alerts": "the {} of alerts",
}


def name_peer(settings: Settings, peer: str) -> str:
    """As sentences call it."""
    kind, _, name = peer.partition(".")
    if kind == "applications" and name in settings.applications:
        return settings.applications[name].display_name
    if kind in ("adapters", "quotas"):
        makers = {each.manufacturer for each in settings.applications.values() if each.adapter == name}
        if len(makers) == 1 and (maker := makers.pop()):
            return maker
    return _KINDS.get(kind, "{}").format(name)
