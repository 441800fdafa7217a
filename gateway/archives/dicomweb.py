"""An archive that speaks DICOMweb: what it has (QIDO-RS), and its bytes as they come (WADO-RS)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from gateway.archives.archive import (
    STUDY_KEYS,
    InstanceRef,
    Retrieval,
    StudyMatch,
    answers,
    asked_of,
    matches_among,
)
from gateway.contract import Failure, Health, NeedsHuman, Retryable
from gateway.dicom import web
from gateway.dicom.certificate import certificate_expiry
from gateway.dicom.stream import StreamedInstance, instances_of

T = TypeVar("T")

_INSTANCE_FIELDS = "00080016,00080018,00080060,0020000D,0020000E"
_STUDY_FIELDS = "0020000D,00080020,00080030,00080061"
_LISTING = "listing the instances of a study"


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """When it was made, as the modality's clock on the wall said."""

    study_instance_uid: str
    day: date | None
    clock: time | None
    modalities: tuple[str, ...]


class DicomwebArchive:
    def __init__(
        self,
        name: str,
        url: str,
        session: aiohttp.ClientSession,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        limits: web.Limits = web.Limits(),  # noqa: B008
    ) -> None:
        self.name = name
        self.peer = web.WebPeer(f"archive {name}", url, username, password, token, limits)
        self.session = session

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,
        patient_id: str | None = None,
    ) -> list[StudyMatch]:
        asked = asked_of(study_instance_uid, accession_number, patient_id)
        query = {tag: asked[keyword] for tag, keyword in _tags_of(asked).items()}
        doing = "looking for a study"
        items, part = await self._query({**query, "includefield": ",".join(_tags_of(STUDY_KEYS))}, doing)
        told = [partial(_text_in, item) for item in items]
        if part and not (study_instance_uid and any(answers(asked, text) for text in told)):
            raise web.partial(self.peer.name, doing)
        return matches_among(self.name, told, asked)

    async def list_studies(self, since: date, until: date) -> list[ListedStudy]:
        """All that were made on these days. Asked page by page, and hour by hour too: some archives give no
        more than so many in answer to one question, and don't say that there are others."""
        listed: dict[str, ListedStudy] = {}
        day = since
        while day <= until:
            with suppress(web.Partial):  # each hour of it is told whole, or that fails
                await self._list_studies(listed, day)
            for hour in range(24):
                await self._list_studies(listed, day, f"{hour:02}0000-{hour:02}5959.999999")
            day += timedelta(days=1)
        return list(listed.values())

    async def _list_studies(
        self, listed: dict[str, ListedStudy], day: date, clock: str | None = None
    ) -> None:
        query = {"00080020": f"{day:%Y%m%d}", "includefield": _STUDY_FIELDS}
        if clock is not None:
            query["00080030"] = clock
        address, doing = self.peer.address(below="/studies"), "listing its latest studies"
        for item in await web.list_items(self.session, self.peer, address, query, doing, "0020000D"):
            if uid := web.text_of(item, "0020000D"):
                listed.setdefault(uid, _listed(uid, item))

    async def list_instances(
        self, study_instance_uid: str, promised: int | None = None, keywords: Collection[str] = ()
    ) -> list[InstanceRef]:
        """`promised` spares the empty page; `keywords`: attributes that are wanted of each as well."""
        tags = _tags_of(keywords)

        def read(item: web.Item) -> InstanceRef:
            sop, series = web.text_of(item, "00080018"), web.text_of(item, "0020000E")
            if not sop or not series:
                raise web.nonsense(self.peer.name, _LISTING, "with one that has no UID")
            told = _texts_of(item, tags)
            return InstanceRef(
                series, sop, web.text_of(item, "00080016"), web.text_of(item, "00080060"), told
            )

        fields = ",".join((_INSTANCE_FIELDS, *tags))
        items = await self._list(study_instance_uid, "/instances", fields, "00080018", promised)
        listed = [read(item) for item in items]
        lacking = {
            tag: word for tag, word in tags.items() if not any(word in each.attributes for each in listed)
        }
        if not lacking or not listed:
            return listed
        return await self._complete(study_instance_uid, listed, lacking)

    async def _complete(
        self, study: str, listed: Sequence[InstanceRef], lacking: Mapping[str, str]
    ) -> list[InstanceRef]:
        """Not every archive tells of an instance what is its series' or its study's."""
        fields = ",".join(("0020000E", *lacking))
        series = {
            web.text_of(item, "0020000E") or "": _texts_of(item, lacking)
            for item in await self._list(study, "/series", fields, "0020000E")
        }
        above: dict[str, tuple[str, ...]] = {}
        if not all(any(word in told for told in series.values()) for word in lacking.values()):
            query = {"0020000D": study, "includefield": ",".join(lacking)}
            for item in (await self._query(query, _LISTING))[0]:
                if web.text_of(item, "0020000D") in (None, study):
                    above |= _texts_of(item, lacking)
        return [
            replace(each, attributes={**above, **series.get(each.series_instance_uid, {}), **each.attributes})
            for each in listed
        ]

    async def _list(
        self, study: str, below: str, fields: str, unique: str, promised: int | None = None
    ) -> list[web.Item]:
        address, query = self.peer.address(study, below=below), {"includefield": fields}
        return await web.list_items(
            self.session, self.peer, address, query, _LISTING, unique, promised=promised
        )

    def retrieve(
        self,
        study_instance_uid: str,
        expected: Collection[str] | None = None,  # noqa: ARG002 who asked passes over the rest
        spool: Path | None = None,  # noqa: ARG002 it streams straight through
        listed: Sequence[InstanceRef] | None = None,  # noqa: ARG002
    ) -> Retrieval:
        """The whole study; an archive that doesn't have it gives no instances."""
        return Retrieval(self._retrieve(self.peer.address(study_instance_uid), study_instance_uid))

    def retrieve_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        spool: Path | None = None,  # noqa: ARG002
        plain: bool = False,
    ) -> Retrieval:
        address = self.peer.address(study_instance_uid, series_instance_uid, sop_instance_uid)
        accept = web.ACCEPT_PLAIN if plain else web.ACCEPT_DICOM
        return Retrieval(self._retrieve(address, study_instance_uid, accept))

    async def check(self) -> Health:
        try:
            await self._query({"limit": "1"}, "checking it")
        except Failure as failure:
            return Health.ill(failure)
        return Health(
            True,
            f"the {self.peer.name} answers and lets us in",
            certificate_expiry(self.session, self.peer.url),
        )

    async def _retrieve(
        self, address: str, study_instance_uid: str, accept: str = web.ACCEPT_DICOM
    ) -> AsyncGenerator[StreamedInstance, None]:
        doing = "sending a study"
        async with web.get(self.session, self.peer, address, accept, doing) as answer:
            if answer.status in (204, 404):
                return
            async for instance in instances_of(answer, self.peer.name, doing, self.peer.limits.least):
                if instance.header.study_instance_uid != study_instance_uid:
                    raise NeedsHuman(
                        f"the {self.peer.name} sent an instance of another study than the one asked for",
                        "Have the archive check this study; nothing more of it is forwarded.",
                    )
                yield instance

    async def _query(self, query: Mapping[str, str], doing: str) -> tuple[list[web.Item], bool]:
        """The studies that match, and whether they are only a part."""
        address, welcome = self.peer.address(below="/studies"), (200, 204, 206, 404)
        async with web.get(
            self.session, self.peer, address, web.ACCEPT_JSON, doing, query, welcome=welcome
        ) as answer:
            if answer.status == 204:
                return [], False
            if answer.status != 404:
                keep = {*query, *query.get("includefield", "").split(",")}
                return await web.read_items(answer, self.peer.name, doing, keep), web.tells_part(answer)
        if "limit" in query:
            raise Retryable(
                f"the {self.peer.name} answered 404 while {doing}: there is no DICOMweb at its url",
                f"Start its DICOMweb, or correct archives.{self.name}.url.",
            )
        # Some say so when nothing matches, and any server when DICOMweb isn't there.
        await self._query({"limit": "1"}, doing)
        return [], False


def _listed(uid: str, item: web.Item) -> ListedStudy:
    day, clock = web.text_of(item, "00080020") or "", web.text_of(item, "00080030") or ""
    return ListedStudy(
        uid,
        _read(day, r"\d{8}", date.fromisoformat),
        _read(clock[:6], r"\d{6}", time.fromisoformat),
        tuple(text for text in _flat(web.values_of(item, "00080061")) if text),
    )


def _read(text: str, pattern: str, read: Callable[[str], T]) -> T | None:
    try:
        return read(text) if re.fullmatch(pattern, text) else None
    except ValueError:
        return None


def _tags_of(keywords: Collection[str]) -> dict[str, str]:
    """The keyword by its tag, as DICOM JSON writes it."""
    from pydicom.datadict import tag_for_keyword

    tags = ((tag_for_keyword(keyword), keyword) for keyword in keywords)
    return {f"{tag:08X}": keyword for tag, keyword in tags if tag is not None}


def _texts_of(item: web.Item, tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    told = {keyword: _flat(web.values_of(item, tag)) for tag, keyword in tags.items()}
    return {keyword: texts for keyword, texts in told.items() if texts}


def _text_in(item: web.Item, keyword: str, *within: str) -> str:
    values = web.values_of(item, next(iter(_tags_of([keyword]))))
    if within:
        inner = (_text_in(each, *within) for each in values if isinstance(each, dict))
        return next(filter(None, inner), "")
    return "\\".join(_flat(values))


def _flat(values: list[Any]) -> tuple[str, ...]:
    """A person's name comes in up to three scripts; a whole number may be written as a fraction."""
    texts: list[str] = []
    for value in values:
        if isinstance(value, dict):
            texts += (str(group) for group in value.values() if group)
        elif isinstance(value, float) and value.is_integer():
            texts.append(str(int(value)))
        else:
            texts.append(str(value).strip(" \0"))
    return tuple(texts)
