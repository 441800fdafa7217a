"""The words of a message to the RIS, by a template of the department's own (Jinja).

It may use: application, manufacturer, summary, empty, findings (each with label, score, measure), properties,
and subject (patient_id, patient_name, birth_date, sex, accession_number, study_instance_uid, study_date,
study_time, study_description). A template that begins with MSH is the whole message: its values are escaped
as they are put in, the patient's name has its components in HL7's order, and a birth date that HL7 can't tell
is empty. Any other is the text of the observation.
"""

from __future__ import annotations

from dataclasses import replace

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.contract import Finding, Finished, NeedsHuman
from gateway.delivery.hl7 import Addressing, birth_date_of, escape, name_of, readdress
from gateway.dicom.subject import Subject

PLAIN = """\
{{ application }}: {{ summary }}
{% for finding in findings %}
- {{ finding.label }}{% if finding.measure %}: {{ finding.measure }}{% endif %}\
{% if finding.score is not none %} ({{ '%.2f' % finding.score }}){% endif %}

{% endfor %}
"""
_SAMPLE = Finished(
    summary="abnormal",
    findings=(
        Finding("Fracture", "box", ((1.0, 2.0), (3.0, 4.0)), "1.2.3.4", 0.91),
        Finding("axis", "polyline", ((1.0, 2.0), (3.0, 4.0)), "1.2.3.4", measure="12.5°"),
    ),
)
_SOMEBODY = Subject("1", "1.2.3", "Family^Given", "19700101", "O", "A1", "", "20260101", "120000", "Hand")
_IN_A_TEMPLATE = (
    *(TemplateError, TypeError, ValueError, ArithmeticError, LookupError),
    *(AttributeError, RecursionError, MemoryError),
)


class BadTemplate(ValueError):
    """One sentence: where it is wrong."""


class Wording:
    def __init__(self, source: str = PLAIN) -> None:
        self.whole = source.lstrip().startswith("MSH")
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # it isn't HTML; a whole message escapes as HL7 does
            finalize=_escape_value if self.whole else None,
        )
        try:
            self._template = environment.from_string(source.strip())
            tried = self._render(_SAMPLE, _SOMEBODY, "Application", "Maker")
            if self.whole:
                readdress(tried, _SOMEBODY, Addressing(), "")
        except TemplateSyntaxError as error:
            raise BadTemplate(f"line {error.lineno} of the template: {error.message}") from None
        except NeedsHuman as failure:
            raise BadTemplate(f"the template: {failure.message}") from None
        except _IN_A_TEMPLATE as error:
            raise BadTemplate(f"the template can't be filled in: {error}") from None

    def fill(self, finished: Finished, subject: Subject, application: str, manufacturer: str) -> str:
        try:
            return self._render(finished, subject, application, manufacturer)
        except _IN_A_TEMPLATE as error:
            raise NeedsHuman(
                f"the department's HL7 template can't be filled in for this result ({type(error).__name__})",
                "Mend departments.….hl7.template, restart, then resume the job.",
            ) from None

    def _render(self, finished: Finished, subject: Subject, application: str, manufacturer: str) -> str:
        if self.whole:
            name, birth = _Escaped(name_of(subject)), birth_date_of(subject)
            subject = replace(subject, patient_name=name, birth_date=birth)
        return self._template.render(
            application=application,
            manufacturer=manufacturer,
            summary=finished.summary,
            empty=finished.empty,
            findings=finished.findings,
            properties=finished.properties,
            subject=subject,
        )


class _Escaped(str):
    """What is HL7 already."""

    __slots__ = ()


def _escape_value(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, _Escaped):
        return escape(value)
    return "" if value is None else value
