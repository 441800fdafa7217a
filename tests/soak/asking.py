"""Those who ask: Sectra and its users, other systems, modalities. Each tries again as they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from tests.peers import dcmtk
from tests.soak.hospital import BASE, TOKENS, Hospital
from tests.soak.ledger import Asked, Ledger
from tests.soak.patients import admit
from tests.soak.plan import Work

TRIES = 40
PAUSE = 2.0
_NOT_REACHED = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class Refused(Exception):
    """Not taken this time."""


class Askers:
    def __init__(self, house: Hospital, ledger: Ledger) -> None:
        self._house = house
        self._ledger = ledger
        self._turn = 0

    async def ask(self, work: Work) -> None:
        """Until it is acknowledged, and then what comes after."""
        asked = Asked(work, admit(work))
        self._ledger.asked[work.number] = asked
        await self._prepare(asked)
        await self._insist(asked, self._way(work))
        if work.then and asked.acknowledged is not None:
            await asyncio.sleep(work.after)
            await self._follow_up(asked)

    def _way(self, work: Work) -> Callable[[Asked], Awaitable[None]]:
        if work.clicked or work.kind == "notification":
            return self._click
        if work.kind == "c-store":
            return self._send
        return self._push if work.kind == "stow" else self._order

    async def _insist(self, asked: Asked, way: Callable[[Asked], Awaitable[None]]) -> None:
        for _ in range(TRIES):
            asked.tries += 1
            began = time.time()
            try:
                await way(asked)
            except Refused as refused:
                asked.trouble = str(refused)
            except _NOT_REACHED as silence:
                asked.trouble = type(silence).__name__
            else:
                asked.acknowledged = time.time()
                asked.took = asked.acknowledged - began
                return
            await asyncio.sleep(PAUSE)

    async def _prepare(self, asked: Asked) -> None:
        """The study is archived, and the slide scanned, before anybody asks."""
        house, patient, kind = self._house, asked.patient, asked.work.kind
        files = await asyncio.to_thread(patient.make_study)
        if kind == "cloud":
            await self._stow(f"{house.direct['cloud']}/dicom-web/studies", files, {})
        elif kind not in ("c-store", "stow", "nuclei"):
            archive = house.orthancs["pacs" if kind == "pacs" else "vna"]
            for data in files:
                auth = aiohttp.BasicAuth(*archive.auth) if archive.auth else None
                async with house.http.post(f"{archive.url}/instances", data=data, auth=auth) as answer:
                    answer.raise_for_status()
        if asked.work.clicked or kind == "notification":
            small = {"width": 1024, "height": 768} if kind == "nuclei" else {"width": 4000, "height": 3000}
            slide = {"id": patient.slide, **small, "accession_number": patient.accession}
            await house.control("sectra", "PUT", "slides", {**slide, "study_instance_uid": patient.study})

    async def _fire(self, asked: Asked, action: str, **more: Any) -> dict[str, Any]:
        kind = asked.work.kind
        shot = {
            "url": f"{self._house.front.url}/ia/{kind}",
            "applicationId": kind,
            "slideId": asked.patient.slide,
            "action": action,
            "callbackUrl": self._house.lines["sectra"].url + BASE,
            **more,
        }
        answer: dict[str, Any] = await self._house.control("sectra", "POST", "fire", shot)
        if answer["status"] >= 400:
            self._ledger.refusals.append(str(answer["body"]))
        return answer

    async def _click(self, asked: Asked) -> None:
        action = "newImageFiles" if asked.work.kind == "notification" else "create"
        answer = await self._fire(asked, action, cancellationToken=f"cancel-{asked.work.number}")
        if answer["status"] != 200:
            raise Refused(f"{answer['status']} {answer['complaints']}")
        if answer["complaints"]:
            asked.trouble = f"acknowledged, but {answer['complaints']}"

    async def _follow_up(self, asked: Asked) -> None:
        match asked.work.then:
            case "cancel":
                for _ in range(TRIES):
                    answer = await self._fire(
                        asked, "cancel", cancellationToken=f"cancel-{asked.work.number}"
                    )
                    if answer["status"] == 200:
                        asked.cancelled = time.time()
                        return
                    await asyncio.sleep(PAUSE)
            case "again":
                await self._fire(asked, "create", cancellationToken=f"again-{asked.work.number}")
            case "modify":
                answer = await self._fire(asked, "modify")
                asked.modified = answer["status"] == 200

    async def _order(self, asked: Asked) -> None:
        body = {
            "application": asked.work.kind,
            "study_instance_uid": asked.patient.study,
            "idempotency_key": f"order-{asked.work.number}",  # the last release knows it here alone
        }
        status, job = await self._house.api("POST", "jobs", body=body)
        if status not in (200, 202):
            self._ledger.refusals.append(str(job))
            raise Refused(str(status))
        asked.job = job["id"]

    async def _push(self, asked: Asked) -> None:
        headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
        files = await asyncio.to_thread(asked.patient.make_study)
        await self._stow(f"{self._house.front.url}/dicomweb/stow/studies", files, headers)

    async def _stow(self, url: str, files: list[bytes], headers: dict[str, str]) -> None:
        boundary = uuid4().hex
        begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(begin + data + b"\r\n" for data in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        sent = {**headers, "Content-Type": kind}
        async with self._house.http.post(url, data=body, headers=sent) as answer:
            text = await answer.text()
            if answer.status != 200:
                self._ledger.refusals.append(text)
                raise Refused(f"{answer.status}")

    async def _send(self, asked: Asked) -> None:
        self._turn += 1
        replica = self._house.replicas[self._turn % len(self._house.replicas)]
        folder = self._house.folder / "sent" / str(asked.work.number)
        paths = await asyncio.to_thread(_write, folder, asked.patient.make_study())
        sent = await asyncio.to_thread(
            dcmtk.send,
            replica.dicom_port,
            paths,
            calling="MODALITY",
            called="SENT",
            options=("-to", "5", "-ta", "10", "-td", "20"),
        )
        if sent.returncode != 0:
            raise Refused(f"storescu {sent.returncode}")


def _write(folder: Path, files: list[bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    return paths
