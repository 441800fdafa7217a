"""What a vendor made of a study that it knew by pseudonyms, led back to whom it is about.

Every pseudonym that was issued for the job becomes what it stands for, in references and texts too; whether
what it then claims to be about is the job's study is for others to check. Days that were moved are the true
ones again. A name is left empty, and what was said of the de-identification goes: the result is filled from
the study itself. Documents aren't touched, and their titles say so.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final

from gateway.dicom.inflation import Inflation
from gateway.dicom.part10 import DEFLATED, MAX_HEADER, PIXELS, Meta, NotDicom, find_element, read_meta
from gateway.privacy.charsets import DEFAULT, TEXTS, Charsets, encode, read_charsets
from gateway.privacy.elements import Element, Writing
from gateway.privacy.facts import text_of
from gateway.privacy.meta import write_meta
from gateway.privacy.values import with_text

_CHARSET: Final = 0x00080005
UNTOUCHED: Final = "(names the patient by a pseudonym)"
SAID_OF_DOCUMENT: Final = "The document is as the vendor made it: it names the patient by a pseudonym."
_TITLE, _DOCUMENT = 0x00420010, 0x00420011
_NAME, _BORN, _TAKEN, _KIND = 5, 7, 7, 2  # of the patient, in PID; of a study, in OBR; of a value, in OBX
_SIGNS: Final = frozenset((0x00120062, 0x00120063, 0x00120064, 0x00280303))
_RECOGNISED: Final = 4  # characters by which an original is known again
_SHOWN: Final = ("displayResult", "displayProperties", "data", "attachments")
_DAY: Final = 8  # letters
_PIECE: Final = 2**20
_LARGEST: Final = 512 * 2**20  # of a result without pixels: a report, a list of annotations


class OnSlide:
    """What a vendor writes on a slide by its own hand, and what it is shown of that again. A pseudonym of
    what is too short to be known again stays there as it is."""

    def __init__(self, issued: Mapping[str, str]) -> None:
        known = {each: original for each, original in issued.items() if len(original) >= _RECOGNISED}
        self._back = WayBack(known)
        self._out = WayBack({original: each for each, original in known.items()})

    def restored(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return _translated(result, self._back)

    def disguised(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return _translated(result, self._out)


class WayBack:
    """`issued`: of the job, what each pseudonym stands for; `days`: likewise (`YYYYMMDD`)."""

    def __init__(self, issued: Mapping[str, str], days: Mapping[str, str] | None = None) -> None:
        self._issued = issued
        self._days = days or {}
        words = sorted(map(re.escape, issued), key=len, reverse=True)
        self._pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(words)})(?![\w]|\.\d)") if words else None

    def text(self, text: str, written: Callable[[str], str] = str) -> str:
        """`written`: how what a pseudonym stands for is written there."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: written(self._issued[found[0]]), text)

    def message(self, text: str, escape: Callable[[str], str]) -> str:
        """Of HL7. Where the vendor took the patient's pseudonym for a name, none is left, nor dates of birth
        and of the study, which it knew as others. Documents in it aren't touched, and a note says so."""
        lines = re.split("([\r\n]+)", text)
        end, separator = "\r" if "\r" in text else "\n", text[3:4] or "|"
        for number, line in enumerate(lines):
            fields = line.split(separator)
            if fields[0] == "PID" and self.text(line) != line:
                born = fields[_BORN : _BORN + 1]
                fields[_BORN : _BORN + 1] = [""] * len(born)
                if len(fields) > _NAME and self.text(fields[_NAME]) != fields[_NAME]:
                    fields[_NAME] = ""
            elif fields[0] == "OBR" and self.text(text) != text:
                fields[_TAKEN : _TAKEN + 2] = [""] * len(fields[_TAKEN : _TAKEN + 2])
            lines[number] = separator.join(fields)
            if fields[0] == "OBX" and fields[_KIND : _KIND + 1] == ["ED"]:
                lines[number] += end + separator.join(("NTE", "1", "L", SAID_OF_DOCUMENT))
        return self.text("".join(lines), escape)

    def value(self, value: Any) -> Any:
        """Of JSON, keys and all."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value

    def object(self, path: Path) -> None:
        """In its place, once it is whole; NotDicom, if it can't be read."""
        with path.open("rb") as file, TemporaryFile(dir=path.parent) as inflated:
            meta, at = _read_meta(file.read(MAX_HEADER))
            file.seek(at)
            packed = meta.transfer_syntax == DEFLATED
            source = _inflate(file, inflated) if packed else file
            start = source.tell()
            begun, end = b"", None
            while end is None and (more := source.read(max(MAX_HEADER, len(begun)))):
                begun += more
                if len(begun) > _LARGEST:
                    raise NotDicom("the header of an instance doesn't end")
                end = find_element(begun, meta.transfer_syntax, PIXELS)
            end = len(begun) if end is None else end
            writing = Writing(meta.transfer_syntax, begun)
            elements = self._restore(writing.read(begun[:end]), DEFAULT)
            restored = writing.write(_say_untouched(elements))
            beside = path.with_name(f"{path.name}.restored")
            with beside.open("wb") as out:
                out.write(write_meta(meta, self._issued.get))
                written = _Deflated(out) if packed else out
                written.write(restored)
                source.seek(start + end)
                shutil.copyfileobj(source, written, _PIECE)
                if isinstance(written, _Deflated):
                    written.finish()
        os.replace(beside, path)  # noqa: PTH105 - of one folder

    def _restore(self, elements: list[Element], charsets: Charsets) -> list[Element]:
        own = next((each for each in elements if each.tag == _CHARSET), None)
        charsets = read_charsets(own.value) if own is not None else charsets
        return [self._restored(each, charsets) for each in elements if each.tag not in _SIGNS]

    def _restored(self, element: Element, charsets: Charsets) -> Element:
        if element.items is not None:
            items = [self._restore(item, charsets) for item in element.items]
            return Element(
                element.tag, "SQ", items=items, as_written=element.as_written, implicit=element.implicit
            )
        if element.vr in ("DA", "DT"):
            return self._dated(element)
        if element.vr != "UI" and element.vr not in TEXTS:
            return element
        before = text_of(element, charsets)
        after = self.text(before)
        if after == before:
            return element
        value = b"" if element.vr == "PN" else encode(after, element.vr, charsets)
        value += (b"\0" if element.vr == "UI" else b" ") * (len(value) % 2)
        return Element(element.tag, element.vr, value, as_written=element.as_written)

    def _dated(self, element: Element) -> Element:
        values = text_of(element, DEFAULT).split("\\")
        days = [self._days.get(value[:_DAY]) for value in values]
        if not any(days):
            return element
        told = (value if day is None else day + value[_DAY:] for value, day in zip(values, days, strict=True))
        return with_text(element, "\\".join(told), DEFAULT)


def _translated(result: Mapping[str, Any], way: WayBack) -> dict[str, Any]:
    return {name: way.value(value) if name in _SHOWN else value for name, value in result.items()}


def _say_untouched(elements: list[Element]) -> list[Element]:
    """Of an encapsulated document."""
    if not any(each.tag == _DOCUMENT for each in elements):
        return elements
    title = next((each for each in elements if each.tag == _TITLE), Element(_TITLE, "ST"))
    said = (title.value.rstrip(b" \0") + b" " + UNTOUCHED.encode()).lstrip()
    titled = Element(_TITLE, title.vr, said + b" " * (len(said) % 2), as_written=title.as_written)
    before = [each for each in elements if each.tag < _TITLE]
    return [*before, titled, *(each for each in elements if each.tag > _TITLE)]


def _read_meta(begun: bytes) -> tuple[Meta, int]:
    meta = read_meta(begun)
    if meta is None:
        raise NotDicom("the file meta information of an instance doesn't end")
    return meta, meta.dataset


def _inflate(file: BinaryIO, into: BinaryIO) -> BinaryIO:
    """No more than a real object holds."""
    inflation = Inflation()
    while packed := file.read(_PIECE):
        for piece in inflation.feed(packed):
            into.write(piece)
    if not inflation.at_end:
        raise NotDicom("a deflated instance is cut off")
    into.seek(0)
    return into


class _Deflated:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    def write(self, data: bytes) -> None:
        self._out.write(self._deflate.compress(data))

    def finish(self) -> None:
        self._out.write(self._deflate.flush())
