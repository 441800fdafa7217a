"""Where a call comes from: only a proxy of ours is believed, and only about who called it."""

from __future__ import annotations

import ipaddress

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.intake.callers import Callers
from gateway.settings.addresses import is_plain, leads_astray

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


class Transport:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self._peer, 1) if name == "peername" else default


def address_of(peer: str, *said: str) -> str:
    headers = CIMultiDict([("X-Forwarded-For", each) for each in said])
    request = make_mocked_request("GET", "/", headers, transport=Transport(peer))
    return str(Callers(PROXIES).address(request))


@pytest.mark.parametrize(
    ("peer", "said", "caller"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("10.1.1.1",), "192.0.2.1"),  # a stranger's own word
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("192.0.2.1",), "192.0.2.1"),
        ("10.0.0.1", ("127.0.0.1, 192.0.2.1",), "192.0.2.1"),
        ("10.0.0.1", ("127.0.0.1, 192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        ("10.0.0.1", ("127.0.0.1", "192.0.2.1", "10.0.0.2"), "192.0.2.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", ("192.0.2.1:4711",), "192.0.2.1"),
        ("fd00::1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("::ffff:10.0.0.1", ("::ffff:192.0.2.1",), "192.0.2.1"),
        ("10.0.0.1", ("127.0.0.1, unknown",), "None"),
        ("10.0.0.1", ("127.0.0.1,",), "None"),
    ],
)
def test_the_last_one_who_is_no_proxy_of_ours_is_the_caller(
    peer: str, said: tuple[str, ...], caller: str
) -> None:
    assert address_of(peer, *said) == caller


@given(st.text(max_size=60))
def test_what_a_stranger_says_changes_nothing(said: str) -> None:
    assert address_of("192.0.2.1", said.encode("ascii", "replace").decode()) == "192.0.2.1"
    assert address_of("10.0.0.1", f"{said}, 192.0.2.1") == "192.0.2.1"


@given(
    st.sampled_from([".", "..", "%2e", "%2E.", "%2e%2e", "%252e%252e", "%25252e%252e", "..;x"]),
    st.sampled_from(["/", "\\", "%2f", "%5c", "%252f"]),
    st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True),
)
def test_no_step_of_a_path_leads_up_however_it_is_encoded(dots: str, slash: str, name: str) -> None:
    for path in (dots, f"{name}{slash}{dots}", f"{dots}{slash}{name}", f"{name}{slash}{dots}{slash}{name}"):
        assert leads_astray(path)
        assert not is_plain(f"https://pacs/{path}")
    assert not leads_astray(f"{name}{slash}{name}.{name}")
