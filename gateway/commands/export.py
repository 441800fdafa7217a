"""gateway jobs export: jobs with their histories, or whether anybody has changed these."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gateway.commands.jobs import Filters, filter_of
from gateway.commands.opening import complain, go, read_settings, store_of, with_store
from gateway.intake.views import view
from gateway.jobs.inspection import Inspection
from gateway.jobs.signing import SealKey, TrustedKeys
from gateway.jobs.store import Store
from gateway.settings.keys import known_seal_key
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured
from gateway.work.sealing import seals_file

_PAGE = 200
TAMPERED = 1
UNCHECKED = 3


def export(config: Path | None, filters: Filters) -> int:
    async def work(store: Store) -> int:
        after = None
        while page := await store.find(filter_of(filters), limit=_PAGE, after=after):
            for job in page:
                events = await store.events_of(job.id)
                shown = view(job, events, await store.deliveries_of(job.id)).model_dump(
                    mode="json", exclude={"said"}
                )
                for said, event in zip(shown["events"], events, strict=True):
                    said |= {"previous_hash": event.previous_hash, "hash": event.hash, "salt": event.salt}
                    said |= {"detail_digest": event.detail_digest, "job_digest": event.job_digest}
                print(json.dumps(shown))
            after = (page[-1].created_at, page[-1].id)
        return 0

    return with_store(config, "to export jobs", work, acts=False)


def verify(config: Path | None, against: Sequence[Path], trusted: Sequence[Path], as_json: bool) -> int:
    """0: all is as it was written. 1: something was tampered with. 3: it couldn't be told."""
    inspection = Inspection()
    settings = read_settings(config, failed=UNCHECKED)
    kept = seals_file(settings.data_dir)
    outside = [*against, *([kept] if not against and kept.exists() else [])]

    async def work() -> int:
        keys = _keys(settings, trusted)
        async with store_of(settings, "to verify the histories") as store:
            await inspection.run(store, keys, outside, ours=kept)
        return UNCHECKED if inspection.unchecked else 0

    ended = go(work(), failed=UNCHECKED)
    if inspection.breaks:
        ended = TAMPERED
    _tell(inspection, outside, ended, as_json)
    return ended


def _keys(settings: Settings, trusted: Sequence[Path]) -> TrustedKeys:
    own = known_seal_key(settings)
    pems = [*settings.trusted_seal_keys, *([SealKey(own).public] if own else [])]
    try:
        return TrustedKeys([*pems, *(path.read_text(encoding="ascii") for path in trusted)])
    except OSError as error:
        raise Misconfigured([f"{error.filename}: can't be read: {error.strerror}"]) from None
    except ValueError:
        raise Misconfigured(
            ["--key: isn't an Ed25519 public key in PEM; gateway key --public prints one"]
        ) from None


def _tell(inspection: Inspection, outside: Sequence[Path], ended: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"intact": ended == 0, **asdict(inspection)}))
        return
    complain(*inspection.breaks, *(f"not checked: {sentence}" for sentence in inspection.unchecked))
    seen = (
        f"{inspection.jobs} jobs, {inspection.events} events, {inspection.seals} seals, "
        f"{inspection.acts} lines of the audit"
    )
    if ended == 0:
        print(f"intact: {seen}")
    if not outside:
        complain(
            "no seals that left the database were at hand (--against names a file of them): it isn't known"
            " whether the newest were cut off"
        )
