"""What must agree between the sections: names that point at something, and what needs what."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.extras import is_installed, say_missing
from gateway.nearest import did_you_mean
from gateway.settings.addresses import is_loopback, lets_everybody_in
from gateway.settings.sections import (
    Application,
    CStoreDestination,
    DicomwebArchive,
    DimseArchive,
    S3Spool,
    SectraArchive,
    Settings,
    StowDestination,
)
from gateway.settings.tree import ConfigurationTree

_OPEN = (
    "/ia is open to whoever reaches it; set allowed_networks, secret_path or listen.tls.client_ca, or say"
    " open: true if that is meant"
)

_UNMADE = f"{say_missing('reports')}, which makes reports and pictures; install it, or set make: []"
_EVERYWHERE = frozenset(("0.0.0.0", "::"))  # noqa: S104 (compared, not bound)


def find_disagreements(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """One sentence each, with its place."""
    return [
        *_dangling(settings, tree),
        *_unreachable(settings, tree),
        *_unshadowed(settings, tree),
        *_open(settings, tree),
        *_unheard(settings, tree),
        *_unreached(settings, tree),
        *_taken(settings, tree),
        *_unmade(settings, tree),
    ]


def find_doubts(settings: Settings) -> list[str]:
    """What is allowed, and worth a second thought."""
    doubts = [f"sectra: {_OPEN}"] if _is_open(settings) and not settings.sectra.open else []
    for name, place in _making(settings):
        if "make" not in place.model_fields_set:
            doubts.append(
                f"destinations.{name}: a job whose vendor returns findings alone will be held: {_UNMADE}"
            )
    return [*doubts, *_astray(settings)]


def _astray(settings: Settings) -> Iterable[str]:
    """What an archive sends to an AE title that several machines may share: a bucket is for such."""
    if settings.dimse is None or not isinstance(settings.spool, S3Spool):
        return
    for name, archive in settings.archives.items():
        if isinstance(archive, DimseArchive) and archive.retrieve != "get":
            yield (
                f"archives.{name}: what it sends by C-MOVE is taken by the machine that asked alone; where"
                f" several share the AE title {settings.dimse.ae_title} it may come to another, which refuses"
                " it: set retrieve: get, or give each machine a dimse.ae_title of its own, known there"
            )


def _unmade(settings: Settings, tree: ConfigurationTree) -> Iterable[str]:
    for name, place in _making(settings):
        if "make" in place.model_fields_set:
            loc = ("destinations", name, "make")
            yield f"{tree.place(loc)}: {tree.dotted(loc)}: {_UNMADE}"


def _making(settings: Settings) -> Iterable[tuple[str, StowDestination | CStoreDestination]]:
    """Those that reports and pictures are to be made for, where nothing can make them."""
    for name, place in settings.destinations.items():
        if (
            isinstance(place, StowDestination | CStoreDestination)
            and place.make
            and not is_installed("reports")
        ):
            yield name, place


def _open(settings: Settings, tree: ConfigurationTree) -> list[str]:
    if not _is_open(settings) or settings.sectra.open or _is_for_this_machine(settings):
        return []
    return [f"{tree.place(('sectra',))}: sectra: {_OPEN}"]


def _unheard(settings: Settings, tree: ConfigurationTree) -> Iterable[str]:
    """Whom a rule is to tell, and no channel of the alerts reaches."""
    alerts = settings.alerts
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            for number, rule in enumerate(application.when):
                told = settings.departments.get(rule.notify or "")
                if told is None or alerts.webhook is not None:
                    continue
                if alerts.email is not None and "@" in told.contact:
                    continue
                lacks = "configure alerts.email or alerts.webhook"
                if alerts.email is not None:
                    lacks = f"departments.{rule.notify}.contact is no e-mail address"
                loc = ("departments", department, "applications", name, "when", str(number), "notify")
                yield f"{tree.place(loc)}: {tree.dotted(loc)}: {rule.notify} wouldn't hear of it: {lacks}"


def _unreached(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """Where vendors are to call, and can't."""
    door, loc = settings.vendors, ("vendors",)
    if door.listen is None:
        return []
    here = f"{tree.place(loc)}: vendors"
    if door.public_url is None:
        return [f"{here}.public_url is missing: vendors are told to call there"]
    if door.listen.port and (door.listen.host, door.listen.port) == (
        settings.listen.host,
        settings.listen.port,
    ):
        return [f"{here}.listen: that is where everybody else calls; choose another port"]
    return []


def _taken(settings: Settings, tree: ConfigurationTree) -> Iterable[str]:
    """Where two of our doors would listen at one address."""
    doors = {"listen": settings.listen, "dimse": settings.dimse, "monitor": settings.monitor}
    before: dict[str, tuple[str, int]] = {}
    for name, door in doors.items():
        if door is None or door.port == 0:
            continue
        for other, (host, port) in before.items():
            if port == door.port and (host == door.host or not _EVERYWHERE.isdisjoint((host, door.host))):
                taken = f"{port} is where {other} listens; choose another port"
                yield f"{tree.place((name, 'port'))}: {name}.port: {taken}"
        before[name] = (door.host, door.port)


def _is_open(settings: Settings) -> bool:
    """Whether nothing tells Sectra from anybody else who calls /ia."""
    tls, sectra = settings.listen.tls, settings.sectra
    guarded = sectra.secret_path is not None or (tls is not None and tls.client_ca is not None)
    few = bool(sectra.allowed_networks) and not any(map(lets_everybody_in, sectra.allowed_networks))
    return bool(sectra.servers) and not guarded and not few


def _is_for_this_machine(settings: Settings) -> bool:
    known_as = settings.public_url and urlsplit(settings.public_url).hostname
    return is_loopback(settings.listen.host) and (not known_as or is_loopback(known_as))


def _dangling(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """Names that point at nothing."""
    problems = []

    def known(loc: tuple[str, ...], what: str, name: str, names: Iterable[str]) -> None:
        if name not in (allowed := sorted(names)):
            places = f"{', '.join(allowed) or 'none is configured'}{did_you_mean(name, allowed)}"
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
            for archive in application.archives:
                known((*loc, "archives"), "archive", archive, settings.archives)
            if application.deidentify:
                known((*loc, "deidentify"), "profile", application.deidentify, settings.profiles)
            for destination in application.deliver:
                known((*loc, "deliver"), "destination", destination, {"sectra", *settings.destinations})
            for number, rule in enumerate(application.when):
                here = (*loc, "when", str(number))
                for destination in rule.deliver:
                    known((*here, "deliver"), "destination", destination, {"sectra", *settings.destinations})
                if rule.notify is not None:
                    known((*here, "notify"), "department", rule.notify, settings.departments)
    for number, each in enumerate(settings.reconcile):
        place = ("reconcile", str(number))
        known((*place, "archive"), "archive of kind dicomweb", each.archive, _webs(settings))
        for named in each.applications:
            known((*place, "applications"), "application", named, settings.applications)
    for name, kept in settings.destinations.items():
        if isinstance(kept, StowDestination | CStoreDestination):
            known(("destinations", name, "archive"), "archive", kept.archive, settings.archives)
    problems += [f"{tree.place(loc)}: {tree.dotted(loc)}: {what}" for loc, what in _unspoken(settings)]
    if "sectra" in settings.destinations:
        problems.append("destinations.sectra: the name sectra is taken by the slide itself; choose another")
    return problems


def _webs(settings: Settings) -> list[str]:
    return [name for name, archive in settings.archives.items() if isinstance(archive, DicomwebArchive)]


def _unreachable(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """Whom others have to find, and can't."""
    if settings.console.oidc is not None and settings.public_url is None:
        place = tree.place(("console", "oidc"))
        return [f"{place}: console.oidc: public_url is missing: the sign-in comes back there"]
    return []


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
    for name, adapter in settings.adapters.items():
        if adapter.kind == "dimse" and adapter.proxy is not None:
            yield ("adapters", name, "proxy"), "DIMSE goes through no HTTP proxy; take it out"
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


def _unshadowed(settings: Settings, tree: ConfigurationTree) -> Iterable[str]:
    """Shadows that can't be."""
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            loc = ("departments", department, "applications", name, "shadow")
            for place, shadow in enumerate(application.shadow):
                why = _why_no_shadow(settings, name, application, shadow)
                if shadow in application.shadow[:place]:
                    why = f"{shadow} is named twice"
                if why:
                    yield f"{tree.place(loc)}: {tree.dotted(loc)}: {why}"


def _why_no_shadow(settings: Settings, name: str, application: Application, shadow: str) -> str:
    other = settings.applications.get(shadow)
    if other is None and shadow not in settings.adapters:
        known = sorted({*settings.applications, *settings.adapters} - {name, application.adapter})
        listed = f"{', '.join(known) or 'none is configured'}{did_you_mean(shadow, known)}"
        return f"no application or adapter {shadow}; allowed: {listed}"
    if shadow == name:
        return "an application is no shadow of itself"
    adapter = shadow if other is None else other.adapter
    if other is not None and shadow in settings.adapters and adapter != shadow:
        return f"{shadow} is an application, and an adapter that isn't its own; give one of both another name"
    if other is not None and other.shadow:
        return f"{shadow} has shadows itself, and there is no shadow of a shadow; take those out"
    if adapter == application.adapter:
        return f"adapters.{adapter} gets these studies already; choose another vendor"
    gives = [settings.archives[each] for each in application.archives if each in settings.archives]
    if not any(not isinstance(archive, SectraArchive) for archive in gives):
        return "a shadow gets its studies from an archive of the application: name one under archives"
    for place in application.archives:
        rate = getattr(settings.archives.get(place), "rate", None)
        if rate is not None and rate.count < 2:
            gives_one = f"archives.{place} gives one study at a time"
            return f"{gives_one}, and a shadow takes nobody's place: raise its rate"
    vendor = settings.adapters.get(adapter)
    serves = any(each.adapter == adapter for each in settings.applications.values())
    if serves and vendor is not None and vendor.max_concurrent == 1:
        return (
            f"adapters.{adapter} takes one at a time, and a shadow takes nobody's place: raise max_concurrent"
        )
    return ""
