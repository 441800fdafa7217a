"""The configured vendors, made from the adapters that are installed (entry points `gateway.adapters`)."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from uuid import uuid4

import aiohttp
from pydantic import BaseModel, ValidationError

from gateway.contract import (
    Adapter,
    CallsBack,
    Interactive,
    NeedsHuman,
    Pushing,
    Returning,
    Route,
    Sender,
    WorksOnSlide,
)
from gateway.jobs.store import Store
from gateway.kit.brake import Lease, Share, brake_of
from gateway.nearest import did_you_mean
from gateway.sessions import Sessions
from gateway.settings.faults import say
from gateway.settings.sections import AdapterSettings, Application, Settings
from gateway.settings.shadows import shadows_of
from gateway.settings.tree import Misconfigured


class Vendors:
    """Raises Misconfigured for an adapter that isn't installed and options it doesn't know."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._public_url = settings.vendors.public_url or settings.public_url
        self._kinds: dict[str, type[Adapter]] = {}
        self._options: dict[str, BaseModel] = {}
        installed = {point.name: point for point in entry_points(group="gateway.adapters")}
        problems: list[str] = []
        for name, configured in settings.adapters.items():
            if configured.kind not in installed:
                allowed = ", ".join(sorted(installed)) or "none is installed"
                allowed += did_you_mean(configured.kind, installed)
                unknown = f"is {configured.kind}, which isn't installed; allowed: {allowed}"
                problems.append(settings.told(("adapters", name, "kind"), unknown))
                continue
            try:
                kind: type[Adapter] = installed[configured.kind].load()
                self._options[name] = kind.Options.model_validate(configured.options)
            except ValidationError as error:
                problems += _sentences(settings, name, kind.Options, error)
                continue
            except Exception as error:  # noqa: BLE001 - it may be anybody's
                broken = (
                    f"is {configured.kind}, which can't be loaded ({type(error).__name__}): tell its makers"
                )
                problems.append(settings.told(("adapters", name, "kind"), broken))
                continue
            self._kinds[name] = kind
            self._sessions[name] = sessions.to(f"adapters.{name}", configured)
        if problems:
            raise Misconfigured(problems)
        self.hold_after = {name: configured.hold_after for name, configured in settings.adapters.items()}
        self.rates = {name: configured.rate for name, configured in settings.adapters.items()}
        self.capacities = {
            name: configured.max_concurrent
            for name, configured in settings.adapters.items()
            if configured.max_concurrent is not None
        }

    def share_rates(self, store: Store) -> None:
        """How fast a vendor's uploads may go holds for all processes together."""
        for name, session in self._sessions.items():
            brake_of(session).lease = _leasing(store, f"adapters.{name}")

    @property
    def names(self) -> list[str]:
        return list(self._kinds)

    def make(self, name: str, work: Path) -> Adapter:
        return self.kind(name)(self._options[name], self._sessions[name], work)

    def url_of(self, name: str) -> str:
        """Where the vendor calls us."""
        if self._public_url is None:
            raise NeedsHuman(
                f"the vendor of adapters.{name} can't call us: nobody says where we are",
                "Set public_url, then resume the job.",
            )
        return f"{self._public_url}/adapters/{name}"

    @property
    def senders(self) -> dict[str, list[Sender]]:
        """By adapter, who stores its results with us."""
        made = self._all()
        return {name: list(each.senders()) for name, each in made if isinstance(each, Returning)}

    @property
    def push_tokens(self) -> dict[str, str]:
        """By adapter, what a vendor shows who stores its results with us by STOW-RS."""
        tokens = {name: each.push_token() for name, each in self._all() if isinstance(each, Pushing)}
        return {name: token for name, token in tokens.items() if token}

    def works_on_slide(self, name: str) -> bool:
        return isinstance(self.make(name, Path()), WorksOnSlide)

    def calls_back(self, name: str) -> bool:
        return issubclass(self.kind(name), CallsBack)

    @property
    def routes(self) -> dict[str, list[Route]]:
        """By adapter, how its vendor calls us."""
        return {name: list(each.routes()) for name, each in self._all() if isinstance(each, CallsBack)}

    def _all(self) -> list[tuple[str, Adapter]]:
        """To be looked at: they have no work."""
        return [(name, self.make(name, Path())) for name in self._kinds]

    def kind(self, name: str) -> type[Adapter]:
        if name not in self._kinds:
            raise NeedsHuman(
                f"the adapter {name} of this job is no longer configured",
                f"Put adapters.{name} back into the configuration, or cancel the job.",
            )
        return self._kinds[name]

    def _tells_by_itself(self, application: Application) -> str:
        """Why its vendor would hear of a patient by another way than the one that is disguised."""
        name = application.adapter
        adapter = self.make(name, Path())
        if isinstance(adapter, WorksOnSlide):
            return f"of adapters.{name} may see who it is (allow_phi)" if application.allow_phi else ""
        if isinstance(adapter, CallsBack | Interactive):
            return f"of adapters.{name} calls us, and is answered as things are"
        return ""

    def shows_itself(self, shadow: str, application: Application) -> str:
        """Why its results wouldn't stay with us, or it would learn a name that it may not know."""
        if self.works_on_slide(application.adapter):
            return f"can't be {shadow}: its vendor puts its results on the slide itself"
        if application.deidentify and (why := self._tells_by_itself(application)):
            return f"can't be {shadow} without names: its vendor {why}"
        return ""

    def find_doubts(self, settings: Settings) -> list[str]:
        """Where a user draws an area, and gets what was made of the whole study."""
        return [
            f"departments.{department}.applications.{name}.input: of the areas that users draw and tag, the"
            f" vendor of adapters.{application.adapter} isn't told: it is sent the whole study"
            for department, part in settings.departments.items()
            for name, application in part.applications.items()
            if application.input != "whole_slide" and not self.works_on_slide(application.adapter)
        ]

    def check(self, settings: Settings) -> None:
        """Whether the applications have what their vendors need; raises Misconfigured."""
        problems = []
        for department, part in settings.departments.items():
            for name, application in part.applications.items():
                if not self.works_on_slide(application.adapter) and not application.archives:
                    place = ("departments", department, "applications", name, "archives")
                    needs = f"is missing: {application.adapter} is sent studies, which come from an archive"
                    problems.append(settings.told(place, needs))
                if application.deidentify and (why := self._tells_by_itself(application)):
                    place = ("departments", department, "applications", name, "deidentify")
                    problems.append(settings.told(place, f"can't be kept: the vendor {why}; choose another"))
                place = ("departments", department, "applications", name, "shadow")
                for shadow, beside in shadows_of(settings, application):
                    if why := self.shows_itself(shadow, beside):
                        problems.append(settings.told(place, why))
        for name, routes in self.routes.items():
            if routes and self._public_url is None:
                needs = f"is missing: the vendor of adapters.{name} calls us there"
                problems.append(settings.told(("public_url",), needs))
        for name, senders in self.senders.items():
            if senders and settings.dimse is None:
                needs = f"is missing: the vendor of adapters.{name} stores its results with us there"
                problems.append(settings.told(("dimse",), needs))
        if problems:
            raise Misconfigured(problems)


def _leasing(store: Store, peer: str) -> Lease:
    sender = uuid4()

    async def ask(most: float) -> Share:
        return Share(*await store.lease_upload(peer, sender, most))

    return ask


def _sentences(settings: Settings, name: str, options: type[BaseModel], error: ValidationError) -> list[str]:
    sentences = []
    for problem in error.errors(include_input=False):
        place = ("adapters", name, *problem["loc"])
        if problem["type"] == "extra_forbidden":
            allowed = sorted({*AdapterSettings.model_fields, *options.model_fields})
            listed = f"{', '.join(allowed)}{did_you_mean(place[-1], allowed)}"
            sentences.append(settings.told(place, f"is not a key here; allowed: {listed}"))
        elif problem["type"] == "missing":
            sentences.append(settings.told(place, "is missing"))
        else:
            sentences.append(settings.told(place, f"can't be used: {say(problem)}"))
    return sentences
