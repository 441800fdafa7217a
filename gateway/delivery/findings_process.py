"""Makes DICOM objects of findings: python -m gateway.delivery.findings_process FOLDER, a process for one job.

In the folder lie request.json, header.dcm (the study as one of its instances says) and the images that
findings name. At the end answer.json tells what was made and what couldn't be, or what broke; it holds
nobody's data.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from gateway.contract import Finding
from gateway.delivery.capture import NotDrawable, draw_capture
from gateway.delivery.objects import Maker
from gateway.delivery.shapes import finding_of, words
from gateway.dicom.reading import read_before, read_whole
from gateway.logs import places_of

_DIE_WITH_PARENT = 1


def make(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    maker, at = Maker(**request["maker"]), datetime.fromisoformat(request["at"])
    findings = [finding_of(finding) for finding in request["findings"]]
    header = read_before(folder / "header.dcm")
    paths = [folder / name for name in request["images"]]
    headers = [read_before(path) for path in paths]
    images = {str(image.SOPInstanceUID): image for image in headers}
    made, remarks = _draw_all(folder, paths, findings, maker, at)
    from gateway.delivery.report import write_report  # 2 s and 200 MB, after the pictures have gone

    try:
        report = write_report(header, images, findings, request["summary"], maker, at)
        made.insert(0, _save(folder, "report.dcm", report))
    except Exception as error:  # whatever it is, the pictures are there
        if not made:
            raise
        remarks.append(f"no report could be made ({type(error).__name__})")
    return {"objects": made, "remarks": remarks}


def _draw_all(
    folder: Path, paths: list[Path], findings: list[Finding], maker: Maker, at: datetime
) -> tuple[list[str], list[str]]:
    made: list[str] = []
    remarks: list[str] = []
    everywhere = [words(finding) for finding in findings if finding.sop_instance_uid is None]
    images = {str(read_before(path, keywords=["SOPInstanceUID"]).SOPInstanceUID): path for path in paths}
    drawn_on = dict.fromkeys((f.sop_instance_uid, f.frame) for f in findings if f.sop_instance_uid in images)
    for number, (uid, frame) in enumerate(drawn_on, 1):
        here = [finding for finding in findings if (finding.sop_instance_uid, finding.frame) == (uid, frame)]
        notes = [maker.display_name, *(everywhere if number == 1 else ())]
        try:
            image = read_whole(images[uid or ""])
            capture = draw_capture(image, here, notes, maker, at, number, frame)
        except NotDrawable as error:
            remarks.append(f"image {number} has no drawing: {error}")
        else:
            made.append(_save(folder, f"capture-{number:04d}.dcm", capture))
    return made, remarks


def _save(folder: Path, name: str, dataset: Dataset) -> str:
    pydicom.dcmwrite(folder / name, dataset, enforce_file_format=True)
    return name


def main() -> None:
    folder = Path(sys.argv[1])
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # nobody else would read the answer
    warnings.simplefilter("ignore")  # pydicom's quote values
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    try:
        answer = make(folder, request)
    except Exception as error:  # noqa: BLE001 (its words may be a patient's; the kind and the place are told)
        answer = {"trouble": type(error).__name__, "places": places_of(error)[-4:]}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
