"""What a vendor stores on a slide by its own hand, under the department's own application.

The vendor sees its own results of the job's area and never our sign: the first result that it creates takes
the place of the sign, or of what an earlier job's vendor stored there.
Ids are Sectra's own. A version that only we have replaced meanwhile is still good, one that a user replaced
is not: optimistic locking stays what it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from gateway.contract import Retryable
from gateway.delivery.slide import FIRST_FOR, Author, Memory, SlideWriter, area_marked
from gateway.jobs.records import Place, SlideRecord
from gateway.sectra.calls import segment
from gateway.sectra.passage import Answer, Passage

_PAUSE = 0.25
_TRIES = 8
_ANOTHERS = Answer(404, {"message": "there is no such result on this slide"}, {})


class VendorResults:
    def __init__(self, memory: Memory, writer: SlideWriter) -> None:
        self._memory = memory
        self._writer = writer

    async def list(self, passage: Passage, place: Place, headers: Mapping[str, str]) -> Answer:
        rest = f"/slide/{segment(place.slide_id)}"
        answer = await passage.results("GET", place.application, rest, "listing results", headers=headers)
        if not answer.good or not isinstance(answer.body, list):
            return answer
        known = await self._known(place)
        elsewhere = await self._memory.results_elsewhere(place)
        theirs = [
            result
            for result in answer.body
            if _is_on(result, place) and not _is_sign(result, known) and result.get("id") not in elsewhere
        ]
        return replace(answer, body=theirs)

    async def read(
        self, passage: Passage, place: Place, result_id: int, headers: Mapping[str, str]
    ) -> Answer:
        answer = await self._read(passage, place, result_id, headers)
        if answer.good and (
            not _is_on(answer.body, place) or _is_sign(answer.body, await self._known(place))
        ):
            return _ANOTHERS
        return answer

    async def create(
        self,
        passage: Passage,
        place: Place,
        author: Author,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Answer:
        """Sectra's answer to a creation, also where it was an update of our sign."""
        async with self._writer.turn(place):
            for _ in range(_TRIES):
                known = await self._known(place)
                if known is not None and known.result_id is not None and known.taken_by == author.job_id:
                    return await self._store_new(passage, place, body, headers)
                if known is not None and known.result_id is not None:
                    answer = await self._take(passage, place, known, author, body, headers)
                    if answer is not None:
                        return answer
                elif await self._memory.begin_slide_result(place, FIRST_FOR):
                    if (forgotten := await self._forgotten_sign(passage, place, headers)) is not None:
                        await self._remember(place, forgotten)
                        continue
                    answer = await self._store_new(passage, place, body, headers)
                    if answer.good:
                        first = SlideRecord(_id_of(answer), _version_of(answer), None, None, None)
                        await self._remember(place, _taken(first, author))
                    else:
                        await self._forget(place)
                    return answer
                await asyncio.sleep(_PAUSE)
        raise Retryable("the gateway is writing on this slide", after=2.0)

    async def update(
        self,
        passage: Passage,
        place: Place,
        author: Author,
        result_id: int,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        own: Collection[int],
    ) -> Answer:
        """`own`: results that are known to be on the slide; of another it is asked first."""
        async with self._writer.turn(place):
            if result_id not in own and result_id in await self._memory.results_elsewhere(place):
                return _ANOTHERS
            known = await self._known(place)
            ours = known is not None and known.result_id == result_id
            if not ours and result_id not in own:
                before = await self._read(passage, place, result_id, headers)
                if not before.good:
                    return before
                if not _is_on(before.body, place):
                    return _ANOTHERS
            if known is None or not ours:
                return await self._put(passage, place, result_id, body, headers)
            await self._remember(place, _taken(known, author))
            sent = body.get("versionId")
            answer = await self._put(passage, place, result_id, _current(body, known), headers)
            if answer.stale and (again := await self._known(place)) is not None:
                # a sign that was on its way in another process
                now = _current(body, again)
                if now["versionId"] not in (sent, known.version_id):
                    answer = await self._put(passage, place, result_id, now, headers)
            await self._settle(place, known, author, answer)
            return answer

    async def _take(
        self,
        passage: Passage,
        place: Place,
        known: SlideRecord,
        author: Author,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Answer | None:
        """Put the vendor's first result where our sign stands; None where it doesn't stand any more."""
        assert known.result_id is not None
        # First, so that a sign on its way doesn't cover what comes now.
        await self._remember(place, _taken(known, author))
        version = known.version_id
        answer = None
        for _ in range(_TRIES):
            changed = {**body, "id": known.result_id, "versionId": version}
            answer = await self._put(passage, place, known.result_id, changed, headers)
            if answer.status == 404:
                await self._forget(place)  # the user deleted it
                return None
            if not answer.stale:
                break
            now = await self._read(passage, place, known.result_id, headers)
            version = _version_of(now) or version
        assert answer is not None
        await self._settle(place, known, author, answer)
        return replace(answer, status=201) if answer.good else answer

    async def _settle(self, place: Place, known: SlideRecord, author: Author, answer: Answer) -> None:
        if answer.good:
            stands = replace(known, version_id=_version_of(answer), replaced=[])
            await self._remember(place, _taken(stands, author))
        elif known.taken_by != author.job_id:
            await self._remember(place, known)

    async def _forgotten_sign(
        self, passage: Passage, place: Place, headers: Mapping[str, str]
    ) -> SlideRecord | None:
        """One that was stored, and whoever did so died before that was remembered."""
        rest = f"/slide/{segment(place.slide_id)}"
        answer = await passage.results("GET", place.application, rest, "listing results", headers=headers)
        stored = answer.body if answer.good and isinstance(answer.body, list) else []
        signs = {
            each["id"]: str(each.get("versionId"))
            for each in stored
            if _is_on(each, place) and area_marked(each) == place.area and isinstance(each.get("id"), int)
        }
        if not signs:
            return None
        last = max(signs)
        return SlideRecord(last, signs[last], None, None, None, alone=len(signs) == 1)

    async def _store_new(
        self, passage: Passage, place: Place, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Answer:
        new = {name: value for name, value in body.items() if name not in ("id", "versionId")}
        doing = "storing a vendor's result"
        answer = await passage.results("POST", place.application, "", doing, body=new, headers=headers)
        return _whole(answer, new)

    async def _put(
        self,
        passage: Passage,
        place: Place,
        result_id: int,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Answer:
        doing = "updating a vendor's result"
        rest = f"/{result_id}"
        answer = await passage.results("PUT", place.application, rest, doing, body=body, headers=headers)
        if answer.good and not isinstance(answer.body, dict):
            answer = await self._read(passage, place, result_id, headers)
        return _whole(answer, body)

    async def _read(
        self, passage: Passage, place: Place, result_id: int, headers: Mapping[str, str]
    ) -> Answer:
        doing = "reading a vendor's result"
        return await passage.results("GET", place.application, f"/{result_id}", doing, headers=headers)

    async def _known(self, place: Place) -> SlideRecord | None:
        return await self._memory.slide_result(place)

    async def _remember(self, place: Place, record: SlideRecord) -> None:
        await self._memory.remember_slide_result(place, record)

    async def _forget(self, place: Place) -> None:
        await self._memory.forget_slide_result(place)


def _is_on(result: object, place: Place) -> bool:
    return isinstance(result, dict) and result.get("slideId") == place.slide_id


def _is_sign(result: Mapping[str, Any], known: SlideRecord | None) -> bool:
    """Ours, whether or not that is remembered."""
    if area_marked(result) is not None:
        return True
    return known is not None and known.taken_by is None and result.get("id") == known.result_id


def _taken(known: SlideRecord, author: Author) -> SlideRecord:
    """A vendor that corrects an earlier job's result takes nothing from a younger one."""
    if known.job_created_at is not None and author.created_at < known.job_created_at:
        return replace(known, taken_by=known.taken_by or author.job_id)
    rank = known.rank if known.job_id == author.job_id else author.rank
    return replace(
        known,
        taken_by=author.job_id,
        job_id=author.job_id,
        job_created_at=author.created_at,
        rank=rank,
    )


def _current(body: Mapping[str, Any], known: SlideRecord) -> dict[str, Any]:
    """With the version that stands there, if all that came after the vendor's was ours."""
    sent = body.get("versionId")
    return {**body, "versionId": known.version_id if sent in known.replaced else sent}


def _whole(answer: Answer, sent: Mapping[str, Any]) -> Answer:
    """Some servers answer with the new id and version only."""
    if not answer.good or not isinstance(answer.body, dict):
        return answer
    return replace(answer, body={**sent, **answer.body})


def _id_of(answer: Answer) -> int | None:
    found = answer.body.get("id") if isinstance(answer.body, dict) else None
    return found if isinstance(found, int) else None


def _version_of(answer: Answer) -> str | None:
    found = answer.body.get("versionId") if isinstance(answer.body, dict) else None
    return None if found is None else str(found)
