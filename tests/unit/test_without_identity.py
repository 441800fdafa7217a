"""What a vendor that may not see who the patient is gets of a description, whatever a server puts into it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.sectra.passage import without_identity

NAMES = ("id", "imageSize", "focalPlanes", "specimen", "staining", "qualityControl", "description", "width")
SECRETS = ("patientName", "request", "accessionNumber", "lisSlideId", "PatientID", "somethingNew")


def described(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.dictionaries(st.sampled_from(SECRETS), st.just("DOE"), min_size=1),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES + SECRETS), inner | leaf)
        ),
    )


@given(described(st.just(5)))
def test_nothing_unknown_passes_however_deep_it_lies(body: Any) -> None:
    assert "DOE" not in str(without_identity(body))


def test_what_is_known_stays() -> None:
    body = {
        "id": "slide-1",
        "imageSize": {"width": 4, "height": 3, "patientName": "DOE"},
        "tileSize": 240,
        "focalPlanes": [{"id": "0", "offsetUm": 0.5, "request": {"patientName": "DOE"}}],
        "request": {"patientName": "DOE", "id": "R-1"},
    }
    assert without_identity([body]) == [
        {
            "id": "slide-1",
            "imageSize": {"width": 4, "height": 3},
            "tileSize": 240,
            "focalPlanes": [{"id": "0", "offsetUm": 0.5}],
        }
    ]
