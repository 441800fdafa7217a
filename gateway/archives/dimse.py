"""An archive that speaks DIMSE: what it has (C-FIND), and its instances through the spool (C-MOVE to our own
storage service, or C-GET).

What lies whole in the spool is not fetched again: only the missing instances are asked for, by their UIDs.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.archives.archive import (
    STUDY_KEYS,
    InstanceRef,
    Retrieval,
    StudyMatch,
    asked_of,
    matches_among,
    unlisted,
)
from gateway.archives.awaited import Awaited, Expectation, file_of
from gateway.archives.files import FileInstance, open_instance
from gateway.archives.queries import FINDING, LISTING, find, identifier, list_study
from gateway.contract import Failure, Health, NeedsHuman, Retryable
from gateway.dicom.arrival import MISMATCH, Arrival, Reply, Watch
from gateway.dicom.association import PENDING, associated, context, echo, exchange, failure_of
from gateway.dicom.identity import ISSUER, text_in
from gateway.dicom.peer import DimsePeer
from gateway.dicom.staging import Staging
from gateway.dicom.web import require_uid

T = TypeVar("T")

_NO_STUDY = "2.25.1"
_AT_A_TIME = 64  # UIDs in one request; some archives take no long lists
_STRAGGLERS = 10.0  # seconds; some archives end a C-MOVE before its last instances are sent
MOST_QUERIES, MOST_TRANSFERS = 4, 2
_FETCH = "sending a study"
_MOST_CONTEXTS = 128
# What peers are likely to hold, the likeliest first. Each is offered by itself: an archive that may choose
# among several might decompress.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
USUAL_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("2", "2.1", "4", "4.1", "1", "1.1", "1.2", "7", "77.1.6", "6.1", "12.1", "128", "20")
)


@dataclass(slots=True)
class Tally:
    """What an archive says of the sub-operations of its retrievals."""

    completed: int = 0
    failed: int = 0
    warned: int = 0
    unlisted: int = 0  # instances that came though it hadn't listed them
    refusal: Failure | None = None


class DimseArchive:
    """`awaited`: where a C-MOVE lands; without one, instances come by C-GET."""

    def __init__(
        self,
        name: str,
        peer: DimsePeer,
        staging: Staging,
        awaited: Awaited | None = None,
        retrieve: Literal["move", "get"] | None = None,
    ) -> None:
        self.name = name
        self.peer = peer
        self._staging = staging
        self._awaited = awaited if retrieve != "get" else None
        self._queries = asyncio.Semaphore(MOST_QUERIES)
        self._transfers = asyncio.Semaphore(MOST_TRANSFERS)
        if retrieve == "move" and awaited is None:
            raise ValueError("a C-MOVE needs a storage service of our own")

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,
        patient_id: str | None = None,
    ) -> list[StudyMatch]:
        asked = asked_of(study_instance_uid, accession_number, patient_id)
        keys = identifier("STUDY", **(dict.fromkeys(STUDY_KEYS, "") | {ISSUER: []} | asked))

        def work(watch: Watch) -> list[StudyMatch]:
            contexts = [context(StudyRootQueryRetrieveInformationModelFind)]
            with associated(self.peer, contexts, FINDING, watch) as association:
                found = find(association, self.peer, keys, FINDING)
            return matches_among(self.name, [partial(text_in, item) for item in found], asked)

        return await self._query(work)

    async def list_instances(
        self,
        study_instance_uid: str,
        promised: int | None = None,  # noqa: ARG002 pages are a matter of DICOMweb
        keywords: Collection[str] = (),
    ) -> list[InstanceRef]:
        """Series by series: not every archive lists the instances of a whole study."""
        study = require_uid(study_instance_uid)

        def work(watch: Watch) -> list[InstanceRef]:
            contexts = [context(StudyRootQueryRetrieveInformationModelFind)]
            with associated(self.peer, contexts, LISTING, watch) as association:
                return list_study(association, self.peer, study, keywords)

        return await self._query(work)

    def retrieve(
        self,
        study_instance_uid: str,
        expected: Collection[str] | None = None,
        spool: Path | None = None,
        listed: Sequence[InstanceRef] | None = None,
    ) -> Retrieval:
        """Through files below `spool`; what lies there whole from an earlier try stays."""
        if spool is None:
            raise ValueError("instances that come by DIMSE need a folder")
        require_uid(study_instance_uid)
        return Retrieval(self._retrieve(study_instance_uid, expected, spool, listed))

    def retrieve_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,  # noqa: ARG002 it is listed with the instance
        sop_instance_uid: str,
        spool: Path | None = None,
        plain: bool = False,  # noqa: ARG002 it comes as it is
    ) -> Retrieval:
        return self.retrieve(study_instance_uid, {sop_instance_uid}, spool)

    async def check(self) -> Health:
        try:
            expires = await self._query(lambda watch: echo(self.peer, watch))
            await self.find_studies(study_instance_uid=_NO_STUDY)  # some answer a stranger's C-ECHO alone
        except Failure as failure:
            return Health.ill(failure)
        return Health(True, f"the {self.peer.name} answers our C-ECHO and C-FIND", expires)

    async def _query(self, work: Callable[[Watch], T]) -> T:
        async with self._queries:
            return await exchange(work, self.peer.limits.query)

    async def _retrieve(
        self,
        study: str,
        expected: Collection[str] | None,
        spool: Path,
        listed: Sequence[InstanceRef] | None,
    ) -> AsyncGenerator[FileInstance, None]:
        folder = await asyncio.to_thread(_prepare, spool)
        here = await asyncio.to_thread(_whole, folder)
        if expected is None or not here.issuperset(expected):
            listed = listed or await self.list_instances(study)
            wanted = [each for each in listed if expected is None or each.sop_instance_uid in expected]
            if not wanted:
                return
            await self._complete(study, listed, wanted, folder)
        uids = list(expected) if expected is not None else sorted(await asyncio.to_thread(_whole, folder))
        for uid in uids:
            path = file_of(folder, uid)
            if not path.exists():
                continue  # the archive has it no more; who asked for it counts
            instance = await open_instance(path)
            if instance.header.study_instance_uid != study:
                raise NeedsHuman(
                    f"the {self.peer.name} sent an instance of another study than the one asked for",
                    "Have the archive check this study; nothing more of it is forwarded.",
                )
            yield instance

    async def _complete(
        self, study: str, listed: Sequence[InstanceRef], wanted: Sequence[InstanceRef], folder: Path
    ) -> None:
        here = await asyncio.to_thread(_whole, folder)
        missing = [each for each in wanted if each.sop_instance_uid not in here]
        if not missing:
            return
        requests = _requests(study, listed, missing)
        async with self._transfers:
            tally = await exchange(
                lambda watch: self._fetch(study, requests, listed, missing, folder, watch),
                self.peer.limits.transfer,
            )
        if tally.unlisted:
            await asyncio.to_thread(shutil.rmtree, folder)  # or the next try would find no fault with it
            raise unlisted(self.name)
        here = await asyncio.to_thread(_whole, folder)
        lacking = sum(1 for each in missing if each.sop_instance_uid not in here)
        if not lacking:
            return
        if isinstance(tally.refusal, NeedsHuman):
            raise tally.refusal
        said = f" ({tally.refusal.message})" if tally.refusal else ""
        raise Retryable(
            f"of {len(missing)} instances asked for, the {self.peer.name} sent {len(missing) - lacking};"
            f" it counts {tally.completed} completed, {tally.failed} failed, {tally.warned} warnings{said}",
            "What has come is kept, and only the rest asked for again; if this goes on, look into its log.",
        )

    def _fetch(
        self,
        study: str,
        requests: Sequence[Dataset],
        listed: Sequence[InstanceRef],
        missing: Sequence[InstanceRef],
        folder: Path,
        watch: Watch,
    ) -> Tally:
        known = frozenset(each.sop_instance_uid for each in listed)
        wanted = frozenset(each.sop_instance_uid for each in missing)
        if self._awaited is None:
            return self._get(requests, missing, Expectation(study, folder, wanted, known, watch), watch)
        with self._awaited.expect(study, folder, wanted, known, watch) as expectation:
            tally = self._move(requests, expectation, watch)
            if tally.refusal is None and not tally.failed:
                _await_stragglers(expectation, watch)
            tally.unlisted = expectation.unlisted
        return tally

    def _move(self, requests: Sequence[Dataset], expectation: Expectation, watch: Watch) -> Tally:
        assert self._awaited is not None
        tally = Tally()
        model = StudyRootQueryRetrieveInformationModelMove
        with associated(self.peer, [context(model)], _FETCH, watch) as association:
            for request in requests:
                answers = association.send_c_move(
                    request, self._awaited.ae_title, model, msg_id=expectation.message_id
                )
                if not _count(answers, self.peer, tally):
                    break
        return tally

    def _get(
        self,
        requests: Sequence[Dataset],
        missing: Sequence[InstanceRef],
        expectation: Expectation,
        watch: Watch,
    ) -> Tally:
        self._staging.prepare()

        def take(arrival: Arrival) -> Reply:
            header = arrival.finish()
            if header.study_instance_uid != expectation.study_instance_uid:
                return Reply(MISMATCH, "the instance is of another study")
            expectation.take(header, arrival.path)
            return Reply()

        tally = Tally()
        model = StudyRootQueryRetrieveInformationModelGet
        contexts = [context(model), *_storage_contexts(missing)]
        with associated(self.peer, contexts, _FETCH, watch, staging=self._staging, take=take) as association:
            for request in requests:
                if not _count(association.send_c_get(request, model), self.peer, tally):
                    break
        tally.unlisted = expectation.unlisted
        return tally


def _requests(study: str, listed: Sequence[InstanceRef], missing: Sequence[InstanceRef]) -> list[Dataset]:
    """The study, whole series where all of one is missing, single instances else."""
    if len(missing) == len(listed):
        return [identifier("STUDY", StudyInstanceUID=study)]
    whole: dict[str, int] = defaultdict(int)
    for each in listed:
        whole[each.series_instance_uid] += 1
    lacking: dict[str, list[str]] = defaultdict(list)
    for each in missing:
        lacking[each.series_instance_uid].append(each.sop_instance_uid)
    requests = []
    for series, uids in lacking.items():
        within = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        if len(uids) == whole[series]:
            requests.append(identifier("SERIES", **within))
            continue
        for start in range(0, len(uids), _AT_A_TIME):
            requests.append(identifier("IMAGE", **within, SOPInstanceUID=uids[start : start + _AT_A_TIME]))
    return requests


def _count(answers: Any, peer: DimsePeer, tally: Tally) -> bool:
    """Follow one retrieval to its end; whether to go on with the next."""
    for status, _ in answers:
        code = status.get("Status")
        if code in PENDING:
            continue
        tally.completed += status.get("NumberOfCompletedSuboperations") or 0
        tally.failed += status.get("NumberOfFailedSuboperations") or 0
        tally.warned += status.get("NumberOfWarningSuboperations") or 0
        if code not in (0x0000, 0xB000):
            tally.refusal = failure_of(peer, _FETCH, status)
            return False
    return True


def _await_stragglers(expectation: Expectation, watch: Watch) -> None:
    while not expectation.complete and not watch.over:
        if time.monotonic() - watch.last_sign > _STRAGGLERS:
            return
        time.sleep(0.05)


def _storage_contexts(missing: Sequence[InstanceRef]) -> list[Any]:
    known = {each.sop_class_uid for each in missing}
    classes = [each for each in known if each is not None] if None not in known else list(USUAL_CLASSES)
    each = max(1, (_MOST_CONTEXTS - 1) // len(classes))
    return [
        context(UID(sop_class), [syntax], taken=True)
        for sop_class in classes
        for syntax in TRANSFER_SYNTAXES[:each]
    ][: _MOST_CONTEXTS - 1]


def _prepare(spool: Path) -> Path:
    """Named after this start of the machine: after a power cut, files that look whole may not be."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    folder = spool / f"study-{boot}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _whole(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.dcm")}
