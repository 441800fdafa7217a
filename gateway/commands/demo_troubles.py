"""What a demo that stays open has besides, so that each page of the console has something to show: a held
job, a failed one, a result that can't be delivered, and a vendor that a person has paused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from gateway.simulate.archive import ArchiveState
from gateway.simulate.firing import Fire, fire
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.patients import CHEST, HAND, KNEE
from gateway.simulate.radiographs import make_radiographs
from gateway.simulate.sectra_state import SectraState

TOLD = "a held job, a failed one, a result that the RIS doesn’t take, and a paused vendor that is waited for"
DESTINATIONS = "  ris: {{kind: hl7, host: 127.0.0.1, port: {port}}}\n"
DEPARTMENTS = """\
  outpatients:
    contact: outpatients-it@hospital
    applications:
      milvue-chest:
        display_name: Milvue chest
        manufacturer: Milvue
        adapter: milvue
        archives: [vna]
        deliver: [vna, ris]
        settle: 500ms
"""
_PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Troubles:
    """`trauma`, `pathology`: the applications, by name."""

    url: str
    sectra: SectraState
    archive: ArchiveState
    milvue: MilvueState
    trauma: str
    pathology: str

    async def make(self, session: aiohttp.ClientSession) -> None:
        for file in make_radiographs(replace(HAND, key="hand-again")):  # two studies of one accession number
            self.archive.add(file)
        self.milvue.behaviours[CHEST.study_instance_uid] = Behaviour(outcome="formatting-error")
        await self._call(session, "adapters/nuclei/pause", {"why": "its server is being moved"})
        for wanted in (
            {"application": self.trauma, "accession_number": HAND.accession_number},
            {"application": self.trauma, "study_instance_uid": CHEST.study_instance_uid},
            {"application": "milvue-chest", "study_instance_uid": KNEE.study_instance_uid},
        ):
            await self._call(session, "jobs", wanted)
        shot = {"url": f"{self.url}/ia/{self.pathology}", "applicationId": self.pathology}
        asked = {**shot, "slideId": "slide-wsi-2", "action": "newImageFiles"}
        await fire(self.sectra, Fire.model_validate(asked))
        await self._see(session)

    async def _call(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> None:
        async with session.post(f"{self.url}/api/v1/{path}", json=body) as answer:
            answer.raise_for_status()

    async def _see(self, session: aiohttp.ClientSession) -> None:
        """Until they are there, or for as long as somebody may wait for that."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while loop.time() < until:
            async with session.get(f"{self.url}/api/v1/jobs") as answer:
                if _are_there((await answer.json())["jobs"]):
                    return
            await asyncio.sleep(0.1)


def _are_there(jobs: Sequence[Mapping[str, Any]]) -> bool:
    waiting = {job["state"] for job in jobs if job["waits"] is not None}
    return {"held", "failed"} <= {job["state"] for job in jobs} and {"submitting", "delivering"} <= waiting
