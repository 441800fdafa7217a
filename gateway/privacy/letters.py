"""Letters as they are compared: without case, accents, width and script; and how else a name may be spelt."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LONG: Final = 5  # letters of a name that may be spelt otherwise, and is found within longer words too
_IDEOGRAPHS: Final = "\u2e80"  # from here on, scripts without spaces: a name may be one letter long
# What is written for a letter: the first is what it is compared as.
_OTHERWISE: Final = """
ä=a|ae ö=o|oe ü=u|ue å=a|aa ø=o|oe æ=ae|a|e œ=oe|o ß=ss|s|sz ł=l đ=d|dj ð=d|dh þ=th ı=i ħ=h ŧ=t ŋ=n
č=c|ch ć=c|ch š=s|sh ş=s|sh ž=z|zh ñ=n|ny
а=a б=b в=v|w г=g|h ґ=g д=d е=e|ye|ie|je ё=e|yo|io|jo є=ie|ye|je|e ж=zh|z|j|g з=z|s и=i|y і=i|y
ї=i|yi|ji й=i|y|j к=k л=l м=m н=n о=o п=p р=r с=s|ss т=t у=u|ou ф=f х=kh|h|ch|x ц=ts|c|tz|z
ч=ch|c|tch|tsch ш=sh|s|ch|sch щ=shch|sch|s ъ= ы=y|i ь= э=e ю=yu|iu|ju|you я=ya|ia|ja|a
ђ=d|dj ј=j|y љ=lj|l њ=nj|n ћ=c|ch џ=dz|dj ў=u|w
α=a β=v|b γ=g|y δ=d ε=e ζ=z η=i|e θ=th ι=i|y κ=k|c λ=l μ=m ν=n ξ=x|ks ο=o π=p ρ=r σ=s ς=s
τ=t υ=y|u|i|v φ=f|ph χ=ch|h|kh|x ψ=ps ω=o
"""
_WRITTEN: Final = {each[0]: each[2:].split("|") for each in _OTHERWISE.split()}
_PLAIN: Final = {letter: written[0] for letter, written in _WRITTEN.items()}
_DIGRAPHS: Final = ("ae", "oe", "ue", "aa")  # for a letter that whoever wrote it didn't have
_ELISION: Final = re.compile(r"(?<=\b[^\W\d_])['’ʼ`´](?=[^\W\d_])")  # O'Brien
BROKEN: Final = re.compile(r"(?:[-\u2010]|(?<![ \t]))[ \t]*(?:\r\n?|\n)[ \t]*")  # a word over two lines


def fold(text: str, aside: re.Pattern[str] = _ELISION) -> tuple[str, range | list[int]]:
    """As it is compared, and where each letter of it stands. `aside`: what is passed over."""
    passed = {at for found in aside.finditer(text) for at in range(*found.span())}
    if text.isascii() and not passed:
        return text.lower(), range(len(text))
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        if place not in passed:
            plain = fold_letter(letter)
            letters += plain
            places += [place] * len(plain)
    return "".join(letters), places


def fold_letter(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    parts = unicodedata.normalize("NFKD", letter.casefold())
    return "".join(_PLAIN.get(part, part) for part in parts if not is_mark(part))


def is_mark(letter: str) -> bool:
    """An accent or a vowel sign, that stands above or below another letter, or what nobody sees at all."""
    return not letter.isascii() and unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf")


def is_long(word: str) -> bool:
    """Of a name that can't well be there by chance."""
    folded = fold(word)[0]
    return len(folded) >= _LONG or folded[:1] >= _IDEOGRAPHS


def spellings(word: str) -> str:
    """A pattern, for folded texts: as it is, as those write it who haven't its letters, and s p a c e d.
    Whatever stands between its parts, or nothing does."""
    word = unicodedata.normalize("NFC", _ELISION.sub("", word)).lower()
    parts = re.findall(r"[^\W_]+", word)
    told = r"[\W_]*".join(map(_spelt, parts))
    letters = fold("".join(parts))[0]
    if not letters:
        return ""
    if len(letters) < _LONG or letters >= _IDEOGRAPHS:
        return told
    spaced = r"[\W_]".join(map(re.escape, letters))
    return rf"{told}|(?<![^\W_]){spaced}(?![^\W_])"


def _spelt(part: str) -> str:
    told = []
    for at, letter in enumerate(part):
        written = _WRITTEN.get(letter) or [fold_letter(letter)]
        if len(part) >= _LONG and part[at - 1 : at + 1] in _DIGRAPHS:
            told.append(f"{letter}?")
        else:
            longest = sorted(map(re.escape, written), key=len, reverse=True)
            told.append(longest[0] if len(longest) == 1 else f"(?:{'|'.join(longest)})")
    return "".join(told)
