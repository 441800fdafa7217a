"""What a vendor would get of a study in place of each attribute, and why. Nothing of it goes anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gateway.archives.archive import Archive, InstanceRef
from gateway.contract import NeedsHuman
from gateway.dicom.part10 import NotDicom
from gateway.privacy.header import Change, HeaderRewriter
from gateway.privacy.profile import Rules
from gateway.privacy.pseudonyms import Pseudonyms
from gateway.privacy.rewriting import rewrite


async def preview(
    archive: Archive, study_instance_uid: str, instance: InstanceRef, rules: Rules, key: bytes
) -> list[Change]:
    """Of one instance, in the order in which its attributes stand. Unsuitable, if it may not leave."""
    changes: list[Change] = []
    rewriter = HeaderRewriter(rules, Pseudonyms(key), note=changes.append)
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        series, sop = instance.series_instance_uid, instance.sop_instance_uid
        async for found in archive.retrieve_instance(study_instance_uid, series, sop, Path(folder)):
            if found.header.sop_instance_uid != sop:
                continue
            try:
                async for _ in rewrite(found.chunks(), rewriter):
                    pass
            except NotDicom:
                raise NeedsHuman(
                    "the header of the instance can't be read", "Have the archive check the study."
                ) from None
    return changes
