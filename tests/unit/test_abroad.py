"""Which addresses a server may have whom somebody else names."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.sessions import is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4001:81c::200e", "2002:808:808::1"])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1"),
        *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::1"),
        *("fec0::1", "::10.0.0.1", "64:ff9b:1::a00:1"),
    ],
)
def test_private(address: str) -> None:
    assert not is_public(address)
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert is_public(address, everything)
