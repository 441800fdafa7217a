"""What Milvue says in JSON of a study that is done: findings, measures, a ready HL7 message, a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from adapters.milvue.results import Unknown
from gateway.contract import Finding

ROUTES = ("smarturgences", "smartxpert")

Number = Annotated[float, Field(allow_inf_nan=False)]
Pair = tuple[Number, Number]
_UNREMARKABLE = ("normal", "unknown", "out_scope")


class _Flag(BaseModel):
    label: str | None = None
    score: Number | None = None


class _Seen(_Flag):
    value: str = ""
    translation: Mapping[str, str | None] | None = None


class _Box(_Flag):
    value: str = ""
    top_left: Pair
    bottom_right: Pair


class _Measure(BaseModel):
    type: str = "measure"
    value: str | Number | None = None
    measure: str | Number | None = None
    unit: str | None = None
    lines: list[tuple[Number, Number, Number, Number]] = []


class _Image(BaseModel):
    SOPInstanceUID: str
    bounding_boxes: list[_Box] | None = None
    measures: list[_Measure] | None = None


class _Region(BaseModel):
    region: str | None = None
    items: list[str] | None = None


class _Report(BaseModel):
    title: str | None = None
    techniques: list[str] | None = None
    results: list[_Region] | None = None


class _Said(BaseModel):
    """Without what makes it a result, nobody knows whether there is one."""

    version: str | Number | None = None
    flag: _Flag | None = None
    hl7: str | None = None
    findings: list[_Seen] | None = None
    instances: list[_Image]
    report: _Report | None = None


class _Verdict(_Flag):
    label: str


class _Urgences(_Said):
    flag: _Verdict
    findings: list[_Seen]


@dataclass(frozen=True)
class Reading:
    summary: str = ""
    findings: tuple[Finding, ...] = ()
    properties: Mapping[str, str | int | float] = field(default_factory=dict)
    hl7: str | None = None
    report_title: str = ""
    report: str | None = None
    version: str = ""
    objects: int = 0  # that came beside

    @property
    def is_empty(self) -> bool:
        told = self.summary or self.findings or self.properties or self.hl7 or self.report
        return not (told or self.objects)


def read_findings(said: dict[str, Any], command: str, language: str) -> Reading:
    try:
        told = (_Urgences if command == "smarturgences" else _Said).model_validate(said)
    except ValidationError:
        raise Unknown(
            f"Milvue's findings of {command} don't have the shape they should have",
            "If it stays so, ask Milvue's support whether the interface has changed.",
        ) from None
    names = {seen.value: _name(seen, language) for seen in told.findings or ()}
    findings: list[Finding] = []
    boxed: set[str] = set()
    for image in told.instances:
        for box in image.bounding_boxes or ():
            boxed.add(box.value)
            if box.label not in _UNREMARKABLE:
                findings.append(
                    _mark(box, names.get(box.value) or box.value or command, image.SOPInstanceUID)
                )
        for measure in image.measures or ():
            findings.extend(_draw(measure, image.SOPInstanceUID))
    for seen in told.findings or ():
        if seen.label not in _UNREMARKABLE and seen.value not in boxed:
            label = _doubtful(names[seen.value] or command, seen)
            findings.append(Finding(label=label, shape="none", score=seen.score))
    return Reading(
        summary=_summarise(told, findings),
        findings=tuple(findings),
        properties=_list_properties(told, command, names),
        hl7=told.hl7 or None,
        report_title=(told.report.title if told.report else None) or f"Milvue {command}",
        report=_write_report(told.report) if told.report else None,
        version=str(told.version or ""),
    )


def _name(seen: _Seen, language: str) -> str:
    translation = seen.translation or {}
    return translation.get(language) or translation.get("en") or seen.value


def _doubtful(name: str, flag: _Flag) -> str:
    return f"{name} (doubt)" if flag.label == "doubt" else name


def _mark(box: _Box, name: str, sop_instance_uid: str) -> Finding:
    return Finding(
        label=_doubtful(name, box),
        shape="box",
        points=(box.top_left, box.bottom_right),
        sop_instance_uid=sop_instance_uid,
        score=box.score,
    )


def _draw(measure: _Measure, sop_instance_uid: str) -> list[Finding]:
    """One polyline for each line, the first with the measured text. Which of `value` and `measure` is the
    name and which the number differs: the number is the one that is a number."""
    number, name = measure.measure, measure.value
    if isinstance(name, float) and not isinstance(number, float):
        number, name = name, number
    amount = f"{number:g}" if isinstance(number, float) else str(number or "")
    text = amount + ("" if not measure.unit else measure.unit if measure.unit == "°" else f" {measure.unit}")
    label = name if isinstance(name, str) and name else measure.type
    lines = [((x1, y1), (x2, y2)) for x1, y1, x2, y2 in measure.lines]
    if not lines:
        return [Finding(label, "none", sop_instance_uid=sop_instance_uid, measure=text)]
    return [
        Finding(label, "polyline", line, sop_instance_uid, measure=None if place else text)
        for place, line in enumerate(lines)
    ]


def _summarise(told: _Said, findings: list[Finding]) -> str:
    counts = Counter(finding.label for finding in findings if finding.shape in ("box", "none"))
    counts.update(finding.label for finding in findings if finding.shape == "polyline" and finding.measure)
    seen = ", ".join(label if count == 1 else f"{label} ×{count}" for label, count in counts.items())
    flag = told.flag.label if told.flag and told.flag.label else ""
    return f"{flag} ({seen})" if flag and seen else flag or seen


def _list_properties(told: _Said, command: str, names: Mapping[str, str]) -> dict[str, str | int | float]:
    properties: dict[str, str | int | float] = {}
    if told.flag and told.flag.label:
        properties[command] = told.flag.label
    if told.flag and told.flag.score is not None:
        properties[f"{command} score"] = told.flag.score
    for seen in sorted(told.findings or (), key=_how_bad):
        if seen.label:
            properties[names[seen.value] or seen.value] = seen.label
    return properties


def _how_bad(seen: _Seen) -> int:
    """One kind may be listed several times: the worst of them counts, which is written last."""
    return ("normal", "out_scope", "unknown", None, "doubt", "abnormal").index(
        seen.label if seen.label in (*_UNREMARKABLE, "doubt", "abnormal") else None
    )


def _write_report(report: _Report) -> str:
    lines = [report.title or "", *(report.techniques or ())]
    for part in report.results or ():
        lines += ["", part.region or "", *(f"- {item}" for item in part.items or ())]
    return "\n".join(lines).strip() + "\n"
