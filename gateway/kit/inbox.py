"""What a vendor has stored with us for a job, as its adapter finds it below the work folder."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.contract import INBOX, Finished, Header, NeedsHuman, Pending, Retryable, Ticket
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import check_whole
from gateway.kit.options import AwaitedOptions
from gateway.kit.polling import more_to_come, nothing_yet


@dataclass(frozen=True, slots=True)
class Inbox:
    """`still`: seconds since the last one came."""

    files: tuple[Path, ...]
    still: float

    def describe(self, study_instance_uid: str) -> str:
        """How many of which kind; raises for one of another study, and for one that can't be read."""
        headers = [_look_into(path) for path in self.files]
        if any(header.study_instance_uid != study_instance_uid for header in headers):
            raise NeedsHuman(
                "the vendor returned a result for another study",
                "It isn't delivered. Find out at the vendor whose it is, then cancel or retry the job.",
            )
        return count_kinds(header.modality for header in headers)


def look_into(work: Path) -> Inbox:
    files = tuple(sorted((work / INBOX).glob("*.dcm")))
    last = max((path.stat().st_mtime for path in files), default=0.0)
    return Inbox(files, max(0.0, time.time() - last))


async def wait_for_quiet(
    work: Path, ticket: Ticket, options: AwaitedOptions, study_instance_uid: str
) -> Pending | Finished:
    """A vendor's results, once no more come."""
    inbox = await asyncio.to_thread(look_into, work)
    if not inbox.files:
        return nothing_yet(ticket, options)
    wait = more_to_come(ticket, options, len(inbox.files), inbox.still)
    if wait is not None:
        return wait
    said = await asyncio.to_thread(inbox.describe, study_instance_uid)
    return Finished(f"The vendor returned {said}.", dicom=inbox.files)


def count_kinds(modalities: Iterable[str]) -> str:
    kinds = Counter(modality or "unknown" for modality in modalities)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _look_into(path: Path) -> Header:
    try:
        return check_whole(path)
    except (OSError, NotDicom):
        raise Retryable("a result of the vendor can't be read", "Have the vendor send it again.") from None
