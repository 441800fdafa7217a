"""What systemd hears of us, at a socket as it has one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.systemd import Systemd


@pytest.fixture(params=["a path", "an abstract name"])
def heard(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Iterator[tuple[socket.socket, str]]:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    name = "notify" if request.param == "a path" else f"@gateway-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(name.replace("@", "\0", 1))
        ear.settimeout(10)
        yield ear, name


def test_it_hears_when_we_are_ready_change_and_stop(heard):
    ear, name = heard
    systemd = Systemd({"NOTIFY_SOCKET": name})
    systemd.ready("at work")
    assert ear.recv(4096) == b"READY=1\nSTATUS=at work"
    systemd.reloading()
    assert ear.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    systemd.stopping()
    assert ear.recv(4096).startswith(b"STOPPING=1\n")


async def test_it_hears_that_we_live_more_often_than_it_asks(heard):
    ear, name = heard
    systemd = Systemd({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "90000", "WATCHDOG_PID": str(os.getpid())})
    living = asyncio.create_task(systemd.show_life())
    for _ in range(3):
        assert await asyncio.to_thread(ear.recv, 4096) == b"WATCHDOG=1"
    living.cancel()
    with suppress(asyncio.CancelledError):
        await living


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "@nobody-listens", "WATCHDOG_USEC": "soon"},
    ],
)
async def test_nothing_depends_on_it(environment):
    systemd = Systemd(environment)
    systemd.ready("at work")
    await systemd.show_life()
    assert systemd.sockets("web") == []


def test_the_sockets_of_another_process_are_not_ours():
    given = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    assert Systemd(given).sockets("web") == []
