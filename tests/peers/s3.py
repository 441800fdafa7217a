"""A store that speaks S3: moto's server, with buckets in memory that outlive its being away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.peers.certificates import Certified
from tests.peers.ports import free_port

KEY, SECRET = "the-access-key", "the-word-of-the-bucket"
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>a patient's name, say</Message></Error>"
_BROKEN = b"<Error><Code>InternalError</Code></Error>"


class _Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class S3Server:
    """`calls`: method and query of each. `refusing`, `broken`: to all calls, or to those of these methods."""

    def __init__(self, tls: Certified | None = None) -> None:
        self.port = free_port()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.bucket = f"spool-{uuid4().hex[:12]}"
        self.calls: list[tuple[str, str]] = []
        self.refusing: set[str] = set()
        self.broken: set[str] = set()
        self._tls = tls
        self._served = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None

    def start(self) -> None:
        self._server = make_server(
            "127.0.0.1",
            self.port,
            self._answer,
            threaded=True,
            request_handler=_Silent,
            ssl_context=self._tls.server if self._tls else None,
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, call: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = str(call["REQUEST_METHOD"])
        self.calls.append((method, str(call.get("QUERY_STRING", ""))))
        for methods, status, body in (
            (self.refusing, "403 Forbidden", _FORBIDDEN),
            (self.broken, "500 Internal Server Error", _BROKEN),
        ):
            if method in methods:
                start(status, [("Content-Type", "application/xml"), ("Connection", "close")])
                return [body]
        return self._served(call, start)  # type: ignore[no-any-return]

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def objects(self, below: str = "") -> list[str]:
        listed = self.client().list_objects_v2(Bucket=self.bucket, Prefix=below)
        return [each["Key"] for each in listed.get("Contents", ())]

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": "s3",
            "url": self.url,
            "bucket": self.bucket,
            "prefix": "gateway",
            "access_key": KEY,
            "secret_key": SECRET,
        }


@contextmanager
def s3(tls: Certified | None = None) -> Iterator[S3Server]:
    """With its bucket made."""
    server = S3Server(tls)
    server.start()
    try:
        if tls is None:
            server.client().create_bucket(Bucket=server.bucket)
        yield server
    finally:
        server.stop()
