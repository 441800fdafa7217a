"""What is known of the people and places in an object, found again wherever a text may stay."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

MARK: Final = "***"
_SHORTEST_ID: Final = 3
_ANYWHERE: Final = 5  # letters of a name that is found within longer words too
_CODES: Final = ("latin-1", "utf-8", "utf-16-le")
_IDEOGRAPHS: Final = "\u2e80"  # from here on, scripts without spaces: a name may be one letter long
_SPELT: Final = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "aa", "ø": "oe", "æ": "ae"}
_MONTHS: Final = "jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
_TITLES: Final = "dr|prof|mr|mrs|ms|herr|frau|mme|mlle|monsieur|madame|dott|sra?|patient(?:in)?"
# What identifies somebody though nobody has said so, in texts that are there to be read.
_TELLING: Final = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+|(?:https?://|www\.)\S+"
    r"|(?<!\d)(?:19|20)\d{6}(?!\d)|(?<!\d)\d{1,4}[./-]\d{1,2}[./-]\d{2,4}(?!\d)"
    rf"|(?<!\w)\d{{1,2}}(?:st|nd|rd|th|\.)?[ -]?(?:{_MONTHS})[a-zäé]*\.?[ -]?,?\d{{2,4}}(?!\d)"
    rf"|(?<!\w)(?:{_MONTHS})[a-zäé]*\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{2,4}}(?!\d)"
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
    births: set[str] = field(default_factory=set)

    def add(self, others: Facts) -> None:
        self.names |= others.names
        self.words |= others.words
        self.births |= others.births

    @property
    def key(self) -> Hashable:
        return frozenset(self.names), frozenset(self.words), frozenset(self.births)

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
        return _blot(text, self._pattern)

    def clean(self, text: str) -> str:
        """Besides, without whatever tells of somebody by its looks alone."""
        text = self.clear(text)
        kept = _UID.findall(text)
        cleaned = _UID.sub("\ue000", text)
        cleaned = _TELLING.sub(MARK, cleaned)
        for uid in kept:
            cleaned = cleaned.replace("\ue000", uid, 1)
        return cleaned

    def is_in(self, text: str) -> bool:
        """Whether anything is there that can't well be by chance: short names may be codes."""
        return self._long is not None and self._long.search(_fold(text)[0]) is not None

    def is_within(self, value: bytes) -> bool:
        """Likewise, in bytes of whatever kind, which may be many."""
        if self._anyhow is None:
            return False
        return any(self._anyhow.search(value.decode(code, "ignore")) for code in _CODES)

    @cached_property
    def _terms(self) -> list[str]:
        found = {_fold(word.strip())[0] for word in self._facts.words}
        terms = {_loosely(word) for word in found if len(word) >= _SHORTEST_ID}
        patterns = {_bounded(term, r"[^\W_]", r"[^\W_]") for term in terms}
        for name in self._facts.names:
            for word in _parts_of(name):
                for spelt in {_fold(word)[0], _fold(_spell(word))[0]} - {""}:
                    loose = _loosely(spelt)
                    if len(spelt) >= _ANYWHERE or spelt[0] >= _IDEOGRAPHS:
                        patterns.add(loose)
                    elif len(spelt) > 1:
                        patterns.add(_bounded(loose, r"[^\W\d_]", r"[^\W\d_]"))
        patterns.update(_bounded(date, r"\d", r"\d") for born in self._facts.births for date in _dates(born))
        return sorted(patterns - {""}, key=len, reverse=True)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile("|".join(self._terms)) if self._terms else None

    @cached_property
    def _long(self) -> re.Pattern[str] | None:
        return _any_of(_fold(word)[0] for word in self._long_words)

    @cached_property
    def _anyhow(self) -> re.Pattern[str] | None:
        """For texts too long to be folded: as it is written, and without its accents."""
        return _any_of(spelt for word in self._long_words for spelt in {word.casefold(), _fold(word)[0]})

    @cached_property
    def _long_words(self) -> list[str]:
        names = {word for name in self._facts.names for word in _parts_of(name)}
        words = names | {word.strip() for word in self._facts.words}
        return [word for word in sorted(words) if len(_fold(word)[0]) >= _ANYWHERE]


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    patterns = sorted(filter(None, map(_loosely, words)), key=len, reverse=True)
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


def _blot(text: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None or not text:
        return text
    folded, places = _fold(text)
    cut, at = [], 0
    for found in pattern.finditer(folded):
        begin, end = places[found.start()], places[found.end() - 1] + 1
        while end < len(text) and _is_mark(text[end]):
            end += 1
        cut += [text[at:begin], MARK]
        at = max(end, at)
    return "".join((*cut, text[at:])) if cut else text


def _fold(text: str) -> tuple[str, range | list[int]]:
    """As it is compared: without case, accents, width; and where each letter of it stands."""
    if text.isascii():
        return text.lower(), range(len(text))
    letters, places = [], []
    for place, letter in enumerate(text):
        for plain in unicodedata.normalize("NFKD", letter.casefold()):
            if not _is_mark(plain):
                letters.append(plain)
                places.append(place)
    return "".join(letters), places


def _is_mark(letter: str) -> bool:
    """An accent or a vowel sign, that stands above or below another letter."""
    return not letter.isascii() and unicodedata.category(letter).startswith("M")


def _loosely(word: str) -> str:
    """Whatever stands between its parts, or nothing does."""
    return r"[\W_]*".join(map(re.escape, re.findall(r"[^\W_]+", word)))


def _spell(word: str) -> str:
    return "".join(_SPELT.get(letter, letter) for letter in word.lower())


def _parts_of(name: str) -> Iterator[str]:
    """Family, given and middle names in each of its scripts: each whole, and by words."""
    name = unicodedata.normalize("NFC", name)
    for group in "".join(letter for letter in name if not _is_mark(letter)).split("="):
        parts = [part.strip() for part in group.split("^")[:3] if part.strip()]
        yield from parts
        yield from (word for part in parts for word in re.findall(r"[^\W\d_]+", part))
        if len(parts) > 1:
            yield from (parts[0] + parts[1], parts[1] + parts[0])


def _dates(born: str) -> Iterable[str]:
    if not re.fullmatch(r"\d{8}", born):
        return ()
    year, month, day = born[:4], born[4:6], born[6:]
    early, between = (f"0?{int(month)}", f"0?{int(day)}"), "[ ./-]?"
    orders = ((year, *early), (early[1], early[0], year), (early[0], early[1], year))
    return (born, day + month + year, *(between.join(order) for order in orders))


def _bounded(pattern: str, before: str, after: str) -> str:
    return f"(?<!{before}){pattern}(?!{after})" if pattern else ""
