"""Where studies come from: each archive of the configuration, and who looks in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.archives.archive import Archive
from gateway.archives.canary import CanaryStudies
from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.lookup import Lookup
from gateway.archives.sectra import SlideArchive
from gateway.archives.terms import Terms
from gateway.building.ground import Ground, our_title
from gateway.dicom.peer import DimsePeer
from gateway.settings.certificates import calling
from gateway.settings.sections import DicomwebArchive as DicomwebSettings
from gateway.settings.sections import DimseArchive as DimseSettings
from gateway.settings.sections import SectraArchive as SectraSettings

if TYPE_CHECKING:
    from gateway.archives.dimse import DimseArchive


@dataclass(frozen=True, slots=True)
class Archives:
    webs: Mapping[str, DicomwebArchive]
    dimse: Mapping[str, DimseArchive]
    of_slides: Mapping[str, SlideArchive]
    lookup: Lookup

    @property
    def named(self) -> dict[str, Archive]:
        return {**self.webs, **self.dimse, **self.of_slides}


def build_archives(ground: Ground) -> Archives:
    settings, lasting = ground.settings, ground.lasting
    webs, dimse, of_slides = {}, {}, {}
    for name, place in settings.archives.items():
        if isinstance(place, DicomwebSettings):
            webs[name] = _build_web(ground, name, place)
        elif isinstance(place, SectraSettings):
            of_slides[name] = SlideArchive(name)
        else:
            dimse[name] = _build_dimse(ground, name, place)
    arrived = [lasting.keeping.studies_of(name) for name in settings.applications]
    terms = {
        name: Terms(place.only_online, place.hours, place.rate) for name, place in settings.archives.items()
    }
    makers = {application.manufacturer for application in settings.applications.values()}
    known: dict[str, Archive] = {
        **webs,
        **dimse,
        **of_slides,
        **{studies.name: studies for studies in arrived},
        CanaryStudies.name: CanaryStudies(),
    }
    lookup = Lookup(known, terms, makers, of_slides, lasting.circuits, lasting.store)
    return Archives(webs, dimse, of_slides, lookup)


def _build_web(ground: Ground, name: str, place: DicomwebSettings) -> DicomwebArchive:
    return DicomwebArchive(
        name,
        place.url,
        ground.sessions.to(f"archives.{name}", place),
        username=place.username,
        password=place.password.get_secret_value() if place.password else None,
        token=place.token.get_secret_value() if place.token else None,
    )


def _build_dimse(ground: Ground, name: str, place: DimseSettings) -> DimseArchive:
    from gateway.archives.dimse import DimseArchive  # whoever speaks no DIMSE doesn't load it

    lasting, ours = ground.lasting, our_title(ground.settings)
    tls = calling(f"archives.{name}", place) if place.is_secured else None
    peer = DimsePeer(f"archive {name}", place.host, place.port, place.ae_title, ours, tls=tls)
    awaited = lasting.awaited if ground.settings.dimse else None
    return DimseArchive(name, peer, lasting.staging, awaited, place.retrieve)
