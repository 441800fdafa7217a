"""What a vendor that is only tried gets: as an application's shadow, or in a trial.

A shadow is named by an application, whose profile and choice of images are then its own, or by an adapter,
which gets what the vendor of the application itself gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.settings.applications import Application
from gateway.settings.peers import SectraArchive

if TYPE_CHECKING:
    from gateway.settings.sections import Settings

_SHADOW, _TRIAL = "shadow", "trial"


def application_named(settings: Settings, name: str) -> Application | None:
    """As a job names it: an application of the configuration, or what is tried beside one."""
    found = settings.application(name)
    if found is not None:
        return found[1]
    kind, _, rest = name.partition("/")
    beside, _, tried = rest.partition("/")
    found = settings.application(beside)
    if found is None or kind not in (_SHADOW, _TRIAL):
        return None
    if kind == _SHADOW and tried not in found[1].shadow:
        return None
    other = settings.application(tried) if kind == _SHADOW else None
    if other is None and tried not in settings.adapters:
        return None
    return _beside(settings, found[1], tried if other is None else other[1])


def shadows_of(settings: Settings, application: Application) -> Iterator[tuple[str, Application]]:
    """Such as there are, by the names that the application has for them."""
    for name in application.shadow:
        other = settings.application(name)
        if other is not None or name in settings.adapters:
            yield name, _beside(settings, application, name if other is None else other[1])


def _beside(settings: Settings, application: Application, tried: str | Application) -> Application:
    """Nothing of it is delivered or follows from what it finds, and nobody hears of it."""
    archives = [
        name
        for name in application.archives
        if not isinstance(settings.archives.get(name), SectraArchive)  # a slide's own files are its job's
    ]
    made = application.model_copy(update={"adapter": tried}) if isinstance(tried, str) else tried
    return made.model_copy(
        update={
            "archives": archives,
            "when_unreachable": "wait",
            "deliver": [],
            "when": [],
            "shadow": [],
            "expect": None,
            "register_": None,
        }
    )
