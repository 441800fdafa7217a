"""What a vendor that calls back may do on the slide of its job, as an IA-API app would in Sectra itself."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aiohttp import web

from gateway.contract import Call


@runtime_checkable
class Errand(Call, Protocol):
    """Everything is about the job's own slide and application, so that no other can be named. What identifies
    a patient is withheld unless the application allows it. A result that the vendor stores is told to the
    adapter as {"id": …, "text": …, "properties": …}."""

    async def info(self) -> web.StreamResponse: ...

    async def slide_info(self, *, extended: bool, phi: bool) -> web.StreamResponse: ...

    async def label(self) -> web.StreamResponse: ...

    async def files(self) -> web.StreamResponse: ...

    async def tile(self, place: str, *, optical_path: str | None = None) -> web.StreamResponse:
        """`place`: level/column_row[_focalPlane].extension."""
        ...

    async def case_images(self, *, phi: bool) -> web.StreamResponse: ...

    async def set_quality(self) -> web.StreamResponse: ...

    async def list_results(self) -> web.StreamResponse: ...

    async def read_result(self, result_id: int) -> web.StreamResponse: ...

    async def create_result(self) -> web.StreamResponse: ...

    async def update_result(self, result_id: int) -> web.StreamResponse: ...
