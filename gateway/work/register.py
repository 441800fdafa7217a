"""Whether a result came from the version of the vendor that was accepted."""

from __future__ import annotations

from gateway.contract import NeedsHuman
from gateway.jobs.store import Store
from gateway.settings.sections import Application
from gateway.watch.quality import version_cause


async def check_version(store: Store, name: str, application: Application, version: str) -> None:
    """One that isn't the accepted one is told once, and holds the job where the register is strict."""
    register = application.register_
    if register is None or not register.version or version in ("", register.version):
        return
    told = f"{application.display_name} has version {version}, and {register.version} is the accepted one"
    await store.raise_alert(
        version_cause(name, version),
        told,
        "Have it accepted, and name it in register.version; or have the vendor go back.",
    )
    if register.strict:
        raise NeedsHuman(
            told, "Have the new version accepted and name it in register.version, then resume the job."
        )
