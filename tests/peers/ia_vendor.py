"""A vendor's IA-API app in the style of the public SDK: Flask, a worker in the background, and results that
are listed, then updated. It knows of no gateway, and calls whatever url and token its invocations carry.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

API_VERSION = "1.8"
OWN_NAME = "vendor-kidney"
LIMIT = 30


@dataclass
class IaVendor:
    """`mode`: at-once (stores during the invocation), later (a worker stores), inline (answers with its
    result, and stores nothing), never, or mute (ignores)."""

    mode: str = "at-once"
    steps: int = 3
    pause: float = 0.2
    held: threading.Event | None = None  # it has taken an invocation, and does nothing until then
    late: float = 0.0  # seconds before the worker begins
    final_text: str = "ANSWER: 42"
    reads: tuple[str, ...] = ()
    phi: bool = False
    spoiled: list[Any] = field(default_factory=list)  # what is answered in place of its first; "cut" cuts it
    refuses: int | None = None  # every POST is answered with this status
    refusals_left: int | None = None
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)
    downloaded: int = 0
    last_id: int | None = None
    last_version: str | None = None
    trouble: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    threads: list[threading.Thread] = field(default_factory=list)

    # -- what it does on its callback url -------------------------------------------------------------

    def api(self, call: dict[str, Any]) -> Api:
        return Api(self, call["callbackInfo"]["url"], call["callbackInfo"]["token"])

    def store(self, call: dict[str, Any], text: str, progress: str | None) -> dict[str, Any]:
        """Since an app can't delete its results, it changes the last one it has."""
        api, slide, own = self.api(call), call["slideId"], call["applicationId"]
        info = api.get(f"slides/{slide}/info?scope=extended&includePHI=false").json()
        data = self.result(slide, text, progress, info["imageSize"]["height"] / info["imageSize"]["width"])
        existing = api.get(f"applications/{own}/results/slide/{slide}").json()
        if existing:
            latest = {**existing[-1], **data}
            answer = api.put(f"applications/{own}/results/{latest['id']}", latest)
        else:
            answer = api.post(f"applications/{own}/results/", data)
        stored: dict[str, Any] = answer.json()
        self.last_id, self.last_version = stored["id"], stored["versionId"]
        return stored

    def result(self, slide: str, text: str, progress: str | None, lower: float) -> dict[str, Any]:
        corners = [(0.0, 0.0), (1.0, 0.0), (1.0, lower), (0.0, lower)]
        return {
            "slideId": slide,
            "displayResult": text,
            "displayProperties": {} if progress is None else {"Progress": progress},
            "applicationVersion": "1.2.3",
            "data": {
                "context": {},
                "result": {
                    "type": "primitive",
                    "content": {  # the older form: one object
                        "style": {"fillStyle": None, "size": None, "strokeStyle": "#FFA500"},
                        "polygons": [{"points": [{"x": x, "y": y} for x, y in corners]}],
                        "labels": [{"location": {"x": 0.5, "y": 0.0}, "label": text}],
                    },
                },
            },
        }

    def work(self, call: dict[str, Any]) -> None:
        time.sleep(self.late)
        try:
            for what in self.reads:
                self.api(call).read(what.format(slide=call["slideId"]))
            for step in range(self.steps):
                share = f"{100 * step // self.steps} %"
                self.store(call, f"analysis, progress {share}", share)
                time.sleep(self.pause)
            self.store(call, self.final_text, None)
        except requests.RequestException as error:
            self.trouble.append(type(error).__name__)

    # -- what Sectra, or whoever stands in for it, asks -----------------------------------------------

    def build(self) -> Flask:
        app = Flask("ia-vendor")

        def say(data: object, status: int = 200) -> Response:
            response = jsonify(data)
            response.status_code = status
            response.headers["X-Sectra-ApiVersion"] = API_VERSION
            response.headers["X-Sectra-SoftwareVersion"] = "1.2.3"
            return response

        @app.get("/ia/kidney")
        def register() -> Response:
            return say(
                {
                    "applicationId": OWN_NAME,
                    "displayName": "Kidney",
                    "manufacturer": "Vendor",
                    "url": f"http://{request.headers['Host']}/ia/kidney",
                    "inputTemplate": {"type": "wholeSlide"},
                    "context": {"threshold": 0.5},
                }
            )

        @app.get("/ia/kidney/info")
        def info() -> Response:
            return say({"apiVersion": API_VERSION, "softwareVersion": "1.2.3"})

        @app.post("/ia/kidney")
        def invoke() -> Response:
            call = request.get_json()
            self.calls.append(call)
            if self.held is not None:
                self.held.wait(LIMIT)
            if self.refuses is not None and self.refusals_left != 0:
                self.refusals_left = None if self.refusals_left is None else self.refusals_left - 1
                return say({"error": "not now"}, self.refuses)
            if call["action"] == "create":
                return self.spoil(say(self.create(call)), say)
            if call["action"] == "modify":
                return say(self.modify(call))
            if call["action"] == "cancel":
                self.cancelled.add(call["cancellationToken"])
                return say([])
            return say({})

        @app.post("/ia/kidney/imagenotification")
        def notify() -> Response:
            call = request.get_json()
            self.calls.append(call)
            if self.mode != "mute":
                self.create(call)
            return say({})

        return app

    def spoil(self, answer: Response, say: Callable[[object], Response]) -> Response:
        if not self.spoiled:
            return answer
        instead = self.spoiled.pop(0)
        if instead != "cut":
            return say(instead)
        whole = answer.get_data()
        cut = Response(iter([whole[: len(whole) // 2]]), mimetype="application/json")
        cut.headers["Content-Length"] = str(len(whole))
        return cut

    def create(self, call: dict[str, Any]) -> dict[str, Any]:
        if self.phi:
            self.api(call).get(f"slides/{call['slideId']}/info?scope=extended&includePHI=true")
        if self.mode in ("never", "mute"):
            return {"slideId": call["slideId"], "displayResult": "analysis queued"}
        if self.mode == "inline":
            return self.result(call["slideId"], self.final_text, None, 0.75)
        if self.mode == "at-once":
            return self.store(call, self.final_text, None)
        stored = self.store(call, "analysis queued", "0 %")
        worker = threading.Thread(target=self.work, args=(call,), daemon=True)
        self.threads.append(worker)
        worker.start()
        return stored

    def modify(self, call: dict[str, Any]) -> dict[str, Any]:
        """Each change is stored with a mark, so that it shows who answered."""
        changed = {**call["input"], "displayResult": call["input"]["displayResult"] + " (seen)"}
        answer = self.api(call).put(f"applications/any/results/{changed['id']}", changed)
        stored: dict[str, Any] = answer.json()
        return stored


class Api:
    def __init__(self, vendor: IaVendor, url: str, token: str) -> None:
        self._vendor = vendor
        self._url = url
        self._session = requests.Session()
        self._session.headers.update(
            {
                "Authorization": f"Bearer {token}",
                "X-Sectra-ApiVersion": API_VERSION,
                "X-Sectra-SoftwareVersion": "1.2.3",
            }
        )

    def _note(self, answer: requests.Response, path: str) -> requests.Response:
        self._vendor.answers.append((path.partition("?")[0], answer.status_code))
        answer.raise_for_status()
        return answer

    def get(self, path: str) -> requests.Response:
        return self._note(self._session.get(f"{self._url}/{path}", timeout=LIMIT), path)

    def post(self, path: str, body: object) -> requests.Response:
        return self._note(self._session.post(f"{self._url}/{path}", json=body, timeout=LIMIT), path)

    def put(self, path: str, body: object) -> requests.Response:
        return self._note(self._session.put(f"{self._url}/{path}", json=body, timeout=LIMIT), path)

    def read(self, path: str) -> None:
        with self._session.get(f"{self._url}/{path}", timeout=LIMIT, stream=True) as answer:
            self._note(answer, path)
            for piece in answer.iter_content(2**20):
                self._vendor.downloaded += len(piece)


@contextmanager
def ia_vendor(**behaviour: Any) -> Iterator[IaVendor]:
    vendor = IaVendor(**behaviour)
    server = make_server("127.0.0.1", 0, vendor.build(), threaded=True)
    vendor.url = f"http://127.0.0.1:{server.server_port}/ia/kidney"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        thread.join(10)
        for worker in vendor.threads:
            worker.join(10)
        server.server_close()
