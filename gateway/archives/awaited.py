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
from gateway.dicom.arrival import Arrival, Staging, Watch


class Expectation:
    """One retrieval of one study; what comes of it without being wanted is let go."""

    def __init__(
        self, study_instance_uid: str, folder: Path, wanted: frozenset[str], watch: Watch, message_id: int = 0
    ) -> None:
        self.study_instance_uid = study_instance_uid
        self.message_id = message_id
        self._folder = folder
        self._missing = set(wanted)
        self._watch = watch

    @property
    def complete(self) -> bool:
        return not self._missing

    def take(self, header: Header, path: Path) -> None:
        self._watch.sign()
        uid = header.sop_instance_uid
        if uid in self._missing:
            with suppress(FileExistsError):  # sent twice: the first is as good
                os.link(path, file_of(self._folder, uid))
            self._missing.discard(uid)


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
        self, study_instance_uid: str, folder: Path, wanted: frozenset[str], watch: Watch
    ) -> Iterator[Expectation]:
        with self._lock:
            number = next(one for one in self._numbers if one not in self._expected)
            expectation = Expectation(study_instance_uid, folder, wanted, watch, number)
            self._expected[number] = expectation
        try:
            yield expectation
        finally:
            with self._lock:
                del self._expected[number]

    def place(self, arrival: Arrival, header: Header) -> bool:
        """Whether somebody waits for it. An archive that names the request is believed; else whoever waits
        for that study gets it, and several may."""
        with self._lock:
            study = [
                one for one in self._expected.values() if one.study_instance_uid == header.study_instance_uid
            ]
        named = [one for one in study if one.message_id == arrival.origin.message_id]
        ours = arrival.origin.ae_title in (None, self.ae_title)
        takers = (ours and named) or study
        for one in takers:
            one.take(header, arrival.path)
        return bool(takers)


def file_of(folder: Path, sop_instance_uid: str) -> Path:
    return folder / f"{sop_instance_uid}.dcm"
