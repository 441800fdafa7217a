"""Sensitivity and specificity, counted exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from gateway.watch.accuracy import Examined, judge
from gateway.watch.concordance import ANY


def examined(truth: bool, found: bool, **of: str) -> Examined:
    return Examined({"fracture": truth, ANY: truth}, ["fracture"] if found else [], of)


def test_as_a_textbook_counts_it() -> None:
    """Altman and Bland, Diagnostic tests 1 (BMJ 308, 1994): of 258 abnormal livers the scan finds 231, of 86
    normal ones it leaves 54: sensitivity 0.90, specificity 0.63."""
    studies = [examined(True, True)] * 231 + [examined(True, False)] * 27
    studies += [examined(False, True)] * 32 + [examined(False, False)] * 54
    whole = judge(studies, ["fracture"])[0]
    assert (whole.found, whole.missed, whole.raised, whole.left) == (231, 27, 32, 54)
    assert whole.sensitivity is not None and whole.specificity is not None
    assert (round(whole.sensitivity.value, 2), round(whole.specificity.value, 2)) == (0.90, 0.63)
    assert (round(whole.sensitivity.low, 2), round(whole.sensitivity.high, 2)) == (0.85, 0.93)
    assert (round(whole.specificity.low, 2), round(whole.specificity.high, 2)) == (0.52, 0.72)


def test_a_truth_that_nobody_knows_counts_nowhere_and_another_finding_is_none_of_it() -> None:
    studies = [Examined({"fracture": True}, ["effusion"]), Examined({"effusion": True}, ["fracture"])]
    by_name = {each.finding: each for each in judge(studies, ["fracture", "effusion"]) if not each.group}
    assert (by_name["fracture"].studies, by_name["fracture"].missed) == (1, 1)
    assert (by_name["effusion"].studies, by_name["effusion"].missed) == (1, 1)
    assert by_name["fracture"].specificity is None


kinds = some.sampled_from(["CR", "DX"])


@given(some.lists(some.builds(examined, some.booleans(), some.booleans(), modality=kinds), max_size=50))
def test_groups_add_up_to_the_whole(studies: list[Examined]) -> None:
    whole, *groups = judge(studies, [ANY])
    for group in ("modality", "device", "sex", "age"):
        parts = [each for each in groups if each.group == group]
        assert sum(each.studies for each in parts) == whole.studies == len(studies)
        assert sum(each.found for each in parts) == whole.found
        assert sum(each.left for each in parts) == whole.left
