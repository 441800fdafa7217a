"""Identities planted in every kind of object, and looked for in what leaves: scored as MIDI-B does.

What is planted is found in no reading of the bytes (leaks: none), and of all that has to be done with an
attribute (gone, replaced by the same everywhere, moved, kept), 99.95 % is done."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.charset import python_encoding
from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID

from gateway.contract import Unsuitable
from gateway.privacy.profile import Rules
from gateway.settings.sections import Profile
from tests.peers.dicom_kinds import KINDS, Somebody, document, report, slide, source
from tests.peers.dicom_samples import encode
from tests.unit.judging import Judge, Score, errors_of, leaks, plain, send, texts_of, without_comments

DATA: Final = Path(pydicom.__file__).parent / "data"
# Without a file meta information or UIDs, or cut off: no archive sends such, and neither do we.
NO_FILES: Final = {
    *("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm", "rtstruct.dcm"),
    *("rtplan_truncated.dcm", "meta_missing_tsyntax.dcm", "empty_charset_LEI.dcm", "nested_priv_SQ.dcm"),
    "SC_rgb_jpeg.dcm",  # which pydicom can't write
}
LARGE: Final = 200_000  # of which there are others of the same kind


def _folder_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "data"


FILES: Final = [
    path
    for folder in (DATA / "test_files", DATA / "charset_files", _folder_of("data_store"))
    for path in sorted(folder.glob("*.dcm"))
    if path.name not in NO_FILES and path.stat().st_size < LARGE and path.read_bytes()[128:132] == b"DICM"
]
TILES: Final = sorted((_folder_of("wsidicom_data") / "encoded").iterdir())
NAMES: Final = {  # in what each character set can write
    "ISO_IR 100": "Schützenmeister^Zoë",
    "ISO_IR 101": "Wałęsowski^Łucja",
    "ISO_IR 144": "Люкceмбypгов^Жанна",
    "ISO_IR 126": "Διονυσίου^Ελένη",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 138": "שרונבאום^דבורה",
    "ISO_IR 148": "Çavuşoğulları^Gülşen",
    "ISO_IR 166": "นามสมมุติ^ทดสอบ",
    "ISO_IR 13": "ﾔﾏﾀﾞﾔﾏ^ﾀﾛｳﾏﾙ",
    "ISO_IR 192": "王小東^Schützenmeister",
    "GB18030": "王小东^小东西",
    "GBK": "王小东^小东西",
    "\\ISO 2022 IR 87": "山田山^太郎丸",
    "\\ISO 2022 IR 149": "김희중^길동이",
}
# A name in it, and what may stay: of every character set that DICOM has.
WRITTEN: Final = {
    "": ("Quintarelli^Ottavio", "fracture of the ulna"),
    "ISO_IR 100": ("Schützenmeister^Zoë", "Hüfte geröntgt"),
    "ISO_IR 101": ("Wałęsowski^Łucja", "złamanie żebra"),
    "ISO_IR 109": ("Ĝirafisto^Ĥorato", "rompiĝo de ĉiu"),
    "ISO_IR 110": ("Bērziņšovs^Ķirsis", "plaušu ķirurģija"),
    "ISO_IR 144": ("Люкceмбypгов^Жанна", "перелом кости"),
    "ISO_IR 127": ("قباني^لنزار", "كسر الساعد"),
    "ISO_IR 126": ("Διονυσίου^Ελένη", "κάταγμα οστού"),
    "ISO_IR 138": ("שרונבאום^דבורה", "שבר ביד"),
    "ISO_IR 148": ("Çavuşoğulları^Gülşen", "kırık kemiği"),
    "ISO_IR 203": ("Œuvrard^Žofie", "œdème"),
    "ISO_IR 166": ("นามสมมุติ^ทดสอบ", "กระดูกหัก"),
    "ISO_IR 13": ("ﾔﾏﾀﾞﾔﾏ^ﾀﾛｳﾏﾙ", "ｺｯｾﾂ"),
    "ISO_IR 192": ("Schützenmeister^Жанна=王小東^東西", "œdème, 骨折, κάταγμα"),
    "GB18030": ("Wang^XiaoDong=王小东^小东西", "骨折"),
    "GBK": ("Wang^XiaoDong=王小东^小东西", "骨折"),
    "\\ISO 2022 IR 87": ("Yamadayama^Tarou=山田山^太郎丸=やまだやま^たろう", "骨折"),
    "ISO 2022 IR 13\\ISO 2022 IR 87": ("ﾔﾏﾀﾞﾔﾏ^ﾀﾛｳﾏﾙ=山田山^太郎丸", "骨折ﾃﾞｽ"),
    "ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159": ("Yamadayama^Tarou=山田山^丂丄丅", "骨折"),
    "\\ISO 2022 IR 149": ("Hongdae^Gildong=洪吉洞^吉童=홍길동^길동이", "골절"),
    "\\ISO 2022 IR 58": ("Zhangsan^XiaoDong=张小东^小东西", "骨折"),
    "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126": ("Schützenmeister^Жанна=Διονυσίου^Ελένη", "Hüfte"),
    "ISO 2022 IR 6\\ISO 2022 IR 101\\ISO 2022 IR 109\\ISO 2022 IR 110": ("Wałęsowski^Ĥorato", "żebro"),
    "ISO 2022 IR 6\\ISO 2022 IR 127\\ISO 2022 IR 138\\ISO 2022 IR 148": ("قباني^שרונבאום", "شبر"),
    "ISO 2022 IR 6\\ISO 2022 IR 166\\ISO 2022 IR 203": ("นามสมมุติ^Œuvrard", "กระดูกหัก"),
}
WORDS: Final = {
    "PatientID": "PLANTED-4711",
    "AccessionNumber": "PLNTACC-93",
    "OtherPatientIDs": "PLNTOTHER-5",
    "PatientAddress": "Plantedlane 12, Plantedtown",
    "InstitutionName": "Planted General Hospital",
    "StationName": "PLNTSTATION1",
    "PatientTelephoneNumbers": "+49 30 9977553",
    "OperatorsName": "Plantoperator^Olaf",
    "ReferringPhysicianName": "Plantreferrer^Rita",
}
WHO: Final = Somebody(
    name="Quintarelli^Ottavio",
    number="PLANTED-4711",
    telling="Quintarelli, OTTAVIO (PLANTED-4711)",
    other="Plantoperator^Olaf",
    label="PLNTLABEL-9",
)
PLANTED: Final = ("Quintarelli", "Ottavio", "PLANTED-4711", "Plantoperator", "PLNTLABEL-9")
STRICT: Final = Rules(Profile())
OPEN: Final = Rules(
    Profile(
        options=[
            *("retain-longitudinal-modified-dates", "clean-descriptors", "clean-structured-content"),
            *("retain-patient-characteristics",),
        ],
        descriptors="replace",
    )
)
BOTH: Final = pytest.mark.parametrize("rules", [STRICT, OPEN], ids=["strict", "open"])


def plant(dataset: Any, name: str) -> list[str]:
    """Wherever an identity may stand, and where it may not. Returns what must not be found."""
    for keyword, word in WORDS.items():
        setattr(dataset, keyword, word)
    dataset.PatientName, dataset.PatientBirthDate = name, "19370405"
    family, _, given_ = name.partition("^")
    told = f"{family} {given_} PLANTED-4711"
    for keyword in (
        "SeriesDescription",
        "ImageComments",
        "PatientComments",
        "ProtocolName",
        "StudyDescription",
    ):
        setattr(dataset, keyword, told)
    dataset.ConvolutionKernel = "PLANTED-4711"  # which no table lists
    dataset.ManufacturerModelName, dataset.ContentDescription = f"For {family}", told
    other = Dataset()
    other.PatientID, other.PatientName, other.TypeOfPatientID = "PLANTED-4711", name, "TEXT"
    dataset.OtherPatientIDsSequence = Sequence([other])
    request = Dataset()
    request.RequestedProcedureDescription, request.ScheduledProcedureStepDescription = told, told
    request.RequestedProcedureID = "PLNTREQ-77"
    dataset.RequestAttributesSequence = Sequence([request])
    block = dataset.private_block(0x0033, "PLANTED PRIVATE", create=True)
    block.add_new(0x01, "LO", told)
    block.add_new(0x02, "UN", told.encode())
    inner = Dataset()
    inner.PatientName = name
    block.add_new(0x03, "SQ", Sequence([inner]))
    dataset.add(DataElement(Tag(0x50000022), "LO", "PLANTED-4711"))
    dataset.add(DataElement(Tag(0x60004000), "LT", "PLANTED-4711"))
    dataset.add(DataElement(Tag(0x40000010), "LT", "PLANTED-4711"))
    dataset.preamble = b"PLANTED-4711".ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = "PLNTSTATION1"
    words = [word for keyword, word in WORDS.items() if "Name" not in keyword or keyword.startswith("I")]
    words += ["Plantoperator", "Plantreferrer", "PLNTREQ-77", "19370405", "PLANTED PRIVATE"]
    return [*words, *filter(None, (family, given_))]


async def send_planted(path: Path, rules: Rules, score: Score) -> set[str]:
    dataset = dcmread(path)
    charset = dataset.get("SpecificCharacterSet") or ""
    charset = charset if isinstance(charset, str) else "\\".join(charset)
    planted = plant(dataset, NAMES.get(charset, "Plantedfamily^Plantgiven"))
    data = encode(dataset)
    out = await send(data, rules)
    Judge(rules, score, planted).compare(dcmread(BytesIO(data)), dcmread(BytesIO(out)), path.name)
    return {f"{path.name}: {word}" for word in leaks(out, planted, charset)}


def require(score: Score, found: set[str]) -> None:
    assert not found
    assert score.share >= 0.9995, (score.share, Counter(miss.split(" ", 1)[1] for miss in score.missed))


@BOTH
async def test_nothing_planted_leaves_and_what_has_to_be_done_is_done(rules):
    score, found = Score(), set()
    for path in FILES:
        found |= await send_planted(path, rules, score)
    require(score, found)
    assert score.done > 6000


@BOTH
async def test_no_kind_of_object_tells_whose_it_is(rules, tmp_path):
    score, found = Score(), set()
    for kind, make in KINDS.items():
        made = make(WHO)
        made.PatientName, made.PatientID, made.AccessionNumber = WHO.name, WHO.number, WHO.label
        data = encode(made)
        out = await send(data, rules)
        Judge(rules, score, PLANTED, texts=True).compare(dcmread(BytesIO(data)), dcmread(BytesIO(out)), kind)
        found |= {f"{kind}: {word}" for word in leaks(out, PLANTED)}
        (tmp_path / "before.dcm").write_bytes(data)
        (tmp_path / "after.dcm").write_bytes(out)
        assert not errors_of(tmp_path / "after.dcm") - errors_of(tmp_path / "before.dcm"), kind
    require(score, found)
    assert score.done > 1000


@pytest.mark.parametrize("charset", WRITTEN)
@BOTH
async def test_no_character_set_hides_a_name_or_loses_what_may_stay(charset, rules):
    name, kept = WRITTEN[charset]
    words = [part for group in name.split("=") for part in group.split("^")]
    spoken = name.replace("^", " ").split("=")
    made = report(WHO)
    made.SpecificCharacterSet = charset.split("\\")
    made.PatientName, made.PatientID, made.AccessionNumber = name, WHO.number, WHO.label
    made.SeriesDescription, made.SoftwareVersions = kept, [kept, *words]
    made.ContentSequence[-2].TextValue = "\n".join((*spoken, kept))
    data = encode(made)
    out = await send(data, rules)
    assert not leaks(out, [*words, *PLANTED[2:]], charset)
    before, ours = dcmread(BytesIO(data)), dcmread(BytesIO(out))
    assert ours.get("SpecificCharacterSet") == before.get("SpecificCharacterSet")
    assert ours.Manufacturer == before.Manufacturer
    if before.SeriesDescription != kept or "?" in str(before.SoftwareVersions):  # pydicom can't write it
        assert charset in BEYOND_PYDICOM
    elif rules is OPEN:
        assert ours.SeriesDescription == kept
        assert list(ours.SoftwareVersions) == [kept, *("***" for _ in words)]
        told = before.ContentSequence[-2].TextValue
        assert "?" in told or ours.ContentSequence[-2].TextValue.endswith(kept)


BEYOND_PYDICOM: Final = {
    *("\\ISO 2022 IR 58", "ISO_IR 203"),
    "ISO 2022 IR 6\\ISO 2022 IR 166\\ISO 2022 IR 203",
}


def test_every_character_set_that_pydicom_knows_is_tried():
    """But for the other spellings that it has of some."""
    tried = {re.sub(r"\D", "", term) or term for charset in WRITTEN for term in charset.split("\\")}
    known = {term for term in python_encoding if term != "ISO 2022 GBK"}
    assert {re.sub(r"\D", "", term.replace("2022", "")) or term for term in known} <= {
        re.sub(r"^2022", "", each) for each in tried
    } | {"6"}


def _value(vr: str) -> Any:
    """What such an attribute may tell of the patient; None: nothing."""
    if vr in ("LT", "ST", "UT", "UC", "LO"):
        return WHO.telling
    if vr in ("OB", "OW", "UN"):
        return WHO.telling.encode() + b" "
    texts = {"PN": WHO.name, "UR": f"http://x/{WHO.number}", "DA": "19370405", "DT": "19370405101112"}
    return texts.get(vr) or (WHO.number if vr in ("SH", "AE", "CS") else None)


# Whose form tells what they are, or which are read before all else.
ASIDE: Final = {0x00020010, 0x00080005, 0x00080016, 0x00080018, 0x00100020, 0x00100010, 0x00280301}
ASIDE_KINDS: Final = {0x00080008, 0x00080060, 0x00080064, 0x00287FE0, 0x00480010, 0x7FE00010, 0x7FE00001}


def _whole_dictionary() -> Iterator[DataElement]:
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if not keyword or tag >> 16 < 8 or tag in ASIDE | ASIDE_KINDS or tag >> 16 in (0x7FE0, 0xFFFE):
            continue
        value = _value(vr[:2])
        if value is not None:
            yield DataElement(Tag(tag), vr[:2], value, validation_mode=0)


@BOTH
async def test_no_attribute_of_the_whole_dictionary_tells_whose_it_is(rules):
    """At the top, and deep within a sequence that is kept."""
    every = list(_whole_dictionary())
    assert len(every) > 1500
    made = source()
    made.PatientName, made.PatientID, made.PatientBirthDate = WHO.name, WHO.number, "19370405"
    deep = Dataset()
    for element in every:
        made.add(element)
        deep.add(element)
    made.SharedFunctionalGroupsSequence = [Dataset()]
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [deep]
    out = await send(encode(made), rules)
    ours = dcmread(BytesIO(out))
    words = [plain(word) for word in (*PLANTED[:3], "19370405")]
    told = {
        f"{each.tag} {each.keyword}"
        for part in (ours, ours.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0])
        for each in part
        if each.VR != "SQ" and any(word in plain(str(each.value)) for word in words)
    }
    assert not told
    assert not leaks(out, words)


TAGS: Final = sorted(int(each.tag) for each in _whole_dictionary())
SEQUENCES: Final = sorted(
    tag for tag, (vr, *_) in DicomDictionary.items() if vr == "SQ" and 0x0008 <= tag >> 16 < 0x4000
)
SPELLINGS: Final = [
    lambda f, g, n: f"{f} {g}",
    lambda f, g, n: f"{g}_{f}",
    lambda f, g, n: f"{f.upper()}{g.upper()}",
    lambda f, g, n: f"pt {g.lower()}.{f.lower()}, {n}",
    lambda f, g, n: f"{f}^{g}^^",
    lambda f, g, n: f"({n})",
    lambda f, g, n: n.replace("-", ""),
    lambda f, g, n: n.replace("-", " ").lower(),
    lambda f, g, n: f"id={n}/{f[0]}",
    lambda f, g, n: f"X{n}Y of {' '.join(f)}",
]


@settings(max_examples=80, deadline=None)
@given(st.data())
async def test_wherever_and_however_somebody_is_named_he_stays_here(data):
    """In any attribute of any sequence, in any spelling, under any of the two profiles."""
    made = source()
    made.PatientName, made.PatientID = WHO.name, WHO.number
    holder = made
    for tag in data.draw(st.lists(st.sampled_from(SEQUENCES), max_size=3)):
        inner = Dataset()
        holder.add(DataElement(Tag(tag), "SQ", [inner]))
        holder = inner
    for tag in data.draw(st.lists(st.sampled_from(TAGS), min_size=1, max_size=4, unique=True)):
        vr = DicomDictionary[tag][0][:2]
        text = data.draw(st.sampled_from(SPELLINGS))("Quintarelli", "Ottavio", "PLANTED-4711")
        value = text.encode() if vr in ("OB", "OW", "UN") else text
        if vr not in ("DA", "DT"):
            holder.add(DataElement(Tag(tag), vr, value, validation_mode=0))
    rules = data.draw(st.sampled_from([STRICT, OPEN]))
    try:
        out = await send(encode(made), rules)
    except Unsuitable:
        return
    told = plain("\n".join(texts_of(dcmread(BytesIO(out)))))
    assert not {word for word in PLANTED[:3] if plain(word) in told}
    assert not leaks(out, PLANTED[:3])


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
async def test_a_slide_passes_however_its_tiles_are_packed(tile):
    """Those of wsidicom-data, in each transfer syntax that it has."""
    told, colours, bits = tile.stem.rsplit("-", 2)
    syntax = next(uid for uid in SYNTAXES if UID(uid).name.replace(" ", "_").startswith(told[:40]))
    made = slide(WHO)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.BitsAllocated = 8 if bits == "8" else 16
    made.SamplesPerPixel = 1 if colours == "GRAYSCALE" else 3
    frame = tile.read_bytes()
    packed = tile.suffix != ".raw"
    made.PixelData = encapsulate([frame, frame]) if packed else frame + frame
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB" if packed else "OW", packed
    made.PatientName, made.PatientID, made.AccessionNumber = WHO.name, WHO.number, WHO.label
    out = await send(encode(made), STRICT)
    ours = dcmread(BytesIO(out))
    assert (ours.file_meta.TransferSyntaxUID, ours.PixelData) == (syntax, without_comments(made.PixelData))
    assert not leaks(out.replace(frame, b""), PLANTED)


SYNTAXES: Final = [
    f"1.2.840.10008.1.2{rest}"
    for rest in ("", ".1", ".2", ".5", *(f".4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)))
]


async def test_no_label_leaves_that_only_its_frames_tell_or_that_is_padded():
    made = slide(WHO)
    assert await send(encode(made), OPEN)
    made.ImageType[2] = "LABEL "
    with pytest.raises(Unsuitable, match="label"):
        await send(encode(made), OPEN)
    made.ImageType[2] = "VOLUME"
    frame = Dataset()
    frame.FrameType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    shared = made.SharedFunctionalGroupsSequence[0]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame]
    with pytest.raises(Unsuitable, match="label"):
        await send(encode(made), OPEN)


@BOTH
@pytest.mark.parametrize("flavour", ["LABEL", "OVERVIEW"])
async def test_nobodys_label_leaves_with_a_slide(rules, flavour):
    with pytest.raises(Unsuitable, match=flavour.lower()):
        await send(encode(slide(WHO, flavour)), rules)
    kept = Rules(rules.profile.model_copy(update={"keep_overview": True}))
    if flavour == "LABEL":
        with pytest.raises(Unsuitable, match="label"):
            await send(encode(slide(WHO, flavour)), kept)
    else:
        assert not leaks(await send(encode(slide(WHO, flavour)), kept), PLANTED[:1])


async def test_a_document_does_not_leave():
    with pytest.raises(Unsuitable, match="is a document, which can't be de-identified"):
        await send(encode(document(WHO)), OPEN)


async def test_what_was_valid_still_is(tmp_path):
    """Of each kind of object; a report whose content isn't cleaned is hollow, and only valid as such."""
    kinds: dict[str, Path] = {}
    for path in FILES:
        kinds.setdefault(str(dcmread(path, stop_before_pixels=True).get("SOPClassUID")), path)
    assert len(kinds) > 9
    for path in kinds.values():
        for rules in (STRICT, OPEN):
            (tmp_path / "sent.dcm").write_bytes(await send(path.read_bytes(), rules))
            new = errors_of(tmp_path / "sent.dcm") - errors_of(path)
            assert not new, (path.name, new)
