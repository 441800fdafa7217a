"""The header of one instance, rewritten: the tree of its elements, each by what the rules say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.contract import Unsuitable
from gateway.privacy.charsets import DEFAULT, ONE_VALUE, Charsets, read_charsets, readings
from gateway.privacy.colours import without_words
from gateway.privacy.content import CONTENT_IDS, OF_CODES, TEXT_VALUE, WHO, concept_of, is_public
from gateway.privacy.dates import DUMMIES, is_valid, is_zone, move_back
from gateway.privacy.elements import Element, Writing
from gateway.privacy.facts import gather, text_of
from gateway.privacy.known import MARK, Facts, Known
from gateway.privacy.pixels import why_kept_back
from gateway.privacy.profile import PSEUDONYMS, Act, Rules
from gateway.privacy.pseudonyms import Pseudonyms, is_standard
from gateway.privacy.signs import with_signs
from gateway.privacy.table import row_of
from gateway.privacy.values import DUMMY_WORDS, NUMBERS, STRINGS, WIDTHS, dummy_of, with_bytes, with_text

_CHARSET, _PATIENT, _ISSUER, _STUDY = 0x00080005, 0x00100020, 0x00100021, 0x0020000D
_DAY: Final = 8  # letters
_FRAME_TYPE: Final = 0x00089007
_SOP_CLASS: Final = 0x00080016
_COLOURS: Final = 0x00282000
_PIXELS: Final = 0x7FE0  # their group: in an item it is an icon of somebody's picture
_ZONE: Final = 0x00080201  # of all times, which stay
_MASKED: Final = frozenset((Act.KEEP, Act.CLEAN))  # and, of those, only what could tell anything
_UNMASKED: Final = frozenset(("CS", "UI", "SQ", *WIDTHS))
_SEARCHED: Final = 5  # bytes of a value that may tell somebody, whatever it is said to be
_REMEMBERED: Final = 200  # facts that are looked for in each instance


class Change(NamedTuple):
    """What became of one attribute; `path`: the tags of the sequences around it, and its own."""

    path: tuple[int, ...]
    vr: str
    before: str | None
    after: str | None
    why: str


class Rewritten(NamedTuple):
    """A header, and of which class the instance is from now on."""

    header: bytes
    sop_class: str


@dataclass(slots=True)
class _Object:
    """The instance that is being rewritten."""

    known: Known
    patient: str
    days: int


class HeaderRewriter:
    """Of one job. `facts`: what is known of the patient from elsewhere; `note` is told each change."""

    def __init__(
        self,
        rules: Rules,
        pseudonyms: Pseudonyms,
        facts: Facts | None = None,
        note: Callable[[Change], None] | None = None,
    ) -> None:
        self.pseudonyms = pseudonyms
        self._rules = rules
        self._facts = facts or Facts()
        self._note = note
        self._knowledge: dict[Hashable, Known] = {}

    def rewrite(self, header: bytes, transfer_syntax: str) -> Rewritten:
        """`header`: all elements before the pixels. Unsuitable, if the object may not leave."""
        writing = Writing(transfer_syntax, header)
        elements = writing.read(header)
        told = {element.tag: element for element in elements if element.items is None}

        def text(tag: int) -> str:
            return text_of(told[tag], DEFAULT) if tag in told else ""

        why = why_kept_back(text, _frame_types(elements), transfer_syntax, self._rules.profile)
        if why is not None:
            raise Unsuitable(
                f"an instance of the study {why}, and the profile lets no such leave",
                "Leave such instances out by `choose` of the application, or choose another profile.",
            )
        named = text(_PATIENT), self.pseudonyms.fix_issuer(text(_ISSUER)), text(_STUDY)
        current = _Object(
            self._knowledge_of(gather(elements, self._rules)),
            self.pseudonyms.patient(*named),
            self.pseudonyms.days(*named),
        )
        rewritten = self._rewrite(elements, DEFAULT, current, (), masked=False)
        kind = next((text_of(each, DEFAULT) for each in rewritten if each.tag == _SOP_CLASS), "")
        return Rewritten(writing.write(with_signs(rewritten, self._rules)), kind)

    def _knowledge_of(self, facts: Facts) -> Known:
        """What an instance tells of the patient is looked for in the next ones too."""
        facts.add(self._facts)
        if len(facts) <= _REMEMBERED:
            self._facts = facts
        key = facts.key
        if key not in self._knowledge:
            self._knowledge.clear()  # one patient at a time
            self._knowledge[key] = Known(facts, self.pseudonyms.uid)
        return self._knowledge[key]

    def _rewrite(
        self,
        elements: list[Element],
        charsets: Charsets,
        current: _Object,
        path: tuple[int, ...],
        *,
        masked: bool,
    ) -> list[Element]:
        """One dataset: the whole, or an item."""
        own = next((each for each in elements if each.tag == _CHARSET), None)
        charsets = read_charsets(own.value) if own is not None else charsets
        concept = concept_of(elements)
        masked = masked or concept in WHO
        public = is_public(elements)
        creators: dict[tuple[int, int], Element] = {}
        kept: list[Element] = []
        for element in elements:
            group, number = element.tag >> 16, element.tag & 0xFFFF
            if group & 1 and 0x10 <= number <= 0xFF:
                creators[group, number] = element
                continue
            act = self._decide(element, creators, path, masked and not (public and element.tag in OF_CODES))
            if concept in CONTENT_IDS and element.tag == TEXT_VALUE:
                act = Act.PSEUDONYM
            after = self._apply(act, element, charsets, current, path, concept, masked=masked)
            if after is not None:
                kept.append(after)
                if group & 1 and (creator := creators.pop((group, number >> 8), None)) is not None:
                    kept.append(creator)
            if self._note is not None:
                self._note(_change(act, path, element, after, charsets))
        return sorted(kept, key=lambda element: element.tag)

    def _decide(
        self,
        element: Element,
        creators: dict[tuple[int, int], Element],
        path: tuple[int, ...],
        masked: bool,
    ) -> Act:
        tag = element.tag
        if path and tag >> 16 == _PIXELS:
            return Act.REMOVE
        if tag >> 16 & 1:
            creator = creators.get((tag >> 16, tag >> 8 & 0xFF))
            listed = creator is not None and self._rules.keeps(tag >> 16, text_of(creator, DEFAULT), tag)
            return Act.KEEP if listed else Act.REMOVE
        if tag & 0xFFFF == 0:  # a length of what follows, which is another now
            return Act.REMOVE
        act = self._rules.act_on(tag)
        if tag == TEXT_VALUE and act is Act.KEEP:
            act = Act.CLEAN
        if masked and act in _MASKED and element.vr not in _UNMASKED:
            return Act.DUMMY
        return act

    def _apply(
        self,
        act: Act,
        element: Element,
        charsets: Charsets,
        current: _Object,
        path: tuple[int, ...],
        concept: str,
        *,
        masked: bool,
    ) -> Element | None:
        if act is Act.REMOVE:
            return None
        if element.items is not None:
            items = [
                self._rewrite(
                    item, charsets, current, (*path, element.tag), masked=masked or act is Act.DUMMY
                )
                for item in (() if act is Act.EMPTY else element.items)
            ]
            return Element(
                element.tag, "SQ", items=items, as_written=element.as_written, implicit=element.implicit
            )
        if element.raw is not None:  # fragments, as nothing but pixels may have
            return None
        if element.tag == _CHARSET:
            return element if charsets.known else with_text(element, "ISO_IR 100", DEFAULT)
        if act is Act.PSEUDONYM:
            return with_text(element, self._pseudonym_of(element, charsets, current, concept), charsets)
        if not element.value.strip(b" \0"):
            return element
        if act is Act.EMPTY:
            return with_text(element, "", charsets)
        if element.vr in DUMMIES:
            return self._dated(act, element, current)
        if element.vr == "UI":
            return self._identified(act, element, current.known)
        if element.tag == _ZONE and act is Act.SHIFT and is_zone(text_of(element, DEFAULT)):
            return element
        if act in (Act.DUMMY, Act.UID, Act.SHIFT):
            return dummy_of(element)
        return self._kept(act, element, charsets, current.known)

    def _pseudonym_of(self, element: Element, charsets: Charsets, current: _Object, concept: str) -> str:
        kind = PSEUDONYMS.get(element.tag) or CONTENT_IDS[concept]
        if kind == "patient":
            return current.patient
        text = text_of(element, charsets)
        return self.pseudonyms.of(kind, text) if text else ""

    def _dated(self, act: Act, element: Element, current: _Object) -> Element:
        values = text_of(element, DEFAULT).split("\\")
        if act is Act.KEEP and element.tag >> 16 & 1:
            act = self._rules.of_dates
        if act is Act.SHIFT:
            moved = [move_back(value, element.vr, current.days) for value in values]
            for told, original in zip(moved, values, strict=True):
                if told[:_DAY].isdecimal() and len(told) >= _DAY and element.vr != "TM":
                    self.pseudonyms.note_day(told[:_DAY], original.strip().replace(".", "", 2)[:_DAY])
            return with_text(element, "\\".join(moved), DEFAULT)
        if act is Act.KEEP and all(is_valid(value, element.vr) for value in values):
            return element
        return with_text(element, DUMMIES[element.vr], DEFAULT)

    def _identified(self, act: Act, element: Element, known: Known) -> Element:
        values = text_of(element, DEFAULT).split("\\")
        if act is Act.KEEP and element.tag >> 16 & 1 == 0 and all(map(_is_nobodys(known), values)):
            return element
        return with_text(element, "\\".join(map(self.pseudonyms.uid, values)), DEFAULT)

    def _kept(self, act: Act, element: Element, charsets: Charsets, known: Known) -> Element | None:
        """Searched for what is known, in whatever way it can be read."""
        vr = element.vr
        if vr in STRINGS:
            return self._searched(act, element, charsets, known)
        if vr in NUMBERS:
            text = text_of(element, DEFAULT)
            fits = NUMBERS[vr].fullmatch(text) is not None
            tells = any(map(known.is_number, text.split("\\")))
            return element if fits and not tells else with_text(element, "", DEFAULT)
        if len(element.value) >= _SEARCHED and known.is_within(element.value):
            return None
        return with_bytes(element, without_words(element.value)) if element.tag == _COLOURS else element

    def _searched(self, act: Act, element: Element, charsets: Charsets, known: Known) -> Element | None:
        text = text_of(element, charsets)
        if element.vr == "CS":
            values = ["REMOVED" if known.is_in(value) else value for value in text.split("\\")]
            return with_text(element, "\\".join(values), DEFAULT) if "REMOVED" in values else element
        clean = known.clean if act is Act.CLEAN else known.clear
        cleaned = clean(text) if element.vr in ONE_VALUE else "\\".join(map(clean, text.split("\\")))
        if cleaned == text:
            return element if _reads_alike(element, known, charsets) else dummy_of(element)
        if element.vr in DUMMY_WORDS or (self._rules.drops and cleaned.count(MARK) > text.count(MARK)):
            return None if "X" in row_of(element.tag).basic else dummy_of(element)
        return with_text(element, cleaned, charsets)


def _frame_types(elements: list[Element]) -> Iterator[str]:
    """Of images with frames of several kinds, which each frame may tell apart from the others."""
    for element in elements:
        if element.tag == _FRAME_TYPE:
            yield text_of(element, DEFAULT)
        for item in element.items or ():
            yield from _frame_types(item)


def _change(
    act: Act, path: tuple[int, ...], element: Element, after: Element | None, charsets: Charsets
) -> Change:
    def told(one: Element | None) -> str | None:
        return None if one is None or one.items is not None else text_of(one, charsets)

    tag = element.tag
    listed = "private" if tag >> 16 & 1 else row_of(tag).basic
    why = Act.REMOVE.value if after is None else Act.KEEP.value if after is element else act.value
    return Change((*path, tag), element.vr, told(element), told(after), f"{listed}: {why}")


def _is_nobodys(known: Known) -> Callable[[str], bool]:
    def judge(uid: str) -> bool:
        return is_standard(uid) or (re.fullmatch("[0-9.]*", uid) is not None and not known.is_in(uid))

    return judge


def _reads_alike(element: Element, known: Known, charsets: Charsets) -> bool:
    """Nothing known is in there, however it is read."""
    return all(known.clear(text) == text for text in readings(element.value, element.vr, charsets))
