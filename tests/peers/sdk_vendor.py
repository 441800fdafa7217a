"""A vendor's IA-API app on the public client for Sectra's API, which may hang before it does anything.

Each call waits for its own turn, then asks for the slide and stores what it found; `answers` is what became
of each, by the order of the calls.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, request
from sectra_client import SectraClient
from sectra_client.schemas import AdaptedResult, Result
from sectra_client.utils.errors import SectraRequestError
from werkzeug.serving import make_server

LIMIT = 60
OWN_NAME = "vendor-kidney"
_BOX = [{"x": 0.0, "y": 0.0}, {"x": 0.5, "y": 0.0}, {"x": 0.5, "y": 0.5}]


@dataclass
class Turn:
    """One call's: whether it reads before it is let go on, and when it is."""

    reads_first: bool = False
    has_read: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass
class SdkVendor:
    turns: list[Turn]
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[int, int | str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def client(self, call: dict[str, Any]) -> SectraClient:
        there = call["callbackInfo"]
        return SectraClient(there["url"], there["token"], _allow_http=True)

    def create(self, number: int) -> Any:
        call, turn = self.calls[number], self.turns[number]
        try:
            if turn.reads_first:
                with self.client(call) as client:
                    client.get_image_metadata(call["slideId"])
                turn.has_read.set()
            turn.let_go.wait(LIMIT)
            answer = self.store(call, f"ANSWER of call {number + 1}")
        except SectraRequestError as refused:
            self.answers[number] = refused.status_code
            return {}
        else:
            self.answers[number] = "stored"
            return answer
        finally:
            turn.ended.set()

    def store(self, call: dict[str, Any], text: str) -> Any:
        own, slide = call["applicationId"], call["slideId"]
        given: dict[str, Any] = {
            "slideId": slide,
            "displayResult": text,
            "applicationVersion": "1.2.3",
            "data": {"result": {"type": "primitive", "content": [{"polygons": [{"points": _BOX}]}]}},
        }
        with self.client(call) as client:
            before = client.get_all_results(slide, own)
            if before:
                changed = AdaptedResult(**given, versionId=before[-1].versionId)
                stored = client.update_results(own, before[-1].id, changed)
            else:
                stored = client.create_results(own, Result(**given))
        return stored.model_dump()

    def build(self) -> Flask:
        app = Flask("sdk-vendor")

        @app.get("/ia/kidney")
        def register() -> Response:
            return jsonify({"applicationId": OWN_NAME, "url": request.base_url, "context": {}})

        @app.get("/ia/kidney/info")
        def info() -> Response:
            return jsonify({"apiVersion": "1.8", "softwareVersion": "1.2.3"})

        @app.post("/ia/kidney")
        def invoke() -> Response:
            call = request.get_json()
            if call["action"] == "cancel":
                self.cancelled.append(call["cancellationToken"])
                return jsonify([])
            self.calls.append(call)
            return jsonify(self.create(len(self.calls) - 1))

        return app


@contextmanager
def sdk_vendor(*turns: Turn) -> Iterator[SdkVendor]:
    vendor = SdkVendor(list(turns))
    server = make_server("127.0.0.1", 0, vendor.build(), threaded=True)
    vendor.url = f"http://127.0.0.1:{server.server_port}/ia/kidney"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        for turn in turns:
            turn.let_go.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
