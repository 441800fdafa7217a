"""Results into an archive by C-STORE, believed only once the archive has committed itself to them, or lists
them when asked.

A peer that takes no compressed instance gets none: nothing is decompressed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from gateway.contract import Failure, Header, NeedsHuman, Retryable
from gateway.delivery.archive import Stored
from gateway.delivery.commitment import Commitments, Report, Transaction
from gateway.delivery.report_forms import NEWEST, OLDER
from gateway.dicom.arrival import Watch
from gateway.dicom.association import PENDING, associated, context, exchange, failure_of
from gateway.dicom.part10 import IMPLICIT, MAX_HEADER, NotDicom, read_header
from gateway.dicom.peer import DimsePeer
from gateway.dicom.reading import read_whole
from gateway.dicom.storing import (
    DUPLICATE,
    NO_SUCH_CLASS,
    NO_SUCH_SYNTAX,
    describe,
    describe_all,
    kinds_not_taken,
    may_pass,
)

_STORING, _COMMITTING, _LISTING = "storing results", "committing to results", "listing stored results"
_EXPLICIT = "1.2.840.10008.1.2.1"
_MOST_CONTEXTS = 128

Result = tuple[Path, Header]


async def store(
    peer: DimsePeer,
    files: Sequence[Path],
    study_instance_uid: str,
    commitments: Commitments,
    *,
    plainer: Collection[str] = (),
    same_association: float = 5.0,
    report: float = 60.0,
) -> Stored:
    """Store the files and make sure. `plainer`: there is an older form of these, so that any refusal that
    lasts is one of their kind. `same_association`, `report`: how long the archive has for its report
    before we hang up, and after; without one, it is asked what it has."""
    results = await asyncio.to_thread(_read_headers, files, study_instance_uid)
    if not results:
        return Stored(0, None)

    def work(watch: Watch) -> Stored:
        statuses = _send(peer, results, watch)
        not_taken = kinds_not_taken(statuses, plainer)
        refused = {uid: code for uid, code in statuses.items() if not _taken(code) and uid not in not_taken}
        if refused:
            raise _failure_of(peer, refused, len(results))
        taken = [result for result in results if result[1].sop_instance_uid not in not_taken]
        if not taken:
            return Stored(0, None, not_taken=not_taken)
        remarks = [f"{uid}: {describe(code)}" for uid, code in statuses.items() if code & 0xF000 == 0xB000]
        told = _commit(peer, taken, commitments, same_association, report, watch)
        if told is None or not told.committed | told.failed.keys() >= {
            header.sop_instance_uid for _, header in taken
        }:
            _require_listed(peer, taken, watch)
        elif told.failed:
            raise _failure_of(peer, told.failed, len(results))
        return Stored(len(taken), None, tuple(remarks), not_taken)

    return await exchange(work, peer.limits.transfer)


def _read_headers(files: Sequence[Path], study_instance_uid: str) -> list[Result]:
    results = []
    for file in files:
        with file.open("rb") as opened:
            try:
                header = read_header(opened.read(MAX_HEADER))
            except NotDicom as error:
                raise NeedsHuman(
                    f"a result is no DICOM instance ({error})", "Ask the vendor what it has returned."
                ) from error
        if header is None:
            raise NeedsHuman(
                "a result is a cut-off DICOM instance", "Have the vendor's result fetched again."
            )
        if header.study_instance_uid != study_instance_uid:
            raise NeedsHuman(
                "a result belongs to another study than the job's; nothing was stored",
                "Compare the vendor's result with the patient before anything else is done.",
            )
        results.append((file, header))
    return results


def _send(peer: DimsePeer, results: Sequence[Result], watch: Watch) -> dict[str, int]:
    """By SOP instance UID, the status that the archive gives."""
    wanted = {(header.sop_class_uid, header.transfer_syntax_uid) for _, header in results}
    if any(sop_class == NEWEST.sop_class for sop_class, _ in wanted):
        # Or there would be no association at all with an archive that takes just these.
        wanted |= {(older, _EXPLICIT) for older in OLDER}
    wanted |= {(sop_class, IMPLICIT) for sop_class, syntax in wanted if syntax == _EXPLICIT}
    contexts = [context(sop_class, [syntax]) for sop_class, syntax in sorted(wanted)][:_MOST_CONTEXTS]
    statuses: dict[str, int] = {}
    with associated(peer, contexts, _STORING, watch) as association:
        offered = {
            (str(accepted.abstract_syntax), str(accepted.transfer_syntax[0]))
            for accepted in association.accepted_contexts
        }
        for number, (file, header) in enumerate(results):
            sent = _as_taken(file, header, offered)
            if isinstance(sent, int):
                statuses[header.sop_instance_uid] = sent
                continue
            answer = association.send_c_store(sent, msg_id=number % 65535 + 1)
            if answer.get("Status") is None:
                raise Retryable(
                    f"the {peer.name} broke off, or did not answer in time, while {_STORING}"
                    f" ({len(statuses)} of {len(results)} were taken)",
                    "Check its load and its log, and the network between it and this machine.",
                    uncertain=True,
                )
            statuses[header.sop_instance_uid] = answer.Status
    return statuses


def _as_taken(file: Path, header: Header, offered: set[tuple[str, str]]) -> Path | Dataset | int:
    """The file as it is; where the archive knows uncompressed results in implicit VR alone, those anew; the
    reason, where it doesn't take such."""
    if (header.sop_class_uid, header.transfer_syntax_uid) in offered:
        return file
    if header.transfer_syntax_uid == _EXPLICIT and (header.sop_class_uid, IMPLICIT) in offered:
        return read_whole(file)
    return NO_SUCH_SYNTAX if header.sop_class_uid in dict(offered) else NO_SUCH_CLASS


def _taken(code: int) -> bool:
    return code in (0x0000, DUPLICATE) or code & 0xF000 == 0xB000


def _failure_of(peer: DimsePeer, refused: Mapping[str, int], count: int) -> Failure:
    reasons = describe_all(refused.values())
    message = f"the {peer.name} refused {len(refused)} of {count} results: {reasons}"
    if may_pass(refused.values()):
        return Retryable(message, "If this goes on, look into the archive's log and its disk.")
    return NeedsHuman(
        message,
        "Have the archive accept these results, then resume the job.",
        detail={"refused": {uid: describe(code) for uid, code in refused.items()}},
    )


def _commit(
    peer: DimsePeer,
    results: Sequence[Result],
    commitments: Commitments,
    same_association: float,
    later: float,
    watch: Watch,
) -> Report | None:
    """None: the archive doesn't offer it, or hasn't reported in time."""
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = [_reference(header) for _, header in results]

    def heard(event: Any) -> tuple[int, None]:
        commitments.report(event.event_information)
        return 0x0000, None

    with commitments.expect(str(request.TransactionUID)) as transaction:
        try:
            asked = _ask(peer, request, transaction, heard, same_association, watch)
        except Failure:
            return None  # it doesn't offer it, or not now: the results are stored, so it is asked for them
        return transaction.wait(later, watch) if asked else None


def _ask(
    peer: DimsePeer,
    request: Dataset,
    transaction: Transaction,
    heard: Callable[[Any], tuple[int, None]],
    patience: float,
    watch: Watch,
) -> bool:
    with associated(
        peer,
        [context(StorageCommitmentPushModel)],
        _COMMITTING,
        watch,
        handlers=[(evt.EVT_N_EVENT_REPORT, heard)],
    ) as association:
        status, _ = association.send_n_action(
            request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if status.get("Status") != 0x0000:
            return False
        transaction.wait(patience, watch)
        return True


def _reference(header: Header) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.sop_class_uid
    reference.ReferencedSOPInstanceUID = header.sop_instance_uid
    return reference


def _require_listed(peer: DimsePeer, results: Sequence[Result], watch: Watch) -> None:
    lacking = []
    with associated(
        peer, [context(StudyRootQueryRetrieveInformationModelFind)], _LISTING, watch
    ) as association:
        for _, header in results:
            if not _listed(association, peer, header):
                lacking.append(header.sop_instance_uid)
    if lacking:
        raise Retryable(
            f"the {peer.name} took {len(results)} results and doesn't have {len(lacking)} of them",
            "It may still be taking them in; if this goes on, look into its log.",
        )


def _listed(association: Any, peer: DimsePeer, header: Header) -> bool:
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = header.study_instance_uid
    keys.SeriesInstanceUID = header.series_instance_uid
    keys.SOPInstanceUID = header.sop_instance_uid
    found = False
    for status, item in association.send_c_find(keys, StudyRootQueryRetrieveInformationModelFind):
        code = status.get("Status")
        if code in PENDING:
            found = found or (item is not None and str(item.get("SOPInstanceUID")) == header.sop_instance_uid)
        elif code != 0x0000:
            raise failure_of(peer, _LISTING, status)
    return found
