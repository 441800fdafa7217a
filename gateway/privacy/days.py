"""Days as people write them, in whatever order and language, in texts that are folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# How the names of each month begin, in folded letters.
_MONTHS: Final = (
    "jan|ene|gen|yanv|ianv|sty|led|tammi|oca",
    "feb|fev|lut|uno|helmi|sub",
    "mar|mrt|mrz|maerz|maa|bre",
    "apr|avr|abr|kwi|dub|huhti|nis",
    "may|mai|mei|mag|maj|kve|touko",
    "jun|juin|giu|iyun|iiun|cze|cerven|kesa|haz",
    "jul|juil|lug|iyul|iiul|lip|cervenec|heina|tem",
    "aug|aou|ago|avg|sie|srp|elo|agu",
    "sep|set|sen|wrz|zar|syys|eyl",
    "oct|okt|ott|out|paz|rij|loka|eki",
    "nov|noy|noe|lis|marras|kas",
    "dec|dez|dic|dek|des|gru|pro|joulu|ara",
)
_ROMAN: Final = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_NAMES: Final = (  # of those that other words don't begin like
    r"jan(?:uar[iy]?|vier)?|janvier|enero|gennaio|yanvarya|feb(?:ruar[iy]?|rero|braio)?|fevr?(?:ier|ereiro|ralya)?"
    r"|mar(?:ch|s|zo|co|ta)?|maerz|marz|maart|mrz|apr(?:il(?:e|is)?|elya)?|avr(?:il)?|abr(?:il)?|may[oa]?|mai(?:o)?"
    r"|mei|maggio|maj|jun[ie]?|juin|junio|junho|giugno|iyunya|jul[iy]?|juil(?:let)?|julio|julho|luglio|iyulya"
    r"|aug(?:ust(?:us|i)?)?|aout|ago(?:sto)?|avgusta|sept?(?:ember|embre|iembre)?|settembre|setembro|sentyabrya"
    r"|o[ck]t(?:ober|obre|ubre|yabrya)?|ottobre|outubro|nov(?:ember|embre|iembre|embro)?|noyabrya"
    r"|de[cz](?:ember|embre|embro)?|dic(?:iembre|embre)?|dekabrya"
)
_NTH: Final = r"(?:st|nd|rd|th|er|\.)?"
_BETWEEN: Final = r"[\s./,-]{0,3}(?:(?:of|de|del|di|den)\s+)?"
_CLOCK: Final = r"(?:t?\d{4}(?:\d\d)?)?"
ANY_DAY: Final = re.compile(
    rf"(?<!\d)(?:19|20)\d{{6}}{_CLOCK}(?!\d)"
    r"|(?<!\d)\d{1,4}[./-] ?\d{1,2}[./-] ?\d{2,4}(?!\d)"
    r"|(?<!\d)(?:19|20)\d\d\s?[^\W\d_]{1,3}\s?\d{1,2}\s?[^\W\d_]{1,3}\s?\d{1,2}(?!\d)"
    rf"|(?<!\w)\d{{1,2}}{_NTH}{_BETWEEN}(?:{_NAMES})\.?{_BETWEEN}(?:\d\d)?\d\d(?!\d)"
    rf"|(?<!\w)(?:{_NAMES})\.?[ -]\d{{1,2}}{_NTH},?[ -](?:\d\d)?\d\d(?!\d)"
    rf"|(?<!\d)(?:19|20)\d\d{_BETWEEN}(?:{_NAMES})\.?{_BETWEEN}\d{{1,2}}(?!\d)"
    rf"|(?<!\w)\d{{1,2}}[./ -]{{1,2}}(?:{'|'.join(reversed(_ROMAN))})[./ -]{{1,2}}(?:19|20)\d\d(?!\d)"
)


def writings(day: str) -> Iterator[str]:
    """Patterns of one that is known (`YYYYMMDD`); none of what is no day."""
    found = re.fullmatch(r"(\d\d)(\d\d)(0\d|1[0-2])([0-2]\d|3[01])", day)
    if found is None or "00" in found.groups()[2:]:
        return
    century, short, month, date = found.groups()
    m, d, year = f"0?{int(month)}", f"0?{int(date)}", f"(?:{century})?{short}"
    named, sep = rf"(?:{_MONTHS[int(month) - 1]})[^\W\d_]*", r"\D{0,4}"
    for told in (
        rf"{century}{short}{month}{date}{_CLOCK}",
        *(rf"{century}{short}{sep}{m}{sep}{d}", rf"{d}{sep}{m}{sep}{century}{short}"),
        *(rf"{m}{sep}{d}{sep}{century}{short}", rf"{short}{month}{date}", rf"{date}{month}{short}"),
        *(rf"{month}{date}{short}", rf"{d}[./ -]{{1,2}}{m}[./ -]{{1,2}}'?{short}"),
        *(rf"{m}[./-]{d}[./-]'?{short}", rf"{short}[./-]{m}[./-]{d}"),
        rf"{d}{_NTH}{_BETWEEN}{named}{_BETWEEN}'?{year}",
        rf"{d}[./ -]{{1,2}}{_ROMAN[int(month) - 1]}[./ -]{{1,2}}{year}",
    ):
        yield rf"(?<!\d){told}(?!\d)"
    yield rf"(?<![^\W\d_]){named}[\s./,-]{{0,3}}{d}{_NTH}[\s./,-]{{0,3}}'?{year}(?!\d)"
    yield rf"(?<!\d){century}{short}{_BETWEEN}{named}{_BETWEEN}{d}(?!\d)"
