"""What the conformance statement says is accepted is what dcmtk gets accepted, and nothing else of the
standard."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary

from gateway.evidence import conformance
from tests.peers import dcmtk
from tests.peers.dicom_samples import write_study
from tests.peers.dimse import AET, Service, service

LOCAL = "127.0.0.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
COMPRESSED, PRIVATE = "1.2.840.10008.1.2.4.203", "1.2.826.0.1.3680043.8.498.1"
STATEMENT = conformance.write()


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("data"), None, {"MODALITY": LOCAL}) as running:
        yield running


def section(title: str) -> str:
    return re.split(r"\n##+ ", STATEMENT.partition(title)[2])[0]


def uids(text: str) -> set[str]:
    return set(re.findall(r"\| (1\.[\d.]+) \|", text))


def negotiate(here: Service, folder: Path, asked: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By SOP class, the transfer syntax that storescu was granted."""
    granted: dict[str, str] = {}
    paths = write_study(folder / "study", 1)
    pairs = list(asked.items())
    for number, part in enumerate(pairs[start : start + 127] for start in range(0, len(pairs), 127)):
        contexts = "\n".join(f"PresentationContext{n} = {uid}\\S{n}" for n, (uid, _) in enumerate(part, 1))
        syntaxes = "\n".join(
            f"[S{n}]\n" + "\n".join(f"TransferSyntax{m} = {each}" for m, each in enumerate(offered, 1))
            for n, (_, offered) in enumerate(part, 1)
        )
        wanted = folder / f"{number}.cfg"
        wanted.write_text(
            f"[[TransferSyntaxes]]\n{syntaxes}\n[[PresentationContexts]]\n[C]\n{contexts}\n"
            "[[Profiles]]\n[P]\nPresentationContexts = C\n"
        )
        told = subprocess.run(
            [
                *("storescu", "-d", "-xf", str(wanted), "P", "-aet", "MODALITY", "-aec", AET),
                *(LOCAL, str(here.port), str(paths[0])),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env=dcmtk.environment(),
        ).stderr
        answer = told.partition("A-ASSOCIATE-AC")[2]
        assert answer, told
        by_number = {2 * n - 1: uid for n, (uid, _) in enumerate(part, 1)}
        for each in answer.split("Context ID:")[1:]:
            if accepted := re.match(
                r" +(\d+) \(Accepted\).*?Accepted Transfer Syntax: +(\S+)", each, re.DOTALL
            ):
                granted[by_number[int(accepted[1])]] = accepted[2]
    return granted


def test_the_classes_of_the_standard_that_are_accepted(here, tmp_path):
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] in ("SOP Class", "Meta SOP Class")}
    told = uids(section("### 5.1 Accepted associations")) | uids(section("## Annex A"))
    granted = negotiate(here, tmp_path, {uid: [EXPLICIT] for uid in sorted(known | told)})
    assert sorted(set(granted) - told) == [] and sorted(told - set(granted)) == []


def test_the_transfer_syntaxes(here, tmp_path):
    ct, verification, commitment = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"
    asked = {
        ct: [COMPRESSED, IMPLICIT, EXPLICIT],
        f"{ct}.1": [COMPRESSED, PRIVATE],
        "1.2.840.10008.5.1.4.1.1.4": [PRIVATE],
        PRIVATE: [IMPLICIT],
        verification: [COMPRESSED],
        commitment: [COMPRESSED],
    }
    granted = negotiate(here, tmp_path, asked)
    assert "any for Storage" in " ".join(section("### 5.1").split())
    assert granted.keys() == set(asked) - {verification, commitment}
    assert granted[ct] == "=LittleEndianExplicit" and granted[PRIVATE] == "=LittleEndianImplicit"


def test_the_roles(here):
    """As the rows tell, with the programs that have them."""
    rows = dict(re.findall(r"\| (\w+)[^|]*\| \S+ \| (yes|no) \|", section("### 5.1 Accepted associations")))
    assert rows["Verification"] == "yes"
    call = ["-aet", "MODALITY", "-aec", AET, LOCAL, str(here.port)]
    assert subprocess.run(["echoscu", *call], timeout=60, env=dcmtk.environment()).returncode == 0
    asked = subprocess.run(
        ["findscu", "-W", "-k", "0010,0010", *call],
        capture_output=True,
        text=True,
        timeout=60,
        env=dcmtk.environment(),
    )
    assert "No Acceptable Presentation Contexts" in asked.stdout + asked.stderr
