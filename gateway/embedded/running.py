"""Where the embedded server is, and whether it runs: all that those need to know who only talk to it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.contract import NeedsHuman


def home_of(data_dir: Path) -> Path:
    return data_dir.resolve() / "postgres"


def is_made(data_dir: Path) -> bool:
    home = home_of(data_dir)
    try:
        return (home / "cluster").exists()
    except PermissionError:
        return True  # and running_url says whose it is


def running_url(data_dir: Path) -> str | None:
    """How to reach the server that another process runs on this folder now, if one does."""
    home = home_of(data_dir)
    try:
        url = (home / "url").read_text()
        lock = os.open(home / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NeedsHuman(
            f"the embedded database in {home} belongs to another user",
            "Run this command as the user whom the gateway runs as.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return url
    finally:
        os.close(lock)
    return None
