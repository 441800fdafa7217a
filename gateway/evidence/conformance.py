"""The DICOM Conformance Statement, in the outline of PS3.2 Annex N. Its classes, roles, transfer syntaxes and
limits are those of the code; a test has dcmtk negotiate them."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from gateway import __version__
from gateway.archives.archive import STUDY_KEYS
from gateway.archives.dimse import MOST_QUERIES, MOST_TRANSFERS, TRANSFER_SYNTAXES, USUAL_CLASSES
from gateway.dicom import arrival
from gateway.dicom.acceptor import MOST_ASSOCIATIONS, PLAIN, SERVED, Refusal
from gateway.dicom.association import LARGEST_PDU, context
from gateway.dicom.classes import storage_classes
from gateway.dicom.peer import Limits
from gateway.dicom.web import ACCEPT_DICOM, ACCEPT_JSON, ACCEPT_PLAIN
from gateway.evidence.page import write_page
from gateway.intake.stow import MOST_INSTANCES
from gateway.settings.sections import Dimse

_MATCHED = ("StudyInstanceUID", "AccessionNumber", "PatientID")
_MODELS = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)


def write() -> str:
    entity = AE()
    return write_page(
        "conformance.md",
        version=__version__,
        services=_services(),
        web=[
            ("Studies Service, Store (STOW-RS)", "yes", "yes"),
            ("Studies Service, Retrieve (WADO-RS)", "yes", "no"),
            ("Studies Service, Search (QIDO-RS)", "yes", "no"),
        ],
        accepted=_accepted(),
        plain=_syntaxes_of(Verification),
        preferred=" before ".join(map(_name, PLAIN)),
        statuses=[(f"{status:04X}", meaning) for status, meaning in _STATUSES.items()],
        refusals=_REFUSALS,
        proposed=_proposed(),
        keys=[(keyword, "matched" if keyword in _MATCHED else "asked for") for keyword in STUDY_KEYS],
        limits=Limits(),
        queries=MOST_QUERIES,
        transfers=MOST_TRANSFERS,
        json=ACCEPT_JSON,
        as_stored=ACCEPT_DICOM,
        decoded=ACCEPT_PLAIN,
        instances=MOST_INSTANCES,
        ours=Dimse(),
        largest_pdu=LARGEST_PDU,
        associations=MOST_ASSOCIATIONS,
        entity=entity,
        written_by=arrival.IMPLEMENTATION,
        classes=[(name or "(retired)", uid) for uid, name in storage_classes().items()],
        usual_classes=map(_named, USUAL_CLASSES),
        transfer_syntaxes=map(_named, TRANSFER_SYNTAXES),
    )


_STATUSES = {
    arrival.SUCCESS: "the instance is whole, and on the disk",
    arrival.PROCESSING_FAILURE: "a fault of the gateway; it is in its log",
    arrival.NOT_AUTHORISED: "this peer may not send this, or nobody here waits for it",
    arrival.OUT_OF_RESOURCES: "no room for it, or what keeps it is broken or away: send it again later",
    arrival.MISMATCH: "another instance than announced, or of another study",
    arrival.NOT_UNDERSTOOD: "cut off, or no DICOM",
}
_REFUSALS = [
    (
        "calling AE title not recognised",
        f"permanent, user, {Refusal.CALLING:d}",
        "no peer has it and calls from there",
    ),
    ("called AE title not recognised", f"permanent, user, {Refusal.CALLED:d}", "nobody here has it"),
    ("local limit exceeded", "transient, provider, 2", "there are as many associations as there may be"),
]


def _services() -> list[Sequence[str]]:
    """What the gateway itself is."""
    rows: list[Sequence[str]] = [("Storage: all of annex A, and private classes", "annex A", "yes", "yes")]
    for uid in (*SERVED, *_MODELS):
        rows.append((*_named(uid), "yes", "yes" if uid == Verification else "no"))
    return rows


def _accepted() -> list[Sequence[str]]:
    """What whoever calls may be; by default, the one who uses the service."""
    rows: list[Sequence[str]] = [("Storage: all of annex A, and private classes", "annex A", "yes", "yes")]
    for uid, roles in SERVED.items():
        may = roles or {"scu_role": True, "scp_role": False}
        rows.append((*_named(uid), *("yes" if may[role] else "no" for role in ("scu_role", "scp_role"))))
    return rows


def _proposed() -> list[Sequence[str]]:
    explicit, implicit = map(_name, PLAIN)
    return [
        (_name(Verification), "archive, vendor", _syntaxes_of(Verification)),
        (_name(_MODELS[0]), "archive, vendor", _syntaxes_of(_MODELS[0])),
        *((_name(model), "archive", _syntaxes_of(model)) for model in _MODELS[1:]),
        ("Storage, as SCP of a C-GET", "archive", "each of annex C in a context of its own"),
        ("Storage, as SCU: results", "archive", f"the result's own; {implicit} besides {explicit}"),
        (_name(StorageCommitmentPushModel), "archive", _syntaxes_of(StorageCommitmentPushModel)),
        ("Storage, as SCU: studies", "vendor", "the instance's own"),
    ]


def _syntaxes_of(uid: str) -> str:
    return ", ".join(map(_name, context(uid).transfer_syntax or ()))


def _named(uid: str) -> tuple[str, str]:
    return _name(uid), str(uid)


def _name(uid: str) -> str:
    return UID(uid).name
