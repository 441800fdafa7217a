"""What is known of the people and places in an object, found again wherever a text may stay."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from gateway.privacy import days
from gateway.privacy.letters import BROKEN, fold, is_long, is_mark, spellings

MARK: Final = "***"
_SHORTEST_ID: Final = 3
_ANYWHERE: Final = 5  # characters of a number that is found within longer words too
_SURE_DIGITS: Final = 6  # of a number that isn't met by chance
_CODES: Final = ("latin-1", "utf-8", "utf-16-le", "utf-16-be")
_PIECE: Final = 2**20  # bytes that are searched at once
_LONGEST: Final = 2**12  # of what is searched for
_TITLES: Final = "dr|prof|mr|mrs|ms|herr|frau|mme|mlle|monsieur|madame|dott|sra?|patient(?:in)?"
# What identifies somebody though nobody has said so, in texts that are there to be read.
_TELLING: Final = re.compile(
    r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+|(?:https?://|www\.)\S+"
    r"|(?<!\w)\+?\d[\d ()/-]{6,}\d(?!\w)"
    r"|(?<!\w)(?:mrn|pid|acc(?:ession)?|case|ssn|tel|phone|fax)\b[ .:#no]*[\w-]*\d[\w-]*"
    rf"|(?<!\w)(?:{_TITLES})\b\.?,?(?-i:(?: [A-ZÀ-Þ][\w'-]+){{1,3}})",
    re.IGNORECASE,
)
_UID: Final = re.compile(r"(?<![\d.])[0-2](?:\.\d+){5,}(?![\d.])")


@dataclass(slots=True)
class Facts:
    """Gathered before anything is rewritten. Names are as DICOM writes them."""

    names: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)  # numbers, places, addresses
    days: set[str] = field(default_factory=set)  # of birth; of the study, unless its dates may stay

    def add(self, others: Facts) -> None:
        self.names |= others.names
        self.words |= others.words
        self.days |= others.days

    @property
    def key(self) -> Hashable:
        return frozenset(self.names), frozenset(self.words), frozenset(self.days)

    def __len__(self) -> int:
        return len(self.names) + len(self.words) + len(self.days)

    def __repr__(self) -> str:
        return "Facts()"


class Known:
    def __init__(self, facts: Facts, uid: Callable[[str], str]) -> None:
        self._facts = facts
        self._uid = uid

    def clear(self, text: str) -> str:
        """Without what is known, UIDs by others: the same text, if nothing of it is in there."""
        if "." in text:
            text = _UID.sub(lambda found: self._uid(found[0]), text)
        if self._pattern is None or not text:
            return text
        text = _blot(text, self._pattern, *fold(text))
        return _blot(text, self._pattern, *fold(text, BROKEN)) if BROKEN.search(text) else text

    def clean(self, text: str) -> str:
        """Besides, without whatever tells of somebody by its looks alone."""
        text = self.clear(text)
        kept = _UID.findall(text)
        cleaned = _UID.sub("\ue000", text)
        cleaned = _TELLING.sub(MARK, _blot(cleaned, days.ANY_DAY, *fold(cleaned)))
        for uid in kept:
            cleaned = cleaned.replace("\ue000", uid, 1)
        return cleaned

    def is_in(self, text: str) -> bool:
        """Whether anything is there that can't well be by chance: short names may be codes."""
        return self._long is not None and self._long.search(fold(text)[0]) is not None

    def is_number(self, text: str) -> bool:
        """One that is somebody's, and not met by chance."""
        return text.strip().lstrip("+0") in self._numbers

    def is_within(self, value: bytes) -> bool:
        """Likewise, in bytes of whatever kind, which may be many."""
        if self._anyhow is None:
            return False
        step = _PIECE - _LONGEST
        pieces = (value[at : at + _PIECE].lower() for at in range(0, len(value), step))
        return any(self._anyhow.search(piece.replace(b"\0", b"")) for piece in pieces)

    @cached_property
    def _words(self) -> set[str]:
        """Of an address, its parts too."""
        words = {word.strip() for word in self._facts.words}
        parts = {part.strip() for word in words for part in re.split(r"[,;\r\n]+", word)}
        return words | {part for part in parts if len(part) >= _ANYWHERE}

    @cached_property
    def _numbers(self) -> set[str]:
        digits = {word.lstrip("0") for word in self._words if word.isdecimal()}
        return {each for each in digits if len(each) >= _SURE_DIGITS}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        patterns = {_number(fold(word)[0]) for word in self._words if len(word) >= _SHORTEST_ID}
        for word in {word for name in self._facts.names for word in _parts_of(name)}:
            if is_long(word):
                patterns.add(spellings(word))
            elif len(word) > 1:
                patterns.add(_bounded(spellings(word), r"[^\W\d_]", r"[^\W\d_]"))
        patterns.update(written for day in self._facts.days for written in days.writings(day))
        return _any_of(patterns)

    @cached_property
    def _long(self) -> re.Pattern[str] | None:
        return _any_of(
            spellings(word) if named else _loosely(fold(word)[0]) for word, named in self._long_words.items()
        )

    @cached_property
    def _anyhow(self) -> re.Pattern[bytes] | None:
        """For bytes in small letters and without zeros: in whatever code it is written."""
        given = {*self._long_words, *(day for day in self._facts.days if any(days.writings(day)))}
        words = {spelt for word in given for spelt in (word.lower(), word.upper(), fold(word)[0])}
        found = sorted({_coded(word, code) for word in words for code in _CODES} - {b""}, key=len)
        return re.compile(b"|".join(reversed(found))) if found else None

    @cached_property
    def _long_words(self) -> dict[str, bool]:
        """And whether each is of a name."""
        words = dict.fromkeys(self._words, False)
        words |= {word: True for name in self._facts.names for word in _parts_of(name)}
        return {word: named for word, named in words.items() if len(fold(word)[0]) >= _ANYWHERE}


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    found = sorted(filter(None, patterns), key=lambda pattern: (-len(pattern), pattern))
    return re.compile("|".join(found)) if found else None


def _coded(word: str, code: str) -> bytes:
    """A pattern; empty, if it can't be written so."""
    try:
        parts = [part.encode(code).lower().replace(b"\0", b"") for part in re.findall(r"[^\W_]+", word)]
    except UnicodeEncodeError:
        return b""
    return rb"[\W_]*".join(map(re.escape, parts))


def _blot(text: str, pattern: re.Pattern[str], folded: str, places: range | list[int]) -> str:
    cut, at = [], 0
    for found in pattern.finditer(folded):
        begin, end = places[found.start()], places[found.end() - 1] + 1
        while end < len(text) and is_mark(text[end]):
            end += 1
        cut += [text[at:begin], MARK]
        at = max(end, at)
    return "".join((*cut, text[at:])) if cut else text


def _loosely(word: str) -> str:
    """Whatever stands between its parts, or nothing does."""
    return r"[\W_]*".join(map(re.escape, re.findall(r"[^\W_]+", word)))


def _number(word: str) -> str:
    """Of a patient, an order, a place: within words too if it is long, but not within longer numbers."""
    told = _loosely(word)
    letters = re.sub(r"[\W_]", "", word)
    if not letters:
        return ""
    if letters.isdecimal() and len(digits := letters.lstrip("0")) >= _SHORTEST_ID + 1:
        between = "[ ./-]?" if len(digits) >= _SURE_DIGITS else ""
        told = "0*" + between.join(digits)
    number = len(letters) >= _ANYWHERE and any(letter.isdecimal() for letter in letters)
    before, after = (
        r"\d" if letter.isdecimal() else "" if number else r"[^\W\d_]" for letter in (letters[0], letters[-1])
    )
    return _bounded(told, before, after)


def _parts_of(name: str) -> Iterator[str]:
    """Family, given and middle names in each of its scripts: each whole, and by words."""
    name = unicodedata.normalize("NFC", name)
    for group in "".join(letter for letter in name if not is_mark(letter)).split("="):
        parts = [part.strip() for part in group.split("^")[:3] if part.strip()]
        yield from parts
        yield from (word for part in parts for word in re.findall(r"[^\W\d_]+", part))
        if len(parts) > 1:
            yield from (parts[0] + parts[1], parts[1] + parts[0])


def _bounded(pattern: str, before: str, after: str) -> str:
    if not pattern:
        return ""
    behind = f"(?<!{before})" if before else ""
    ahead = f"(?!{after})" if after else ""
    return f"{behind}(?:{pattern}){ahead}"
