"""Where results go: each destination of the configuration, and the slide."""

from __future__ import annotations

from gateway.building.archives import Archives
from gateway.building.ground import Ground
from gateway.delivery.destinations import ByCStore, ByStow, IntoArchive, IntoRis
from gateway.delivery.dispatch import Destination, OnTheSlide
from gateway.delivery.originals import Originals
from gateway.delivery.result_objects import ResultObjects
from gateway.settings.sections import CStoreDestination, StowDestination


def build_destinations(ground: Ground, archives: Archives) -> dict[str, Destination]:
    settings, store, spool = ground.settings, ground.lasting.store, ground.lasting.keeping.spool
    originals = Originals(store, archives.lookup, ground.slides)
    objects = ResultObjects(settings, store, originals, spool)
    named: dict[str, Destination] = {"sectra": OnTheSlide(ground.status, store, originals, spool)}
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination):
            named[name] = IntoArchive(name, ByStow(archives.webs[place.archive]), objects)
        elif isinstance(place, CStoreDestination):
            keeper = ByCStore(archives.dimse[place.archive], ground.lasting.commitments)
            named[name] = IntoArchive(name, keeper, objects)
        else:
            named[name] = IntoRis(name, place, settings, store, originals, spool)
    return named
