"""An instance on its way to a vendor that may not know whose it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    HEVCM10P51,
    MPEG2MPML,
    MPEG4HP41,
    MPEG4HP41F,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    SMPTEST211020UncompressedProgressiveActiveVideo,
)

from gateway.contract import Unsuitable
from gateway.dicom.part10 import NotDicom
from gateway.privacy.header import Change, HeaderRewriter
from gateway.privacy.known import Facts
from gateway.privacy.profile import Rules
from gateway.privacy.pseudonyms import Pseudonyms
from gateway.privacy.rewriting import rewrite
from gateway.settings.sections import Profile
from tests.unit.judging import without_comments

KEY = b"k" * 32
ALIAS = Pseudonyms(KEY).patient("PAT-4711", "", "")
PACKED = ["JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"]
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def ct() -> Any:
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    dataset = dcmread(path)
    dataset.PatientName, dataset.PatientID = "Müßiggang^Anna Lü^^Dr", "PAT-4711"
    dataset.PatientBirthDate, dataset.AccessionNumber = "19561224", "ACC-9"
    dataset.StudyDate, dataset.StudyTime = "20240229", "101112"
    return dataset


def written(dataset: Any) -> bytes:
    out = DicomBytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


async def sent_bytes(
    data: bytes, cut: int = 4096, facts: Facts | None = None, note=None, **profile: Any
) -> bytes:
    async def chunks():
        for at in range(0, len(data), cut):
            yield data[at : at + cut]

    rules = Rules(Profile.model_validate(profile))
    rewriter = HeaderRewriter(rules, Pseudonyms(KEY), facts, note)
    return b"".join([piece async for piece in rewrite(chunks(), rewriter)])


async def whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def sent(dataset: Any, **given: Any) -> Any:
    return dcmread(BytesIO(await sent_bytes(written(dataset), **given)))


async def test_a_patient_is_somebody_and_nobody_knows_who():
    ours = await sent(ct())
    assert (
        ours.PatientID
        == str(ours.PatientName)
        == Pseudonyms(KEY).patient("PAT-4711", "", ct().StudyInstanceUID)
    )
    assert ours.AccessionNumber == Pseudonyms(KEY).of("accession", "ACC-9")
    assert (ours.PatientBirthDate, ours.StudyDate, ours.PatientIdentityRemoved) == ("", "", "YES")
    assert [item.CodeValue for item in ours.DeidentificationMethodCodeSequence] == ["113100"]
    assert ours.SOPInstanceUID == ours.file_meta.MediaStorageSOPInstanceUID != ct().SOPInstanceUID
    assert (ours.Modality, ours.Manufacturer) == (ct().Modality, ct().Manufacturer)
    assert ours.PixelData == ct().PixelData


@pytest.mark.parametrize("syntax", SYNTAXES)
async def test_however_it_is_written(syntax):
    dataset = ct()
    if syntax == ExplicitVRBigEndian:
        dataset = dcmread(str(get_testdata_file("MR_small_bigendian.dcm")))
        dataset.PatientName = "Müßiggang"
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset = dcmread(BytesIO(written(dataset)))
    ours = await sent(dataset)
    assert ours.file_meta.TransferSyntaxUID == dataset.file_meta.TransferSyntaxUID
    assert str(ours.PatientName).startswith("P")
    assert ours.PixelData == dataset.PixelData
    assert ours.Rows == dataset.Rows


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("cut", [1, 7, 100_000])
async def test_pixels_pass_however_they_are_packed_and_cut(name, cut):
    path = get_testdata_file(name)
    assert isinstance(path, str)
    data = Path(path).read_bytes()
    before, after = dcmread(path), dcmread(BytesIO(await sent_bytes(data, max(cut, len(data) // 20_000))))
    assert after.PixelData == without_comments(before.PixelData)


async def test_what_lies_behind_the_pixels_stays_here():
    data = (
        written(ct()) + b"\xe1\x7f\x10\x00LO\x10\x00SIEMENS CSA NON " + b"\xe1\x7f\x01\x10LO\x08\x00PAT-4711"
    )
    assert b"PAT-4711" in data
    for cut in (3, 4096):
        assert b"PAT-4711" not in await sent_bytes(data, cut)


async def test_the_preamble_and_who_wrote_the_file_stay_here():
    dataset = ct()
    dataset.preamble = b"PAT-4711".ljust(128)
    dataset.file_meta.SourceApplicationEntityTitle = "PAT-4711"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = b"PAT-4711"
    assert b"PAT-4711" not in await sent_bytes(written(dataset))


async def test_a_patient_stays_one_though_only_some_instances_name_the_issuer_of_his_id():
    pseudonyms = Pseudonyms(KEY)
    rewriter = HeaderRewriter(Rules(Profile()), pseudonyms)
    seen = set()
    for issuer in ("HOSPITAL", None, "OTHER"):
        dataset = ct()
        dataset.IssuerOfPatientID = issuer

        out = b"".join([piece async for piece in rewrite(whole(written(dataset)), rewriter)])
        seen.add(dcmread(BytesIO(out)).PatientID)
    assert seen == {Pseudonyms(KEY).patient("PAT-4711", "HOSPITAL", "")}


async def test_dates_move_together_and_times_stay():
    dataset = ct()
    dataset.AcquisitionDateTime = "20240302101112.5+0100"
    ours = await sent(dataset, options=["retain-longitudinal-modified-dates"])
    days = Pseudonyms(KEY).days("PAT-4711", "", ct().StudyInstanceUID)
    expected = (date(2024, 2, 29) - timedelta(days)).strftime("%Y%m%d")
    assert (ours.StudyDate, ours.StudyTime, ours.PatientBirthDate) == (expected, "101112", "")
    moved = (date(2024, 3, 2) - timedelta(days)).strftime("%Y%m%d")
    assert ours.AcquisitionDateTime == f"{moved}101112.5+0100"
    assert ours.LongitudinalTemporalInformationModified == "MODIFIED"
    kept = await sent(dataset, options=["retain-longitudinal-full-dates"])
    assert (kept.StudyDate, kept.PatientBirthDate) == ("20240229", "")


async def test_private_attributes_go_unless_they_are_listed():
    dataset = ct()
    block = dataset.private_block(0x0019, "SAFE", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "LO", "PAT-4711")
    block.add_new(0x0E, "LO", "Anna")
    kept = ['(0019,"SAFE",0C)', '(0019,"SAFE",0E)']
    ours = await sent(dataset, options=["retain-safe-private"], keep_private=kept)
    assert ours.private_block(0x0019, "SAFE")[0x0C].value == 1000
    for gone in (0x0D, 0x0E):  # not listed; listed, and named
        assert gone not in ours.private_block(0x0019, "SAFE")
    assert not [element for element in await sent(dataset) if element.tag.is_private]


KEPT_PRIVATELY = {
    "UI": "1.2.276.20417733.1",
    "DA": "19561224",
    "DT": "195612241011",
    "LO": "PAT-4711",
    "PN": "Müßiggang^Anna",
    "OB": b"PAT-4711",
    "UN": b"19561224",
    "OF": b"PAT-4711",
    "IS": "20417733",
    "AE": "PAT-4711",
}


@pytest.mark.parametrize("vr", KEPT_PRIVATELY)
async def test_a_private_attribute_that_is_listed_tells_nobodys_identity_either(vr):
    dataset = ct()
    dataset.AccessionNumber = "20417733"
    dataset.private_block(0x0019, "SAFE", create=True).add_new(0x0C, vr, KEPT_PRIVATELY[vr])
    options = ["retain-safe-private", "retain-longitudinal-modified-dates"]
    out = await sent_bytes(written(dataset), options=options, keep_private=['(0019,"SAFE",0C)'])
    assert not [secret for secret in (b"20417733", b"19561224", b"PAT-4711", b"Anna") if secret in out]


@pytest.mark.parametrize("vr", ["OF", "OD", "OL", "OV", "OB", "OW", "UN", "US", "UL", "FD", "AT", "SL"])
async def test_a_text_stays_here_whatever_it_is_said_to_be(vr):
    dataset = ct()
    dataset.add_new(0x00189004, "OB", b"for PAT-4711, thus")
    data = written(dataset)
    at = data.index(b"\x18\x00\x04\x90OB") + 4
    end = at + 8 if vr in ("OF", "OD", "OL", "OV", "OB", "OW", "UN") else at + 4
    size = data[at + 4 : at + 8] if end == at + 8 else data[at + 4 : at + 6]
    data = data[:at] + vr.encode() + (b"\0\0" if end == at + 8 else b"") + size + data[at + 8 :]
    assert b"PAT-4711, thus" in data
    assert b"PAT-4711" not in await sent_bytes(data)


@pytest.mark.parametrize("tag", [b"\x10\x00\x20\x00", b"\x08\x00\x3e\x10"])
@pytest.mark.parametrize("vr", [b"UT", b"OB", b"UC"])
async def test_a_text_in_fragments_stays_here(tag, vr):
    """As only pixels may be written."""
    dataset = ct()
    dataset.SeriesDescription = "nothing"
    data = written(dataset)
    at = data.index(tag + b"LO")
    after = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    fragments = b"\xfe\xff\x00\xe0\x08\0\0\0PAT-4711\xfe\xff\xdd\xe0\0\0\0\0"
    data = data[:at] + tag + vr + b"\0\0\xff\xff\xff\xff" + fragments + data[after:]
    for options in ([], ["clean-descriptors"]):
        assert b"PAT-4711" not in await sent_bytes(data, options=options)


async def test_a_uid_that_only_looks_like_the_standards_is_replaced():
    """Some who have no root of their own take that of the standard."""
    dataset = ct()
    dataset.StudyInstanceUID = "1.2.840.10008.19561224.20417733"
    dataset.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"  # Talairach's brain
    dataset.ReferencedImageSequence = [Dataset()]
    dataset.ReferencedImageSequence[0].ReferencedSOPClassUID = dataset.SOPClassUID
    ours = await sent(dataset)
    assert ours.StudyInstanceUID.startswith("2.25.")
    assert ours.FrameOfReferenceUID == dataset.FrameOfReferenceUID
    assert ours.ReferencedImageSequence[0].ReferencedSOPClassUID == dataset.SOPClassUID


async def test_a_number_of_the_patients_is_no_number_of_an_image():
    dataset = ct()
    dataset.AccessionNumber = "20417733"
    dataset.AcquisitionNumber, dataset.SliceLocation, dataset.KVP = 20417733, "20417733", "120"
    ours = await sent(dataset)
    assert (ours.AcquisitionNumber, ours.SliceLocation, ours.KVP) == (None, None, 120)


async def test_what_one_instance_tells_is_looked_for_in_the_next():
    first, second = ct(), ct()
    first.ReferringPhysicianName = "Brackwater^Otto"
    second.ReferringPhysicianName = second.PatientName = ""
    second.ConvolutionKernel = "by Brackwater"
    rewriter = HeaderRewriter(Rules(Profile(descriptors="replace")), Pseudonyms(KEY))
    for each in (first, second):
        pieces = [piece async for piece in rewrite(whole(written(each)), rewriter)]
    assert dcmread(BytesIO(b"".join(pieces))).ConvolutionKernel == "by ***"


TEXTS = [
    ("Thorax of Anna Lü Müßiggang", "Thorax of *** ***"),
    ("MUESSIGGANG, seen", "***, seen"),
    ("born 24.12.1956", "born ***"),
    ("id:PAT-4711.", "id:***."),
    ("nothing of hers", "nothing of hers"),
    ("Dr. Smith said so", "*** said so"),
    ("on 2024-02-29, call +49 30 1234567", "on ***, call ***"),
]


@pytest.mark.parametrize(("text", "cleaned"), TEXTS)
async def test_descriptors_are_cleaned_or_dropped(text, cleaned):
    dataset = ct()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = text
    replaced = await sent(dataset, options=["clean-descriptors"], descriptors="replace")
    assert replaced.SeriesDescription == cleaned
    dropped = await sent(dataset, options=["clean-descriptors"])
    assert dropped.get("SeriesDescription") == (text if text == cleaned else None)
    assert "SeriesDescription" not in await sent(dataset)


async def test_a_text_that_no_table_lists_is_searched_too():
    dataset = ct()
    dataset.ConvolutionKernel, dataset.ManufacturerModelName = "for Anna", "Lü-ftung"
    ours = await sent(dataset)
    assert ours.ConvolutionKernel == "REMOVED"
    ours = await sent(dataset, descriptors="replace")
    assert ours.ConvolutionKernel == "for ***"


async def test_what_is_known_from_elsewhere_is_searched_for():
    dataset = ct()
    dataset.ConvolutionKernel = "Overland"
    assert (await sent(dataset, facts=Facts(names={"Overland^Jo"}))).ConvolutionKernel == "REMOVED"


async def test_a_code_keeps_its_meaning_whoever_is_named_like_it():
    dataset = ct()
    dataset.PatientName = "CT^Original^Axial"
    ours = await sent(dataset)
    assert (ours.Modality, list(ours.ImageType)) == ("CT", ["REMOVED", "PRIMARY", "REMOVED"])


def report() -> Any:
    dataset = ct()
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    dataset.Modality, dataset.ValueType, dataset.VerifyingObserverName = "SR", "CONTAINER", "Holm^Ea"

    def item(kind: str, code: str, **values: Any) -> Dataset:
        made, concept = Dataset(), Dataset()
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, "DCM", "Concept"
        made.ValueType, made.RelationshipType, made.ConceptNameCodeSequence = (
            kind,
            "CONTAINS",
            Sequence([concept]),
        )
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return made

    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    deep = item("TEXT", "121071", TextValue="Seen by Holm; Anna is well")
    dataset.ContentSequence = Sequence(
        [
            item("TEXT", "121030", TextValue="PAT-4711"),
            item("PNAME", "121008", PersonName="Holm^Ea"),
            item("TEXT", "121017", TextValue="Ward nine"),
            item("UIDREF", "121018", UID="1.2.3.5"),
            item("DATE", "121031", Date="19561224"),
            item("IMAGE", "121079", ReferencedSOPSequence=Sequence([image])),
            item("CONTAINER", "121070", ContentSequence=Sequence([deep])),
            item("TEXT", "121071", TextValue="A fracture of the ulna"),
        ]
    )
    return dataset


async def test_a_report_keeps_what_was_found_and_loses_who():
    ours = await sent(report(), options=["clean-structured-content"], descriptors="replace")
    identity, observer, place, uid, born, image, nested, finding = ours.ContentSequence
    assert identity.TextValue == ours.PatientID
    assert (str(observer.PersonName), place.TextValue) == ("REMOVED", "REMOVED")
    assert Pseudonyms(KEY).uid("1.2.3.5") == uid.UID
    assert born.Date == "19000101"
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == Pseudonyms(KEY).uid("1.2.3.4")
    assert nested.ContentSequence[0].TextValue == "Seen by ***; *** is well"
    assert finding.TextValue == "A fracture of the ulna"
    assert finding.ConceptNameCodeSequence[0].CodeMeaning == "Concept"


async def test_a_report_is_hollow_where_its_content_is_not_cleaned():
    ours = await sent(report())
    assert [item.get("TextValue") for item in ours.ContentSequence][-1] == "REMOVED"
    assert b"fracture" not in await sent_bytes(written(report()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "ultrasound"),
        ({"Modality": "US"}, "ultrasound"),
        ({"BurnedInAnnotation": "YES"}, "writing in its pixels"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "copy of a screen"),
    ],
)
async def test_pixels_that_may_show_names_do_not_leave_where_they_have_to_be_clean(change, why):
    dataset = ct()
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    with pytest.raises(Unsuitable, match=why):
        await sent(dataset, options=["clean-pixel"])
    await sent(dataset)


async def test_a_label_never_leaves_and_an_overview_only_if_it_may():
    dataset = ct()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    with pytest.raises(Unsuitable, match="label of a slide"):
        await sent(dataset, keep_overview=True)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]
    with pytest.raises(Unsuitable, match="overview of a slide"):
        await sent(dataset)
    await sent(dataset, keep_overview=True)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    with pytest.raises(Unsuitable, match="document"):
        await sent(dataset, keep_overview=True)


RECORDINGS = [
    *(MPEG2MPML, MPEG4HP41, MPEG4HP41F, HEVCM10P51),
    SMPTEST211020UncompressedProgressiveActiveVideo,
]


@pytest.mark.parametrize("syntax", RECORDINGS, ids=lambda syntax: UID(syntax).name)
async def test_no_recording_leaves_unless_it_may_as_its_stream_is_not_read(syntax):
    dataset = ct()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\0\0\1\xb2PAT-4711"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(Unsuitable, match="is a recording"):
        await sent(dataset)
    kept = await sent(dataset, keep_recordings=True)
    assert kept.PixelData == dataset.PixelData


async def test_words_in_a_profile_of_colours_stay_here_and_its_colours_leave():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = "Dr. No's scanner".encode("utf-16-be")
    written_ = profile.replace("RGB built-in".encode("utf-16-be"), named[:24])
    dataset, path = ct(), Dataset()
    dataset.ICCProfile = path.ICCProfile = written_[:100] + b"for Dr. No himself".ljust(28) + written_[128:]
    dataset.OpticalPathSequence = [path]
    ours = await sent(dataset)
    for part in (ours, ours.OpticalPathSequence[0]):
        assert len(part.ICCProfile) == len(profile)
        assert named[:24] not in part.ICCProfile and b"Dr. No" not in part.ICCProfile
        read = ImageCms.ImageCmsProfile(BytesIO(part.ICCProfile)).profile
        assert read.red_primary == ImageCms.ImageCmsProfile(BytesIO(profile)).profile.red_primary


async def test_no_picture_leaves_within_an_item_where_nobody_looks_for_one():
    dataset, inner = ct(), Dataset()
    inner.Rows, inner.PixelData = 1, b"\x01\x02"
    inner["PixelData"].VR = "OW"
    dataset.ReferencedImageSequence = [inner]
    item = (await sent(dataset)).ReferencedImageSequence[0]
    assert "PixelData" not in item and item.Rows == 1


async def test_a_class_that_is_a_number_of_the_patients_is_told_nowhere():
    dataset = ct()
    dataset.PatientID = "4711471147"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.3.4711471147")
    out = await sent_bytes(written(dataset))
    assert b"4711471147" not in out
    ours = dcmread(BytesIO(out))
    assert ours.file_meta.MediaStorageSOPClassUID == ours.SOPClassUID
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.3.46.670589.11.0.0.12.1")
    assert (await sent(dataset)).SOPClassUID == "1.3.46.670589.11.0.0.12.1", "a maker's own"


async def test_every_change_is_told_with_its_reason():
    told: list[Change] = []
    await sent(ct(), note=told.append)
    by_tag = {change.path[-1]: change for change in told if len(change.path) == 1}
    assert by_tag[0x00100020][2:] == (
        "PAT-4711",
        ALIAS,
        "Z/D: replaced by a pseudonym",
    )
    assert by_tag[0x00100030][2:] == ("19561224", "", "Z: emptied")
    assert by_tag[0x00280010].why == "K: kept"
    assert by_tag[next(tag for tag in by_tag if tag >> 16 & 1)].why == "private: removed"
    assert "PAT" not in repr(Facts({"PAT"}))


@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_whatever_is_broken_is_refused_and_never_passed(data):
    """Bytes changed at random: it is rewritten, or it is no DICOM; the name is never in what goes out."""
    whole = bytearray(written(ct()))
    header = whole.index(b"\xe0\x7f\x10\x00")
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(132, header))] = data.draw(st.integers(0, 255))
    try:
        out = await sent_bytes(bytes(whole))
    except (NotDicom, Unsuitable):
        return
    assert b"PAT-4711" not in out
