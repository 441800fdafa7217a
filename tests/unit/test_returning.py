"""Results of a vendor that knew nobody's name, led back."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.contract import Document, Finished
from gateway.delivery.destinations import with_document
from gateway.delivery.hl7 import escape
from gateway.dicom.part10 import NotDicom
from gateway.privacy.header import HeaderRewriter
from gateway.privacy.profile import Rules
from gateway.privacy.pseudonyms import DAY, ISSUER, Pseudonyms
from gateway.privacy.returning import SAID_OF_DOCUMENT, UNTOUCHED, WayBack
from gateway.privacy.rewriting import rewrite
from gateway.settings.sections import Profile
from tests.peers.bombs import deflated_bomb
from tests.peers.dicom_kinds import KINDS, Somebody
from tests.peers.dicom_samples import encode
from tests.unit.test_rewriting import KEY, ct, report, sent, sent_bytes, whole, written

MODIFIED: Literal["retain-longitudinal-modified-dates"] = "retain-longitudinal-modified-dates"
OWN_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def way_back() -> tuple[WayBack, Pseudonyms]:
    pseudonyms = Pseudonyms(KEY)
    dataset = ct()
    for uid in (
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
        dataset.SOPInstanceUID,
        "1.2.3.4",
        "1.2.3.5",
    ):
        pseudonyms.uid(uid)
    pseudonyms.patient("PAT-4711", "", "")
    pseudonyms.of("accession", "ACC-9")
    return WayBack({each: original.value for each, original in pseudonyms.unkept().items()}), pseudonyms


async def returned(dataset: Any, tmp_path) -> Any:
    path = tmp_path / "result.dcm"
    path.write_bytes(written(dataset))
    way_back()[0].object(path)
    assert [each.name for each in tmp_path.iterdir()] == ["result.dcm"]
    return dcmread(path)


async def test_an_image_that_went_out_comes_back_as_it_was(tmp_path):
    ours = await returned(await sent(ct()), tmp_path)
    for keyword in (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "PatientID",
        "AccessionNumber",
    ):
        assert ours[keyword].value == ct()[keyword].value, keyword
    assert ours.file_meta.MediaStorageSOPInstanceUID == ct().SOPInstanceUID
    assert str(ours.PatientName) == ""
    assert "PatientIdentityRemoved" not in ours
    assert ours.PixelData == ct().PixelData


async def test_days_that_were_moved_are_the_true_ones_again(tmp_path):
    """Those of the vendor's own work stay."""
    pseudonyms = Pseudonyms(KEY)
    dataset = ct()
    dataset.AcquisitionDateTime, dataset.AcquisitionDate = "20240301101112.5", "20240301"
    pieces = rewrite(whole(written(dataset)), HeaderRewriter(Rules(Profile(options=[MODIFIED])), pseudonyms))
    made = dcmread(BytesIO(b"".join([piece async for piece in pieces])))
    assert "2024" not in f"{made.AcquisitionDateTime}{made.AcquisitionDate}{made.StudyDate}"
    made.ContentDate = "20260601"
    path = tmp_path / "result.dcm"
    path.write_bytes(written(made))
    issued = {each: original.value for each, original in pseudonyms.unkept().items()}
    WayBack({}, {each[len(DAY) :]: day for each, day in issued.items() if each.startswith(DAY)}).object(path)
    ours = dcmread(path)
    assert (ours.AcquisitionDateTime, ours.AcquisitionDate) == ("20240301101112.5", "20240301")
    assert (ours.StudyDate, ours.ContentDate) == (ct().StudyDate, "20260601")


async def test_a_deflated_result_comes_back_deflated(tmp_path):
    before = await sent(ct())
    before.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ours = await returned(before, tmp_path)
    assert ours.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert (ours.PatientID, ours.StudyInstanceUID) == ("PAT-4711", ct().StudyInstanceUID)
    assert ours.PixelData == ct().PixelData


def test_what_only_begins_like_a_deflated_result_is_refused_before_it_fills_the_disk(tmp_path):
    path = tmp_path / "result.dcm"
    for data in (deflated_bomb("1.2.3.4", "1.2.3.5", "1.2.3.6"), deflated_bomb("1.2", "1.3", "1.4")[:2000]):
        path.write_bytes(data)
        with pytest.raises(NotDicom):
            way_back()[0].object(path)
        assert path.read_bytes() == data
        assert [each.name for each in tmp_path.iterdir()] == ["result.dcm"]


async def test_references_and_texts_of_a_report_come_back(tmp_path):
    dataset = await sent(report(), options=["clean-structured-content"], descriptors="replace")
    _, pseudonyms = way_back()
    said = Dataset()
    said.ValueType = "TEXT"
    said.TextValue = f"Of {dataset.PatientID}, see {pseudonyms.uid('1.2.3.4')}."
    dataset.ContentSequence.append(said)
    ours = await returned(dataset, tmp_path)
    assert ours.ContentSequence[3].UID == "1.2.3.5"
    assert ours.ContentSequence[5].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert ours.ContentSequence[-1].TextValue == "Of PAT-4711, see 1.2.3.4."
    assert ours.ContentSequence[-2].TextValue == "A fracture of the ulna"


async def test_what_was_never_issued_stays_and_is_found_out(tmp_path):
    dataset = await sent(ct())
    other = Pseudonyms(b"o" * 32)
    dataset.StudyInstanceUID, dataset.PatientID = other.uid("9.9.9"), other.patient("ANOTHER", "", "")
    ours = await returned(dataset, tmp_path)
    assert (ours.StudyInstanceUID, ours.PatientID) == (dataset.StudyInstanceUID, dataset.PatientID)


def test_texts_and_json_come_back_by_whole_words():
    back, pseudonyms = way_back()
    patient, accession, uid = (
        pseudonyms.patient("PAT-4711", "", ""),
        pseudonyms.of("accession", "ACC-9"),
        pseudonyms.uid("1.2.3.4"),
    )
    assert back.text(f"PID|1||{patient}^^^X|{accession}") == "PID|1||PAT-4711^^^X|ACC-9"
    assert back.text(f"{uid}.7 {uid} 1.{uid} x{patient}") == f"{uid}.7 1.2.3.4 1.{uid} x{patient}"
    assert back.value({"image": uid, "of": [{patient: 1, "at": None}]}) == {
        "image": "1.2.3.4",
        "of": [{"PAT-4711": 1, "at": None}],
    }
    assert WayBack({}).text("anything") == "anything"


async def test_where_several_pixels_are_they_stay(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(await sent_bytes(written(ct())))
    before = dcmread(BytesIO(path.read_bytes())).PixelData
    way_back()[0].object(path)
    assert dcmread(path).PixelData == before
    with pytest.raises(ValueError, match="begin like"):
        path.write_bytes(b"x" * 400)
        way_back()[0].object(path)


async def test_sequences_of_items_come_back_too(tmp_path):
    dataset = await sent(ct())
    item = Dataset()
    item.ReferencedSOPInstanceUID = way_back()[1].uid("1.2.3.4")
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.ReferencedImageSequence = Sequence([item])
    ours = await returned(dataset, tmp_path)
    assert ours.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


WHO = Somebody("Quintarelli^Ottavio", "PAT-4711", "a finding", "Plantoperator^Olaf", "ACC-9")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_object_of_any_kind_refers_to_is_the_patients_again(kind, tmp_path):
    """As a vendor makes it of what it was sent: every UID that was issued, however deep it lies."""
    made = KINDS[kind](WHO)
    made.PatientName, made.PatientID, made.AccessionNumber = WHO.name, WHO.number, WHO.label
    data, pseudonyms = encode(made), Pseudonyms(KEY)

    async def chunks():
        yield data

    profile = Profile(options=["clean-structured-content", "clean-descriptors"], descriptors="replace")
    pieces = rewrite(chunks(), HeaderRewriter(Rules(profile), pseudonyms))
    path = tmp_path / "result.dcm"
    path.write_bytes(b"".join([piece async for piece in pieces]))
    sent_uids = uids_of(dcmread(path))
    issued = {alias: original.value for alias, original in pseudonyms.unkept().items()}
    WayBack({alias: value for alias, value in issued.items() if alias != ISSUER}).object(path)
    ours, before = dcmread(path), dcmread(BytesIO(data))
    assert sent_uids & issued.keys()
    assert not uids_of(ours) & issued.keys()
    assert uids_of(ours) <= uids_of(before)
    assert (ours.PatientID, ours.AccessionNumber, str(ours.PatientName)) == (WHO.number, WHO.label, "")
    assert ours.get("PixelData") == before.get("PixelData")


def uids_of(dataset: Any) -> set[str]:
    """All but those of the standard."""
    found = {str(each.value) for each in dataset if each.VR == "UI" and isinstance(each.value, str)}
    inner = [uids_of(item) for each in dataset if each.VR == "SQ" for item in each.value or ()]
    return {uid for uid in found.union(*inner) if not uid.startswith("1.2.840.10008.")}


def test_a_ready_message_names_the_true_patient_as_hl7_writes_it():
    pseudonyms = Pseudonyms(KEY)
    patient, order = pseudonyms.patient("7^1", "", ""), pseudonyms.of("accession", "ACC-9")
    way = WayBack({each: original.value for each, original in pseudonyms.unkept().items()})
    sent = f"MSH|^~\\&|V\rPID|1||{patient}^^^X||{patient}|||M\rOBR|1||{order}\rOBX|1|TX|||of {patient}\r"
    assert way.message(sent, escape) == (
        "MSH|^~\\&|V\rPID|1||7\\S\\1^^^X|||||M\rOBR|1||ACC-9\rOBX|1|TX|||of 7\\S\\1\r"
    )
    named = "MSH|^~\\&|V\nPID|1||PAT-1||Somebody^Else\n"
    assert way.message(named, escape) == named, "whose that is, others judge"


@pytest.mark.parametrize("end", ["\r", "\n"])
def test_a_ready_message_tells_no_date_that_the_vendor_knew_as_another_and_says_of_documents(end):
    """Until somebody who knows the study fills them in."""
    pseudonyms = Pseudonyms(KEY)
    patient = pseudonyms.patient("7", "", "")
    way = WayBack({each: original.value for each, original in pseudonyms.unkept().items()})
    lines = [
        *(
            "MSH|^~\\&|V",
            f"PID|1||{patient}||{patient}||19001224|F",
            "OBR|1||A|X|||20200101|20200102|||20240301",
        ),
        *("OBX|1|ED|R||^application^pdf^Base64^JVBERi0=", "OBX|2|TX|||well"),
    ]
    note = "NTE|1|L|The document is as the vendor made it: it names the patient by a pseudonym."
    assert way.message(end.join(lines), escape).split(end) == [
        *("MSH|^~\\&|V", "PID|1||7||||" + "|F", "OBR|1||A|X|||||||20240301"),
        *(lines[3], note, lines[4]),
    ]
    others = end.join(lines).replace(patient, "another")
    assert "19001224" in way.message(others, escape), "whose that is, others judge"


@pytest.mark.parametrize("titled", ["Bericht über die Hand", None])
async def test_a_document_is_untouched_and_its_title_says_so(tmp_path, titled):
    dataset = await sent(ct())
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    dataset.SpecificCharacterSet, dataset.EncapsulatedDocument = "ISO_IR 192", b"%PDF of " + KEY
    dataset["EncapsulatedDocument"].VR = "OB"
    if titled is not None:
        dataset.DocumentTitle = titled
    ours = await returned(dataset, tmp_path)
    assert ours.EncapsulatedDocument == dataset.EncapsulatedDocument
    assert ours.DocumentTitle == " ".join(filter(None, (titled, UNTOUCHED)))
    assert ours.PatientID == ct().PatientID


def test_a_document_on_its_way_to_the_ris_is_said_to_name_a_pseudonym(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF-1.4 of P123")
    for title, said in ((f"Report {UNTOUCHED}", f"well\n{SAID_OF_DOCUMENT}"), ("Report", "well")):
        finished = Finished("well", documents=(Document(path, "application/pdf", title),))
        assert with_document(finished, "well") == (said, path.read_bytes())
