"""The kinds of structured report that the gateway's own may leave as: the newest, and older ones for archives
that refuse it. Its regions lie in images, never in space, so that each of them holds it whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.delivery.objects import follow_up, make_uid
from gateway.dicom.reading import read_whole

_ROOT = "1.2.840.10008.5.1.4.1.1.88"


@dataclass(frozen=True, slots=True)
class Form:
    name: str
    sop_class: str

    def uid_of(self, job_id: str) -> str:
        """Of another kind, it is another object."""
        words = () if self is NEWEST else (self.sop_class,)
        return make_uid(job_id, "report", *words)


NEWEST = Form("Comprehensive 3D SR", f"{_ROOT}.34")
FORMS = (NEWEST, Form("Comprehensive SR", f"{_ROOT}.33"), Form("Enhanced SR", f"{_ROOT}.22"))
OLDER = frozenset(form.sop_class for form in FORMS[1:])


def restate(report: Path, form: Form, job_id: str, predecessor: str, into: Path) -> Path:
    """The newest kind's as one of another. `predecessor`: of that kind too, if there is one."""
    from pydicom import dcmwrite
    from pydicom.uid import UID

    dataset = read_whole(report)
    meta = dataset.file_meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID = UID(form.sop_class)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID(form.uid_of(job_id))
    if predecessor:
        follow_up(dataset, predecessor)
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    dcmwrite(into / report.name, dataset, enforce_file_format=True)
    return into / report.name
