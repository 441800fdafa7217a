"""What breaks is told within a minute, by the waits that are in force where nobody configures any: each way
from the break to whoever has to hear of it, added up at its longest."""

from __future__ import annotations

import pytest

from gateway.circuits import _LOOK as CIRCUITS_LOOK
from gateway.circuits import Patience
from gateway.delivery.mllp import Limits as MllpLimits
from gateway.dicom.peer import Limits as DimseLimits
from gateway.dicom.web import Limits as WebLimits
from gateway.jobs.store.alerts import IS_NEWS_AFTER
from gateway.kit.options import Options
from gateway.sectra.calls import Limits as SectraLimits
from gateway.watch.alerts import _LOOK as ALERTS_LOOK
from gateway.watch.channels import _LIMIT as CHANNEL
from gateway.watch.figures import _ANSWERS_WITHIN as FIGURES_WITHIN
from gateway.watch.figures import EVERY
from gateway.watch.outage import _ANSWERS_WITHIN as DATABASE_WITHIN
from gateway.watch.outage import _IS_NEWS_AFTER as OUTAGE_AFTER
from gateway.watch.outage import _LOOK as OUTAGE_LOOK

_MINUTE = 60.0
_HEARD = CHANNEL.total or _MINUTE
_TOLD = IS_NEWS_AFTER + ALERTS_LOOK + _HEARD
_SHOWN = EVERY + FIGURES_WITHIN
_ASKED = CIRCUITS_LOOK + Patience().answers_within


@pytest.mark.parametrize(
    "connect",
    [
        WebLimits().connect,
        DimseLimits().connect,
        MllpLimits().connect,
        SectraLimits().connect,
        Options().connect_timeout,
    ],
)
def test_a_peer_that_no_longer_takes_connections(connect: float) -> None:
    assert connect + max(_TOLD, _SHOWN) < _MINUTE


def test_a_peer_that_takes_calls_and_says_nothing() -> None:
    """However long the call itself may last."""
    assert Patience().silence + _ASKED + max(_TOLD, _SHOWN) < _MINUTE


def test_a_vendor_that_refuses_our_credentials_is_told_and_pauses_itself() -> None:
    """A job and whoever asks are refused first; then it is looked at again at growing pauses."""
    assert Patience().answers_within + max(_TOLD, _SHOWN) < _MINUTE
    pauses = [Patience().first * 2**look for look in range(3)]  # up to `hold_after`, 5
    assert sum(pauses) + max(_TOLD, _SHOWN) < _MINUTE, "whose answers come at once"


def test_a_database_that_no_longer_answers() -> None:
    seen = OUTAGE_LOOK + DATABASE_WITHIN + OUTAGE_AFTER + OUTAGE_LOOK
    assert seen + DATABASE_WITHIN + _HEARD < _MINUTE
    assert _SHOWN < _MINUTE
