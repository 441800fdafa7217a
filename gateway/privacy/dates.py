"""Dates and times as DICOM writes them."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

DUMMIES: Final = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}
_FORMS: Final = {
    "DA": re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)()"),
    "DT": re.compile(r"(\d{4})(\d\d)?(\d\d)?([0-9.]{0,13}(?:[+-]\d{4})?)"),
    "TM": re.compile(r"\d\d:?(\d\d:?(\d\d(\.\d{1,6})?)?)?"),
}


def is_valid(value: str, vr: str) -> bool:
    return not value.strip() or _FORMS[vr].fullmatch(value.strip()) is not None


def is_zone(value: str) -> bool:
    return re.fullmatch(r"[+-]\d{4}", value) is not None


def move_back(value: str, vr: str, days: int) -> str:
    """As exact as it was; times stay. What is no date becomes a dummy."""
    text = value.strip()
    found = _FORMS[vr].fullmatch(text)
    if not text:
        return value
    if found is None:
        return DUMMIES[vr]
    if vr == "TM":
        return value
    year, month, day, rest = found.groups()
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) - timedelta(days)
    except (ValueError, OverflowError):
        return DUMMIES[vr]
    told = f"{moved.year:04}{moved.month:02}{moved.day:02}"
    return told[: len(year + (month or "") + (day or ""))] + (rest if day else "")
