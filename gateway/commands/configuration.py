"""gateway config."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.commands.jobs import here
from gateway.commands.opening import FAILED, complain, source_of, store_of
from gateway.contract import Failure
from gateway.jobs.store import DatabaseError
from gateway.jobs.store.revisions import Revision
from gateway.jobs.store.trouble import why
from gateway.settings import reference
from gateway.settings.load import config_path, load, load_whereabouts, process_environment
from gateway.settings.sections import Settings
from gateway.settings.tree import Misconfigured


def show(config: Path | None, as_json: bool) -> int:
    """Of the file as it is now, and, where the database tells, of those who run."""
    environment = process_environment()
    path = config or config_path(environment)
    try:
        settings = load(path, environment)
    except Misconfigured as problem:
        complain(*problem.problems)
        return _show_in_force(path, environment, problem.problems, as_json)
    if not as_json:
        complain(f"configuration: {source_of(config)}")
    unknown = "no gateway has told that it runs under it"
    try:
        in_force, last = asyncio.run(_ask(settings))
    except (DatabaseError, Failure, Misconfigured) as trouble:
        in_force = last = None
        unknown = "since when it is in force isn't known"
        sentence = why(trouble) if isinstance(trouble, DatabaseError) else str(trouble)
        complain(f"{unknown}: {sentence}")
    refused = last if last is not None and last.refused else None
    if as_json:
        print(json.dumps(_plain(settings, source_of(config), in_force, refused)))
        return 0
    print(settings.text.rstrip() or "# nothing but defaults: see gateway config reference")
    print(f"\n# revision {settings.revision}")
    if in_force is None:
        print(f"# {unknown}")
    else:
        is_it = "" if in_force.revision == settings.revision else f"not this one, but {in_force.revision}: "
        print(f"# {is_it}in force since {here(in_force.at)} ({in_force.who}: {in_force.why})")
    if refused is not None:
        print(f"# refused by the running gateway at {here(refused.at)}, which goes on as before:")
        print("\n".join(f"#   {sentence}" for sentence in refused.refused))
    return 0


def _show_in_force(
    path: Path | None, environment: Mapping[str, str], problems: Sequence[str], as_json: bool
) -> int:
    """The file is no good, and a gateway may well run under what it said before."""
    try:
        in_force, _ = asyncio.run(_ask(load_whereabouts(path, environment)))
    except (DatabaseError, Failure, Misconfigured) as trouble:
        sentence = why(trouble) if isinstance(trouble, DatabaseError) else str(trouble)
        complain(f"what is in force isn't known: {sentence}")
        return FAILED
    if in_force is None:
        complain("no gateway has told what it runs under")
    elif as_json:
        told = {"source": "the database", "revision": in_force.revision, "configuration": in_force.text}
        print(json.dumps({**told, "in_force": _told(in_force), "refused": list(problems)}))
    else:
        print(in_force.text.rstrip() or "# nothing but defaults: see gateway config reference")
        print(f"\n# revision {in_force.revision}")
        print(f"# not of the file, which is no good, but in force since {here(in_force.at)}", end=" ")
        print(f"({in_force.who}: {in_force.why})")
    return FAILED


def print_reference() -> int:
    print(reference.write())
    return 0


async def _ask(settings: Settings) -> tuple[Revision | None, Revision | None]:
    """The one in force, and the last of all."""
    async with store_of(settings, "to tell which configuration is in force") as store:
        return await store.revision_in_force(), next(iter(await store.revisions(limit=1)), None)


def _plain(
    settings: Settings, source: str, in_force: Revision | None, refused: Revision | None
) -> dict[str, Any]:
    return {
        "source": source,
        "revision": settings.revision,
        "configuration": settings.text,
        "in_force": None if in_force is None else _told(in_force),
        "refused": [] if refused is None else refused.refused,
    }


def _told(in_force: Revision) -> dict[str, str]:
    return {
        "revision": in_force.revision,
        "since": in_force.at.isoformat(),
        "who": in_force.who,
        "why": in_force.why,
    }
