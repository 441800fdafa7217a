"""What is true of studies, as a list of them says it, line by line: which study, and each finding that it has
or hasn't. Pure.

    study_instance_uid,accession_number,patient_id,fracture,effusion,sex
    1.2.840.1,,,yes,no,F
    ,A123,P7,no,,

A study is named by its UID, or by its accession number (and the patient's id, where the number alone isn't
enough). Every other column is a finding, as the vendor calls it; one that is called `truth` means any finding
at all. Columns called modality, device, sex and age say so in place of the study's images.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.jobs.records import digest_of
from gateway.watch.accuracy import GROUPED_BY
from gateway.watch.concordance import ANY
from gateway.work.shadowing import name_of
from gateway.work.strata import age_group

_STUDY = ("study", "study_uid", "study_instance_uid", "studyinstanceuid")
_ACCESSION = ("accession", "accession_number", "accessionnumber")
_PATIENT = ("patient", "patient_id", "patientid")
_ANY = ("truth", ANY)
_YES = frozenset(("1", "yes", "y", "true", "positive", "pos", "+", "present"))
_NO = frozenset(("0", "no", "n", "false", "negative", "neg", "-", "absent"))
_OPEN = frozenset(("", "?", "unknown"))
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


class Unclear(Exception):
    """What is wrong with the list, a sentence for each line."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(f"{len(sentences)} sentences")
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class Listed:
    """One study. `of`: what the list itself says of its modality and so on."""

    study_instance_uid: str
    accession_number: str
    patient_id: str
    truth: Mapping[str, bool]
    of: Mapping[str, str]

    def __repr__(self) -> str:
        return "Listed()"

    def key(self, name: str) -> str:
        """The same whenever it is listed in a trial of that name."""
        return digest_of([name, self.study_instance_uid, self.accession_number, self.patient_id])


def read_truth(text: str) -> tuple[list[str], list[Listed]]:
    """The findings in their order, and the studies; raises Unclear."""
    lines = text.removeprefix("\ufeff").splitlines()
    first = next((line for line in lines if line.strip()), "")
    parts = max(",;\t", key=first.count)
    rows = csv.reader(lines, delimiter=parts)
    columns = [
        " ".join(each.split())
        for each in next((row for row in rows if any(each.strip() for each in row)), [])
    ]
    kinds = [_kind_of(each) for each in columns]
    if wrong := list(_judge_columns(columns, kinds)):
        raise Unclear(wrong)
    studies: list[Listed] = []
    seen: dict[str, int] = {}
    for row in rows:
        if not any(each.strip() for each in row):
            continue
        told, sentences = _read(row, columns, kinds)
        before = seen.setdefault(told.key(""), rows.line_num)
        if before != rows.line_num and not sentences:
            sentences = [f"names the same study as line {before}"]
        wrong += [f"line {rows.line_num}: {sentence}" for sentence in sentences]
        studies.append(told)
    if not studies:
        wrong.append("no study is listed below the names of the columns")
    if wrong:
        raise Unclear(wrong)
    return [name for kind, name in kinds if kind == "finding"], studies


def _kind_of(column: str) -> tuple[str, str]:
    plain = column.casefold().replace(" ", "_")
    for kind, names in (("study", _STUDY), ("accession", _ACCESSION), ("patient", _PATIENT)):
        if plain in names:
            return kind, kind
    if plain in GROUPED_BY:
        return "of", plain
    return "finding", ANY if column.casefold() in _ANY else name_of(column)


def _judge_columns(columns: Sequence[str], kinds: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not columns:
        yield "the list is empty: its first line names the columns"
        return
    if not {"study", "accession"} & {kind for kind, _ in kinds}:
        yield "line 1: no column names the study: study_instance_uid, or accession_number"
    if not any(kind == "finding" for kind, _ in kinds):
        yield "line 1: no column is a finding, or truth for any at all"
    for place, kind in enumerate(kinds):
        if not columns[place]:
            yield f"line 1: column {place + 1} has no name"
        elif kind in kinds[:place]:
            yield f"line 1: column {place + 1} is the same as column {kinds.index(kind) + 1}"


def _read(
    row: Sequence[str], columns: Sequence[str], kinds: Sequence[tuple[str, str]]
) -> tuple[Listed, list[str]]:
    named = {"study": "", "accession": "", "patient": ""}
    truth: dict[str, bool] = {}
    of: dict[str, str] = {}
    wrong = []
    if len(row) != len(columns):
        wrong.append(f"{len(row)} values for {len(columns)} columns")
    for column, (kind, name), raw in zip(columns, kinds, row, strict=False):
        value = raw.strip()
        if kind in named:
            named[kind] = value
        elif kind == "of":
            group = age_group(value) if name == "age" else value
            if value and group:
                of[name] = group
            elif value:
                wrong.append(f"{column} isn't an age in years")
        elif value.casefold() in _YES | _NO:
            truth[name] = value.casefold() in _YES
        elif value.casefold() not in _OPEN:
            wrong.append(f"{column} is neither yes nor no, nor empty where nobody knows")
    if not named["study"] and not named["accession"] and not wrong:
        wrong.append("names no study: neither its UID nor its accession number")
    if named["study"] and (len(named["study"]) > 64 or not _UID.fullmatch(named["study"])):
        wrong.append("the study's UID is none: numbers and dots, 64 at the most")
    return Listed(named["study"], named["accession"], named["patient"], truth, of), wrong
