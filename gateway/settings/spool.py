"""Where what is sent to us lies until its job has ended: a folder, or a bucket for several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from gateway.settings.addresses import HttpUrl
from gateway.settings.parts import Part, shaped
from gateway.settings.quantities import Size
from gateway.settings.transport import proxy_url

_Bucket = Annotated[
    str,
    shaped(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "a bucket's name has 3 to 63 of a-z, 0-9, dots and dashes",
    ),
]
_Prefix = Annotated[
    str, shaped(r"[A-Za-z0-9._/-]*", "allowed: letters, digits, dots, dashes, underscores and /")
]


class FolderSpool(Part):
    """Below data_dir."""

    kind: Literal["folder"] = "folder"


class S3Spool(Part):
    """A bucket of any store that speaks S3. What a job's steps need on the way still lies below data_dir."""

    kind: Literal["s3"]
    url: HttpUrl  # of the store, without the bucket
    bucket: _Bucket
    prefix: _Prefix = ""  # for what is ours in it
    region: str = "us-east-1"
    access_key: SecretStr
    secret_key: SecretStr
    most_bytes: Size = 10**12  # held there: beyond it no study is taken in
    ca: Path | None = None
    proxy: Annotated[SecretStr, AfterValidator(proxy_url)] | None = None


Spool = Annotated[FolderSpool | S3Spool, Field(discriminator="kind")]
