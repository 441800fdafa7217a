"""What must agree between the sections: names that point at something, and what needs what."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.settings.sections import (
    CStoreDestination,
    DimseArchive,
    SectraArchive,
    Settings,
    StowDestination,
)
from gateway.settings.tree import ConfigurationTree


def find_disagreements(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """One sentence each, with its place."""
    return [*_dangling(settings, tree), *_unserved(settings, tree)]


def _dangling(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """Names that point at nothing."""
    problems = []

    def known(loc: tuple[str, ...], what: str, name: str, names: Iterable[str]) -> None:
        if name not in (allowed := sorted(names)):
            places = ", ".join(allowed) or "none is configured"
            problems.append(f"{tree.place(loc)}: {tree.dotted(loc)}: no {what} {name}; allowed: {places}")

    seen: dict[str, str] = {}
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            loc = ("departments", department, "applications", name)
            if name in seen:
                problems.append(
                    f"{tree.place(loc)}: {tree.dotted(loc)}: application {name} is already in {seen[name]}"
                )
            seen[name] = department
            known((*loc, "adapter"), "adapter", application.adapter, settings.adapters)
            for shadow in application.shadow:
                known((*loc, "shadow"), "adapter", shadow, settings.adapters)
            for archive in application.archives:
                known((*loc, "archives"), "archive", archive, settings.archives)
            for destination in application.deliver:
                known((*loc, "deliver"), "destination", destination, {"sectra", *settings.destinations})
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination | CStoreDestination):
            known(("destinations", name, "archive"), "archive", place.archive, settings.archives)
    problems += [f"{tree.place(loc)}: {tree.dotted(loc)}: {what}" for loc, what in _unspoken(settings)]
    if "sectra" in settings.destinations:
        problems.append("destinations.sectra: the name sectra is taken by the slide itself; choose another")
    return problems


def _unspoken(settings: Settings) -> Iterable[tuple[tuple[str, ...], str]]:
    """What needs DICOM to be spoken in a way that isn't configured."""
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination | CStoreDestination) and place.archive in settings.archives:
            needed = "dicomweb" if isinstance(place, StowDestination) else "dimse"
            if settings.archives[place.archive].kind != needed:
                yield ("destinations", name, "archive"), f"{place.kind} needs an archive of kind {needed}"
    for name, archive in settings.archives.items():
        if isinstance(archive, SectraArchive) and not settings.sectra.servers:
            yield ("archives", name, "kind"), "needs a server: configure sectra.servers"
    if settings.dimse is not None:
        return
    for name, archive in settings.archives.items():
        if isinstance(archive, DimseArchive) and archive.retrieve == "move":
            yield ("archives", name, "retrieve"), "needs our storage service: configure dimse"
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            if application.ae_title is not None:
                loc = ("departments", department, "applications", name, "ae_title")
                yield loc, "needs our storage service: configure dimse"


def _unserved(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """What is configured rightly but not served by this release: said, rather than silently ignored."""
    found: list[tuple[tuple[str, ...], str]] = []
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            loc = ("departments", department, "applications", name)
            for key in ("deidentify", "shadow"):
                if getattr(application, key):
                    found.append(((*loc, key), key))
    return [
        f"{tree.place(loc)}: {tree.dotted(loc)}: {what}: not served by this release yet; take it out to start"
        for loc, what in found
    ]
