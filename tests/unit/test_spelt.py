"""However a name, a number or a day is written in a text, it is known again."""

from __future__ import annotations

import unicodedata
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.privacy.known import Facts, Known

NAMES = [
    ("Mueller^Hans", "Müller|Muller|MÜLLER|mueller"),
    ("Müller^Jürgen", "Mueller|MULLER|Juergen|Mu\u0308ller"),
    ("Mu\u0308ller^Ju\u0308rgen", "Müller|JUERGEN"),
    ("Sørensen^Bjørn", "Sorensen|Bjorn|Soerensen|Bjoern"),
    ("Sorensen^Bjorn", "Sørensen|Bjørn"),
    ("Wałęsa^Łukasz", "Walesa|Lukasz"),
    ("Yıldız^Işıl", "Yildiz|YILDIZ|Isil"),
    ("Strauß^Änne", "Strauss|STRAUSS|Aenne"),
    ("Đorđević^Ana", "Djordjevic|Dordevic"),
    ("Æbelø^Ib", "Aebelo|Aebeloe"),
    ("Meyer-Lüdenscheid^Ina", "Luedenscheid|Meyer|MeyerLuedenscheid"),
    ("O'Brien^Sean", "OBrien|O’Brien"),
    ("OBrien^Sean", "O'Brien|O’Brien"),
    ("Иванов^Пётр", "Ivanov|Pyotr|Petr|иванов"),
    ("Щербакова^Юлия", "Shcherbakova|Yulia|Iuliia|Yuliya"),
    ("Παπαδόπουλος^Γιώργος", "Papadopoulos|Giorgos|ΠΑΠΑΔΟΠΟΥΛΟΣ"),
    ("Van der Berg^Jan", "vanderBerg|van-der-Berg|VANDERBERG"),
    ("Li^Wei", "Li|LiWei|wei"),
    (
        "Quintarelli^Ottavio",
        "Q u i n t a r e l l i|QUINTARELLIOTTAVIO2024|quintarelli's|Quinta-\r\nrelli"
        "|Ｑｕｉｎｔａｒｅｌｌｉ|Quint\u00adarelli|Quin\u200btarelli|Quintаrelli|ottavio_quintarelli",
    ),
]
NUMBERS = [
    ("20417733", "ACC20417733|No20417733X|20417733_1|20.417.733|2041 7733|0020417733|(20417733)"),
    ("0020417733", "20417733|acc20417733"),
    ("PLANTED-4711", "APLANTED-4711B|PLANTED_4711|planted4711|PLANTED 4711"),
    ("A93", "A93|a93.|(A93)"),
    ("Plantedlane 12, Plantedtown", "Plantedtown|Plantedlane 12"),
]
DAY = "19370405"
DAYS = (
    "5 April 1937|5. April 1937|April 5, 1937|April 5th 1937|5-Apr-37|05APR1937|1937.04.05|5/4/37|05041937"
    "|050437|370405|5 avril 1937|le 5 avr. 1937|5 de abril de 1937|5 aprile 1937|5th of April, 1937"
    "|1937 Apr 05|1937年4月5日|1937년 4월 5일|Apr-05-1937|5.IV.1937|05 04 1937|5. 4. 1937|5.4.37"
    "|5 апреля 1937|1937-04-05T10:11|19370405101112|04/05/1937|5 kwietnia 1937|april 5 1937"
)


def known(name: str = "", word: str = "", day: str = "") -> Known:
    facts = Facts({name} - {""}, {word} - {""}, {day} - {""})
    return Known(facts, uid=lambda uid: uid)


def letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


@pytest.mark.parametrize(("name", "written"), [(n, w) for n, told in NAMES for w in told.split("|")])
def test_a_name_is_known_however_it_is_spelt(name: str, written: str) -> None:
    left = known(name).clear(f"hand: {written}, left")
    assert "***" in left
    assert letters(left.replace("***", "")) in ("handleft", "handsleft", "hand2024left")


@pytest.mark.parametrize(("number", "written"), [(n, w) for n, told in NUMBERS for w in told.split("|")])
def test_a_number_is_known_within_other_words(number: str, written: str) -> None:
    left = known(word=number).clear(f"hand {written} left")
    assert "***" in left
    assert not [part for part in ("2041", "4711", "93", "Planted", "PLANTED") if part in left]


@pytest.mark.parametrize("written", DAYS.split("|"))
def test_a_day_is_known_however_it_is_written(written: str) -> None:
    left = known(day=DAY).clear(f"seen {written}: nothing")
    assert "***" in left
    assert "37" not in left


@pytest.mark.parametrize("written", DAYS.split("|"))
def test_a_day_that_nobody_knows_is_seen_too_where_texts_are_cleaned(written: str) -> None:
    if written in ("050437", "370405", "5 kwietnia 1937"):
        return  # which any number, or word, may be
    assert "37" not in known().clean(f"seen {written}: nothing")


STAYING = [
    *("MRT50H1", "3D SPGR 2.5 mm", "2 sets 10 slices", "T2 marrow 32", "1.2.3", "v2024", "Siemens VB17A"),
    *("CT 5.1.2 kernel B30f", "augmented 20", "Hand p.a. links", "12 decays 15", "no 12 to 14", "LiF"),
]


@pytest.mark.parametrize("text", STAYING)
def test_what_is_nobodys_stays(text: str) -> None:
    told = Known(Facts({"Li^Noe", "Mueller^Hans"}, {"20417733", "CT1"}, {DAY}), uid=lambda uid: uid)
    assert told.clean(text) == text


@pytest.mark.parametrize("piece", [" ", "1.2.", "- ", "_", "é ", "\n", "a-\n", "no "])
def test_a_long_text_is_searched_once_from_end_to_end(piece: str) -> None:
    """And not anew from each of its letters, which would take hours."""
    told = Known(Facts({"Quintarelli^Ottavio", "Van der Berg^Jan"}, {"20417733"}, {DAY}), uid=lambda uid: uid)
    assert told.clean(piece * 50_000) == piece * 50_000


def test_what_is_in_bytes_is_found_however_many_they_are() -> None:
    who = known("Quintarelli^Ottavio", day=DAY)
    for word in (b"Quintarelli", "QUINTARELLI".encode("utf-16-le"), DAY.encode()):
        for before in (0, 2**20 - 5, 2**21 + 3):
            assert who.is_within(bytes(before) + word)
    assert not who.is_within(bytes(2**21))


@given(st.dates(date(1900, 1, 1), date(2029, 12, 31)))
def test_any_day_is_known_again(day: date) -> None:
    who = known(day=day.strftime("%Y%m%d"))
    for form in ("%Y%m%d", "%d.%m.%Y", "%m/%d/%y", "%d %B %Y", "%b %d, %Y", "%Y-%m-%d", "%d%b%Y"):
        assert who.clear(f"on {day.strftime(form)}.") == "on ***."


@given(st.text(max_size=40), st.sampled_from([name for name, _ in NAMES]))
def test_clearing_again_changes_nothing_and_what_stands_around_stays(text: str, name: str) -> None:
    who = known(name)
    cleared = who.clear(f"{text} {name.replace('^', ' ')}")
    assert who.clear(cleared) == cleared
    plain = unicodedata.normalize("NFC", text)
    if plain.isascii() and not any(letter.isalpha() for letter in plain):
        assert cleared.startswith(text.rstrip())
