"""Where instances that an archive sends on our request belong: each retrieval says what it waits for, and
finds it in its folder. The storage service asks here for each one that arrives."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

from gateway.contract import Header
from gateway.dicom.arrival import Arrival, Origin, Watch
from gateway.dicom.staging import Staging


class Expectation:
    """One retrieval of one study."""

    def __init__(
        self,
        study_instance_uid: str,
        folder: Path,
        wanted: frozenset[str],
        listed: frozenset[str],
        watch: Watch,
        message_id: int = 0,
    ) -> None:
        self.study_instance_uid = study_instance_uid
        self.message_id = message_id
        self._folder = folder
        self._wanted = wanted
        self._listed = listed
        self._missing = set(wanted)
        self._unlisted: set[str] = set()
        self._watch = watch

    @property
    def complete(self) -> bool:
        return not self._missing

    @property
    def unlisted(self) -> int:
        """How many came of the study that the archive had said nothing of."""
        return len(self._unlisted)

    def take(self, header: Header, path: Path) -> bool:
        """Whether it is wanted; what isn't is let go."""
        self._watch.sign()
        uid = header.sop_instance_uid
        if uid in self._missing:
            with suppress(FileExistsError):  # sent twice: the first is as good
                os.link(path, file_of(self._folder, uid))
            self._missing.discard(uid)
        if uid not in self._listed:
            self._unlisted.add(uid)
        return uid in self._wanted


class Awaited:
    """`ae_title` is what archives are told to send to; `staging` lies on the spool's file system."""

    def __init__(self, ae_title: str, staging: Staging) -> None:
        self.ae_title = ae_title
        self.staging = staging
        self._expected: dict[int, Expectation] = {}
        self._numbers = cycle(range(1, 65536))
        self._lock = threading.Lock()

    @contextmanager
    def expect(
        self,
        study_instance_uid: str,
        folder: Path,
        wanted: frozenset[str],
        listed: frozenset[str],
        watch: Watch,
    ) -> Iterator[Expectation]:
        with self._lock:
            number = next(number for number in self._numbers if number not in self._expected)
            expectation = Expectation(study_instance_uid, folder, wanted, listed, watch, number)
            self._expected[number] = expectation
        try:
            yield expectation
        finally:
            with self._lock:
                del self._expected[number]

    def is_named(self, origin: Origin) -> bool:
        """Whether the sender says that it answers a request of ours."""
        with self._lock:
            return origin.ae_title == self.ae_title and origin.message_id in self._expected

    def place(self, arrival: Arrival, header: Header) -> bool:
        """Whether it was sent for somebody who waits for it. An archive that names the request is believed,
        also with more than was asked for; else whoever wants that instance gets it, and several may."""
        with self._lock:
            study = [
                each
                for each in self._expected.values()
                if each.study_instance_uid == header.study_instance_uid
            ]
        named = [each for each in study if each.message_id == arrival.origin.message_id]
        if arrival.origin.ae_title == self.ae_title and named:
            for each in named:
                each.take(header, arrival.path)
            return True
        ours = arrival.origin.ae_title in (None, self.ae_title)
        taken = [each.take(header, arrival.path) for each in ((ours and named) or study)]
        return any(taken)


def file_of(folder: Path, sop_instance_uid: str) -> Path:
    return folder / f"{sop_instance_uid}.dcm"
