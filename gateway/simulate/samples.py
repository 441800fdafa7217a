"""The studies that the simulated hospital begins with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gateway.simulate.microscopy import make_pyramid
from gateway.simulate.patients import SLIDE, XRAYS, Identity
from gateway.simulate.radiographs import make_radiographs


@dataclass(frozen=True, slots=True)
class SampleStudy:
    identity: Identity
    files: tuple[bytes, ...]


@lru_cache(maxsize=1)
def make_samples() -> tuple[SampleStudy, ...]:
    xrays = [SampleStudy(identity, make_radiographs(identity)) for identity in XRAYS]
    return (*xrays, SampleStudy(SLIDE, make_pyramid(SLIDE)))
