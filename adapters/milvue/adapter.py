"""Milvue (API v3): a study goes there as one STOW stream or by signed urls, results are asked for.

Its state is spread over routes: `/status` knows running, done and error; only the results know empty and
forbidden. Nothing can be cancelled there, and nothing be changed: it is no interactive vendor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from pydantic import BaseModel

from adapters.milvue.findings import ROUTES, Reading, read_findings
from adapters.milvue.results import NotOffered, Unknown, check_study, collect, interpret
from adapters.milvue.signed_upload import send_by_signed_urls
from adapters.milvue.upload import send_whole
from adapters.milvue.wire import Options as MilvueOptions
from adapters.milvue.wire import Wire, heard
from gateway.contract import (
    Document,
    Failure,
    Finding,
    Finished,
    Health,
    Order,
    Pending,
    Permanent,
    Retryable,
    Study,
    Ticket,
)
from gateway.dicom.certificate import certificate_expiry
from gateway.kit.folder import writing
from gateway.kit.polling import pending
from gateway.kit.shelf import Shelf

_NO_STUDY = "2.25.1"  # asked for by `check`: a valid UID that nobody's study has


class Milvue:
    Options: ClassVar[type[BaseModel]] = MilvueOptions

    def __init__(self, options: MilvueOptions, session: aiohttp.ClientSession, work: Path) -> None:
        self._options = options
        self._session = session
        self._wire = Wire(options, session)
        self._work = work

    @property
    def sure_after(self) -> float:
        return self._options.sure_after

    async def submit(self, order: Order, study: Study) -> Ticket:  # noqa: ARG002 (the contract's)
        uid = _checked(study.study_instance_uid)
        if not self._options.signed_url:
            await send_whole(self._wire, study)
            return _ticket(uid)
        return _ticket(uid, await send_by_signed_urls(self._wire, study, self._work))

    async def find(self, order: Order) -> Ticket | None:
        """Milvue's own word. Which instances it has, it doesn't say."""
        uid = _checked(order.study_instance_uid)
        return None if await self._ask_status(uid) is None else _ticket(uid)

    async def poll(self, ticket: Ticket) -> Pending | Finished:
        uid = _checked(str(ticket.state.get("study", ticket.reference)))
        said = await self._ask_status(uid)
        if said is None:
            raise Retryable(
                "Milvue doesn't know a study that it acknowledged before",
                "If it stays so, ask Milvue's support; a new job sends the study again.",
            )
        if said["status"] == "running":
            return pending(ticket, self._options, "Milvue is analysing.")
        found = await self._collect(uid, said, waits=True)
        return found or pending(ticket, self._options, "Milvue is analysing.")

    async def gather(self, ticket: Ticket) -> Finished | None:
        uid = _checked(str(ticket.state.get("study", ticket.reference)))
        said = await self._ask_status(uid)
        return None if said is None else await self._collect(uid, said, waits=False)

    async def _collect(self, uid: str, said: Mapping[str, Any], *, waits: bool) -> Finished | None:
        """None: one of the commands isn't done; or none is, where nobody `waits` for those that aren't."""
        broken, running = said["status"] == "error", said["status"] == "running"
        shelf = Shelf(self._work, uid, self._options.most_result_bytes, "Milvue")
        readings: dict[str, Reading] = {}
        failures: dict[str, Failure] = {}
        for command in self._options.commands:
            kept = len(shelf.files)
            try:
                reading = await self._read(uid, command, shelf)
            except (NotOffered, Permanent) as failure:
                failures[command] = failure
            except Unknown:
                if not (broken or running):
                    raise
                failures[command] = _not_analysed(said) if broken else _not_there()
            else:
                nothing = reading is None or (reading == Reading() and len(shelf.files) == kept)
                if broken and nothing:
                    failures[command] = _not_analysed(said)
                elif reading is None and waits:
                    return None
                elif reading is None or (running and nothing):  # which may be all that it knows so far
                    failures[command] = _not_there()
                else:
                    readings[command] = replace(reading, objects=len(shelf.files) - kept)
                    kept = len(shelf.files)
            del shelf.files[kept:]
        if readings:
            return self._finish(readings, failures, shelf)
        if not waits:
            return None
        reason = next(iter(failures.values()))
        reason.detail["analyses"] = list(_tell_each(self._options.commands, readings, failures))
        raise reason

    async def cancel(self, ticket: Ticket) -> None:
        """Milvue knows no cancelling: what it makes of the study is not fetched any more, that is all."""

    async def flag(self, ticket: Ticket) -> None:
        uid = _checked(str(ticket.state.get("study", ticket.reference)))
        if not await self._wire.tell("an interesting study", f"/v3/interesting/{uid}"):
            raise Permanent(
                "Milvue doesn't know this study any more, so that it can't be shown it",
                "A new job sends the study again.",
            )

    async def check(self) -> Health:
        try:
            await self._wire.greet(f"/v3/studies/{_NO_STUDY}/status")
        except Failure as failure:
            return Health.ill(failure)
        return Health(
            True, "Milvue answers and takes the token.", certificate_expiry(self._session, self._options.url)
        )

    async def _ask_status(self, uid: str) -> dict[str, Any] | None:
        code, said = await self._wire.ask("the status", f"/v3/studies/{uid}/status")
        if code == 404:
            return None
        check_study(said, uid)
        if said.get("status") not in ("running", "done", "error"):
            raise Retryable("Milvue's status of the study says nothing that is known")
        return said

    async def _read(self, uid: str, command: str, shelf: Shelf) -> Reading | None:
        """What one command has to give; None while that isn't there."""
        reading = await self._ask_findings(uid, command)
        if reading is None or await collect(self._wire, uid, command, shelf) == "running":
            return None
        return reading

    async def _ask_findings(self, uid: str, command: str) -> Reading | None:
        """None while they aren't there; nothing to read where the product has no such route."""
        if command not in ROUTES:
            return Reading()
        language = self._options.language
        code, said = await self._wire.ask(
            f"the findings of {command}",
            f"/v3/{command}/{uid}",
            {"language": language} if language and command == "smarturgences" else {},
        )
        if code == 404:
            raise Unknown(
                f"Milvue doesn't know the findings of {command} in a study that it has analysed",
                "If it stays so, ask Milvue's support; a new job sends the study again.",
            )
        check_study(said, uid)
        outcome = interpret(said, command)
        if outcome == "running":
            return None
        return read_findings(said, command, language or "en") if outcome == "done" else Reading()

    def _finish(self, readings: dict[str, Reading], failures: dict[str, Failure], shelf: Shelf) -> Finished:
        findings: list[Finding] = []
        properties: dict[str, str | int | float] = {}
        documents: list[Document] = []
        for number, reading in enumerate(readings.values()):
            findings += reading.findings
            properties |= reading.properties
            if reading.report is not None:
                path = self._work / f"report-{number}.txt"
                with writing():
                    path.write_text(reading.report, encoding="utf-8")
                documents.append(Document(path, "text/plain; charset=utf-8", reading.report_title))
        hl7 = tuple(reading.hl7 for reading in readings.values() if reading.hl7)
        empty = not (shelf.files or findings or hl7 or documents or failures)
        nothing = "no result" if empty else "done"
        said = {command: reading.summary or nothing for command, reading in readings.items()}
        for command, failure in failures.items():
            said[command] = f"failed ({failure.message})"
            properties[command] = "failed"
        return Finished(
            summary="; ".join(f"Milvue {command}: {said[command]}" for command in self._options.commands),
            failed=tuple(failure.sentences for failure in failures.values()),
            empty=empty,
            dicom=tuple(shelf.files),
            findings=tuple(findings),
            properties=properties,
            hl7=hl7,
            documents=tuple(documents),
            analyses=_tell_each(self._options.commands, readings, failures),
            awaited=sum(isinstance(failure, _NotThere) for failure in failures.values()),
            version=", ".join(
                dict.fromkeys(reading.version for reading in readings.values() if reading.version)
            ),
        )


def _tell_each(
    commands: Sequence[str], readings: Mapping[str, Reading], failures: Mapping[str, Failure]
) -> tuple[dict[str, str], ...]:
    def tell(command: str) -> str:
        if command in failures:
            return f"failed: {failures[command].message}"
        return "nothing found" if readings[command].is_empty else "the result is there"

    return tuple({"name": command, "sentence": tell(command)} for command in commands)


class _NotThere(Permanent):
    """It may still come."""


def _not_there() -> Permanent:
    return _NotThere(
        "Milvue hadn't finished it in the time that it has",
        "Should it come after all, it is delivered by itself. Else ask Milvue's support; `gateway jobs retry`"
        " of the job has the study analysed again.",
    )


def _not_analysed(said: Mapping[str, Any]) -> Permanent:
    return Permanent(
        "Milvue couldn't analyse the study", "Milvue's support can tell the reason.", said=heard(said)
    )


def _ticket(uid: str, acknowledged: tuple[str, ...] | None = None) -> Ticket:
    return Ticket(uid, acknowledged, {"study": uid, "polls": 0})


def _checked(uid: str) -> str:
    """It becomes part of an address."""
    if not re.fullmatch(r"[0-9.]{1,64}", uid) or not uid.strip("."):
        raise Permanent("the study's UID isn't a valid one", "Look at the study in the archive.")
    return uid
