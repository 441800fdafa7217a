"""A copy of the database as it was at one moment, with what is needed to trust and to read it again:

    gateway-20260131T013000Z.dump     the database, by pg_dump
    gateway-20260131T013000Z.seals    the seals that had left it by then
    gateway-20260131T013000Z.json     what the two are, written last: without it there is no backup

Keys are never part of it. Those that it was written with are told by their fingerprints.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gateway import __version__
from gateway.contract import NeedsHuman
from gateway.jobs.schema import server_of

_NAME = "gateway-%Y%m%dT%H%M%SZ"
_DEBIANS = Path("/usr/lib/postgresql")  # a folder for each that is installed
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_PIECE = 1 << 20
_LONGEST = 400


class Bundled(Protocol):
    @property
    def version(self) -> int: ...
    @property
    def folder(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Backup:
    made_at: str
    release: str
    tables: str  # the migration that they were at
    keys: tuple[str, ...]  # the fingerprints of those that could read what is encrypted
    bytes: int
    sha256: str
    seals_sha256: str | None

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.made_at)


def fingerprint(key: str) -> str:
    return hashlib.sha256(b"fingerprint of " + key.strip().encode()).hexdigest()[:12]


async def make(
    url: str,
    tables: str,
    keys: Sequence[str],
    seals: Path,
    folder: Path,
    ours: Sequence[Bundled],
    moment: datetime | None = None,
) -> tuple[Path, Backup]:
    """Whole and on disk, or nothing of it. `ours`: PostgreSQL's programs that came with us. `moment`: as of
    when the database is, if not of now."""
    programs = await _programs("pg_dump", url, ours)
    now = datetime.now(UTC)
    told = folder / f"{now.strftime(_NAME)}.json"
    dump, kept = told.with_suffix(".dump"), told.with_suffix(".seals")
    try:
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(dump.touch, mode=0o600, exist_ok=False)
        await _run(programs, url, "--format=custom", "--no-owner", "--no-acl", f"--file={dump}")
        made = Backup(
            (moment or now).astimezone(UTC).isoformat(timespec="seconds"),
            __version__,
            tables,
            tuple(map(fingerprint, keys)),
            dump.stat().st_size,
            await asyncio.to_thread(_digest, dump),
            await asyncio.to_thread(_copy, seals, kept),
        )
        await asyncio.to_thread(_write, told, json.dumps(asdict(made), indent=2) + "\n")
    except BaseException as trouble:
        for each in (dump, kept, told):
            with suppress(OSError):
                each.unlink()
        if isinstance(trouble, OSError):
            raise NeedsHuman(
                f"no backup could be made in {folder}: {trouble.strerror}",
                "Give it a folder with room that this user may write to.",
            ) from None
        raise
    return told, made


def thin_out(folder: Path, keep: int) -> int:
    """All but the newest; returns how many are gone."""
    old = sorted(folder.glob("gateway-*.json"))[:-keep]
    for told in old:
        for each in (told, told.with_suffix(".dump"), told.with_suffix(".seals")):
            each.unlink(missing_ok=True)
    return len(old)


def read(told: Path, keys: Sequence[str]) -> Backup:
    """Refused unless it is whole, and what is in it can be read with these keys."""
    told = told.with_suffix(".json")
    try:
        words = json.loads(told.read_text(encoding="utf-8"))
        backup = Backup(**{**words, "keys": tuple(words["keys"])})
        digest = _digest(told.with_suffix(".dump"))
        sealed = _digest(told.with_suffix(".seals")) if backup.seals_sha256 else None
    except OSError as error:
        raise NeedsHuman(
            f"{error.filename}: can't be read: {error.strerror}",
            "Name the .json of a backup; the .dump and the .seals of the same name lie beside it.",
        ) from None
    except (ValueError, TypeError, KeyError):
        raise NeedsHuman(
            f"{told} doesn't tell of a backup", "Name one that gateway backup has made."
        ) from None
    if (digest, sealed) != (backup.sha256, backup.seals_sha256):
        raise NeedsHuman(
            f"the backup {told.stem} isn't what was written: its checksum differs",
            "Take another copy of it, or another backup.",
        )
    if missing := [key for key in backup.keys if key not in map(fingerprint, keys)]:
        raise NeedsHuman(
            f"what is encrypted in the backup can't be read: secret_keys lack {', '.join(missing)}"
            " (fingerprints, as gateway key --fingerprints shows)",
            "Put the keys of the gateway that was backed up into secret_keys; they are kept elsewhere.",
        )
    return backup


async def load(told: Path, url: str, ours: Sequence[Bundled]) -> None:
    """Into an empty database, whole or not at all."""
    programs = await _programs("pg_restore", url, ours)
    dump = told.with_suffix(".dump")
    flags = ("--no-owner", "--no-acl", "--exit-on-error", "--single-transaction")
    await _run(programs, url, *flags, str(dump))


async def _programs(name: str, url: str, ours: Sequence[Bundled]) -> list[Path]:
    """Those that are no older than the server, ours and this machine's; the nearest to it first, since newer
    ones tell a server what it doesn't know. Only this machine's may know TLS."""
    server = await asyncio.to_thread(server_of, url)
    known = [(each.version, 1, each.folder / "bin" / name) for each in ours]
    for found in await asyncio.to_thread(_installed, name):
        process = await asyncio.create_subprocess_exec(found, "--version", stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        version = _VERSION.search(said.decode())
        if version is not None:
            known.append((int(version[1]), 0, Path(found)))
    if suitable := [path for version, _, path in sorted(known) if version >= server]:
        return suitable
    raise NeedsHuman(
        f"the database is PostgreSQL {server}, and there is no {name} here that is as new",
        f"Install it: apt-get install postgresql-client-{server}",
    )


def _installed(name: str) -> list[str]:
    return [*filter(None, [shutil.which(name)]), *map(str, _DEBIANS.glob(f"*/bin/{name}"))]


async def _run(programs: Sequence[Path], url: str, *arguments: str) -> None:
    """By the first that can; each does all or nothing."""
    refusals = []
    for program in programs:
        words = await _try(program, url, *arguments)
        if words is None:
            return
        refusals.append(f"{program}: {words}")
    raise NeedsHuman(f"{programs[0].name} failed: {'; '.join(refusals)}", "Mend what it says, and try again.")


async def _try(program: Path, url: str, *arguments: str) -> str | None:
    """What it says if it fails."""
    known: dict[str, Any] = conninfo_to_dict(url)
    password = known.pop("password", None)  # others see arguments
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.defpath, "HOME": str(Path.home())}
    if password:
        environment["PGPASSWORD"] = str(password)
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        f"--dbname={make_conninfo(**known)}",
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return " ".join(said.decode(errors="replace").split())[:_LONGEST] if process.returncode else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _copy(source: Path, to: Path) -> str | None:
    try:
        words = source.read_bytes()
    except FileNotFoundError:
        return None
    to.write_bytes(words)
    to.chmod(0o600)
    return hashlib.sha256(words).hexdigest()


def _write(path: Path, words: str) -> None:
    """The dump first, then what tells of it."""
    for each in (path.with_suffix(".dump"), path.with_suffix(".seals")):
        if each.exists():
            _sync(each)
    fresh = path.with_suffix(".new")
    fresh.write_text(words, encoding="utf-8")
    fresh.chmod(0o600)
    _sync(fresh)
    fresh.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
