"""What has to be done with each attribute of an object before it leaves, counted as MIDI-B counts: gone,
emptied, replaced by the same everywhere, moved by the same days, or kept as it was. By pydicom's reading."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import ImageCms
from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement

from gateway.privacy.header import HeaderRewriter
from gateway.privacy.profile import Act, Rules
from gateway.privacy.pseudonyms import Pseudonyms
from gateway.privacy.rewriting import rewrite

KEY: Final = b"k" * 32
_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_TEXTS: Final = frozenset(("LO", "SH", "LT", "ST", "UT", "UC", "PN"))
_NUMBERS: Final = {"IS": r"[0-9+\- ]*", "DS": r"[0-9+\-.eE ]*", "AS": r"\d{3}[DWMY]"}
_SCHEME: Final = "CodingSchemeDesignator"
_PUBLIC: Final = frozenset(("DCM", "SCT", "UCUM", "MDC"))
_BINARY: Final = frozenset(("OB", "UN", "OW", "OF", "OD", "OL", "OV"))


@dataclass
class Score:
    done: int = 0
    missed: list[str] = field(default_factory=list)

    def count(self, done: bool, what: str) -> None:
        if done:
            self.done += 1
        else:
            self.missed.append(what)

    @property
    def share(self) -> float:
        return self.done / (self.done + len(self.missed))


class Judge:
    """`planted`: what nobody may read. `texts`: whether all else in the texts is nobody's, and stays."""

    def __init__(self, rules: Rules, score: Score, planted: Iterable[str], *, texts: bool = False) -> None:
        self._rules = rules
        self._score = score
        self._planted = [plain(word) for word in planted]
        self._texts = texts

    def compare(self, before: Any, after: Any, where: str) -> None:
        subject = (
            str(before.get("PatientID", "")),
            str(before.get("IssuerOfPatientID", "")),
            str(before.get("StudyInstanceUID", "")),
        )
        pseudonyms = Pseudonyms(KEY)
        self._patient, self._days = pseudonyms.patient(*subject), pseudonyms.days(*subject)
        self._walk(before, after, where, masked=False)

    def tells(self, value: object) -> bool:
        told = plain(value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value))
        return any(word in told for word in self._planted)

    def _walk(self, before: Any, after: Any, where: str, *, masked: bool) -> None:
        for element in before:
            what = f"{where} {element.tag} {element.keyword}"
            found = after.get(element.tag)
            tag = int(element.tag)
            if element.tag.is_private or tag >> 16 & 0xFF00 in (0x5000, 0x6000):
                self._score.count(found is None, what)
                continue
            act = self._rules.act_on(tag)
            if act is Act.REMOVE:
                self._score.count(found is None, what)
            elif element.VR == "SQ":
                self._items(act, element, found, what, masked=masked)
            elif not masked or act not in (Act.KEEP, Act.CLEAN):
                self._score.count(self._is_done(act, element, found), what)
            elif (
                element.VR in _TEXTS and element.value and before.get("CodingSchemeDesignator") not in _PUBLIC
            ):
                self._score.count(found is not None and found.value != element.value, what)

    def _items(self, act: Act, before: DataElement, after: Any, what: str, *, masked: bool) -> None:
        """All that was there, or nothing."""
        if act is Act.EMPTY:
            self._score.count(after is not None and not after.value, what)
            return
        self._score.count(after is not None and len(after.value) == len(before.value), what)
        for number, one in enumerate(before.value if after is not None else ()):
            self._walk(one, after.value[number], f"{what}[{number}]", masked=masked or act is Act.DUMMY)

    def _is_done(self, act: Act, before: DataElement, after: Any) -> bool:
        value, ours = before.value, None if after is None else after.value
        if before.keyword in _PIXELS:
            return bool(ours == without_comments(value))
        if before.keyword == "ICCProfile" and isinstance(ours, bytes):
            return colours_of(ours) == colours_of(value) and not self.tells(ours)
        if act is Act.EMPTY:
            return after is not None and not ours
        if value in (None, "", b"") or (act is Act.KEEP and before.VR in _BINARY and not self.tells(value)):
            return after is not None and ours == value
        if act is Act.PSEUDONYM and before.keyword in ("PatientID", "PatientName"):
            return str(ours) == self._patient
        if act is Act.UID and before.VR == "UI":
            pseudonyms = Pseudonyms(KEY)
            return [pseudonyms.uid(uid) for uid in _several(value)] == _several(ours)
        if act is Act.SHIFT and before.VR in ("DA", "DT"):
            return _several(ours) == [self._moved(each) for each in _several(value)]
        if act in (Act.DUMMY, Act.PSEUDONYM):
            return after is not None and (ours != value or not self.tells(value))
        return self._is_kept(before, after)

    def _is_kept(self, before: DataElement, after: Any) -> bool:
        value, ours = before.value, None if after is None else after.value
        if self.tells(value):
            return not self.tells(ours)
        if before.VR in _NUMBERS and not all(re.fullmatch(_NUMBERS[before.VR], v) for v in _several(value)):
            return not ours  # what is no number says something else
        return after is not None and (ours == value or (before.VR in _TEXTS and not self._texts))

    def _moved(self, told: str) -> str:
        told = told.replace(".", "", 2) if "." in told[:8] else told
        day = date(int(told[:4]), int(told[4:6]), int(told[6:8])) - timedelta(self._days)
        return day.strftime("%Y%m%d") + told[8:]


async def send(data: bytes, rules: Rules) -> bytes:
    async def chunks():
        for at in range(0, len(data), 8192):
            yield data[at : at + 8192]

    return b"".join([piece async for piece in rewrite(chunks(), HeaderRewriter(rules, Pseudonyms(KEY)))])


def leaks(data: bytes, planted: Iterable[str], charset: str = "") -> set[str]:
    """What can be read there in any way, but for the pixels."""
    rest = without_pixels(data)
    told = plain("\n".join(texts_of(dcmread(BytesIO(data)))))
    return {
        word
        for word in planted
        if plain(word) in told or any(reading in rest for reading in readings(word, charset))
    }


def plain(text: str) -> str:
    """As it is compared: without case, accents, width and marks between."""
    folded = text.casefold()
    if folded.isascii():
        return re.sub(r"[\W_]", "", folded)
    folded = unicodedata.normalize("NFKD", folded)
    return re.sub(r"[\W_]", "", "".join(letter for letter in folded if not unicodedata.combining(letter)))


def texts_of(dataset: Any) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for one in element.value or ():
                yield from texts_of(one)
        elif element.VR not in _BINARY:  # which are looked through as they are
            yield str(element.value)


def without_pixels(data: bytes) -> bytes:
    dataset = dcmread(BytesIO(data))
    for keyword in _PIXELS:
        if keyword in dataset:
            at = data.rfind(dataset[keyword].value[:64])
            return data[:at] if at > 0 else data
    return data


def readings(word: str, charset: str) -> Iterator[bytes]:
    terms = (python_encoding.get(term, "ascii") for term in charset.split("\\"))
    for code in {"utf-8", "utf-16-le", "latin-1", *terms}:
        try:
            yield word.encode(code)
        except (UnicodeEncodeError, LookupError):
            continue


def errors_of(path: Path) -> set[str]:
    """By dciodvfy."""
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, check=False)
    lines = found.stderr.decode("latin-1").splitlines()
    return {re.sub(r"UID [\d.]+", "", line) for line in lines if line.startswith("Error")}


def without_comments(pixels: bytes) -> bytes:
    """Of JPEG 2000, whose frames tell what has packed them, and whatever else."""

    def blank(found: re.Match[bytes]) -> bytes:
        return found[1] + b" " * len(found[2])

    if b"\xff\x4f\xff\x51" not in pixels:
        return pixels
    return re.sub(rb"(\xff\x64..\x00\x01)([ -~]{8,})", blank, pixels, flags=re.DOTALL)


def colours_of(profile: bytes) -> list[tuple[float, ...] | str | None]:
    """As littlecms reads them, whatever is written beside them."""
    read = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
    primaries = (read.red_primary, read.green_primary, read.blue_primary, read.media_white_point)
    points = [each and each[0] for each in primaries]
    return [read.xcolor_space, read.connection_space, *points, str(len(profile))]


def _several(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str) or not hasattr(value, "__iter__") else list(map(str, value))
