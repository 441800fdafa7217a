"""What a vendor has stored with us for a job, as its adapter finds it below the work folder."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gateway.contract import INBOX, Header, NeedsHuman, Retryable
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import check_whole


@dataclass(frozen=True, slots=True)
class Inbox:
    """`still`: seconds since the last one came."""

    files: tuple[Path, ...]
    still: float

    def describe(self, study_instance_uid: str) -> str:
        """How many of which kind; raises for one of another study, and for one that can't be read."""
        headers = [_look_into(path) for path in self.files]
        if any(one.study_instance_uid != study_instance_uid for one in headers):
            raise NeedsHuman(
                "the vendor returned a result for another study",
                "It isn't delivered. Find out at the vendor whose it is, then cancel or retry the job.",
            )
        kinds = Counter(one.modality or "unknown" for one in headers)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def look_into(work: Path) -> Inbox:
    files = tuple(sorted((work / INBOX).glob("*.dcm")))
    last = max((path.stat().st_mtime for path in files), default=0.0)
    return Inbox(files, max(0.0, time.time() - last))


def _look_into(path: Path) -> Header:
    try:
        return check_whole(path)
    except (OSError, NotDicom):
        raise Retryable("a result of the vendor can't be read", "Have the vendor send it again.") from None
