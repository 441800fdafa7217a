"""gateway backup, gateway restore, gateway move-database."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from gateway.commands.opening import FAILED, complain, go, read_settings
from gateway.contract import NeedsHuman
from gateway.database import database, found_database, open_store, require_tables
from gateway.embedded.programs import all_programs
from gateway.embedded.running import running_url
from gateway.jobs import backups, escaped
from gateway.jobs.answering import answering
from gateway.jobs.backups import Backup
from gateway.jobs.inspection import Inspection
from gateway.jobs.schema import migrate, require_empty, revision_of
from gateway.jobs.signing import SealKey, TrustedKeys
from gateway.settings.keys import encryption_keys, known_seal_key
from gateway.settings.sections import Settings
from gateway.work.sealing import seals_file


def backup(config: Path | None, out: Path, keep: int | None, recovered: bool) -> int:
    settings = read_settings(config)

    async def make() -> int:
        async with found_database(settings) as url, answering(url, "to make a backup"):
            told, made = await (_backup_recovered if recovered else _backup)(settings, url, out)
        print(f"{told}: {made.bytes:,} bytes, tables at {made.tables}")
        gone = backups.thin_out(out, keep) if keep else 0
        if gone:
            print(f"{gone} older {'one is' if gone == 1 else 'ones are'} gone")
        complain("keep the keys elsewhere: secret_keys, and seal_key or data_dir/seal.key")
        return 0

    return go(make())


async def _backup_recovered(settings: Settings, url: str, out: Path) -> tuple[Path, Backup]:
    """Of a database that was brought back to an earlier moment: as of then, and with the seals of then."""
    await require_tables(url)
    async with open_store(settings, url) as store:
        moment = await store.newest_moment()
        newest = max([number async for number, _ in store.seals()], default=0)
    kept = seals_file(settings.data_dir)
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="recovered-") as folder:
        then = Path(folder) / kept.name
        later = await asyncio.to_thread(_copy_seals, kept, then, newest) if kept.exists() else 0
        print(f"recovered to {moment:%F %T %Z}; seals of what came later, and isn't there: {later}")
        return await _backup(settings, url, out, then, moment)


def _copy_seals(kept: Path, then: Path, newest: int) -> int:
    """How many are newer."""
    later = 0
    for number, seal in escaped.read(kept):
        if number > newest:
            later += 1
        else:
            escaped.write(then, number, seal)
    return later


async def _backup(
    settings: Settings, url: str, out: Path, seals: Path | None = None, moment: datetime | None = None
) -> tuple[Path, Backup]:
    tables = await revision_of(url)
    if tables is None:
        raise NeedsHuman("there is nothing to back up: the database has no tables", "See database_url.")
    keys, seals = encryption_keys(settings), seals or seals_file(settings.data_dir)
    return await backups.make(url, tables, keys, seals, out, all_programs(), moment)


def restore(config: Path | None, told: Path) -> int:
    settings = read_settings(config)

    async def bring_back() -> int:
        found = await asyncio.to_thread(backups.read, told, encryption_keys(settings))
        if settings.database_url is None and running_url(settings.data_dir) is not None:
            raise NeedsHuman("the gateway runs on this database", "Stop it first.")
        async with database(settings, join=False) as url:
            await asyncio.to_thread(require_empty, url)
            await backups.load(told, url, all_programs())
            await asyncio.to_thread(migrate, url)
            print(f"restored as it was at {found.made_at}")
            return await _take_stock(settings, url, told, found)

    return go(bring_back())


async def _take_stock(settings: Settings, url: str, told: Path, found: Backup) -> int:
    """Whether all is as it was written, and what goes on."""
    seal_key = known_seal_key(settings)
    trusted = TrustedKeys([*settings.trusted_seal_keys, *([SealKey(seal_key).public] if seal_key else [])])
    inspection = Inspection()
    async with open_store(settings, url) as store:
        sealed = [told.with_suffix(".seals")] if found.seals_sha256 else []
        await inspection.run(store, trusted, sealed)
        for sentence in (*inspection.breaks, *inspection.unchecked):
            complain(sentence)
        if inspection.breaks:
            complain("the restored histories were tampered with: nothing goes on until somebody has looked")
            return FAILED
        print(f"verified: {inspection.jobs} jobs, {inspection.events} events, {inspection.seals} seals")
        living = await store.doubt_all(found.moment)
    await asyncio.to_thread(_begin_seals_anew, seals_file(settings.data_dir), told.with_suffix(".seals"))
    print(f"{living} jobs go on once the gateway starts; what may have been sent since is asked about first")
    print("what came after the backup isn't here: gateway reconcile lists studies that were never processed")
    return 0


def _begin_seals_anew(kept: Path, then: Path) -> None:
    """Those made since the backup are of a past that isn't in this database; they are kept, beside."""
    words = then.read_bytes() if then.exists() else b""
    if kept.exists() and kept.read_bytes() != words:
        beside = kept.with_name(f"{kept.stem}-before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log")
        kept.rename(beside)
        print(f"{beside}: the seals that were made since the backup, of what isn't here any more")
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept.touch(mode=0o600)
    kept.write_bytes(words)


def move(config: Path | None, to: Path) -> int:
    settings, target = read_settings(config), read_settings(to)

    async def carry() -> int:
        if target.database_url is None or target.database_url == settings.database_url:
            raise NeedsHuman(
                f"{to} names no other database", "Give it the database_url of the server to move to."
            )
        if settings.database_url is None and running_url(settings.data_dir) is not None:
            raise NeedsHuman("the gateway runs on this database", "Stop it first.")
        await asyncio.to_thread(require_empty, target.database_url)
        with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="moving-") as folder:
            async with found_database(settings) as url, answering(url, "to be moved"):
                await require_tables(url)
                told, _ = await _backup(settings, url, Path(folder))
            await asyncio.to_thread(backups.read, told, encryption_keys(target))
            await backups.load(told, target.database_url, all_programs())
        print("moved: start the gateway with that configuration; the database it had is left as it is")
        return 0

    return go(carry())
