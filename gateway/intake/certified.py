"""Who calls by a client certificate: of our client_ca, which was checked when the connection was made, and in
one of the names that the configuration allows."""

from __future__ import annotations

import ssl

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.intake.problems import Problem
from gateway.settings.certificates import Subjects
from gateway.settings.sections import Tls


class ClientCertificates:
    """`place`: where the configuration has it."""

    def __init__(self, tls: Tls | None, place: str = "listen.tls") -> None:
        self._place = place
        self.asked_for = tls is not None and tls.client_ca is not None
        self._subjects = Subjects(tls.subjects if tls else ())

    def require(self, request: web.Request) -> None:
        if not self.asked_for:
            return
        der = _shown(request)
        if not der:
            raise Problem(403, f"a client certificate of {self._place}.client_ca is needed here")
        if not self._subjects.have(der):
            raise Problem(403, f"this client certificate's subject isn't among {self._place}.subjects")

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """For a listener that none but they may use."""
        self.require(request)
        return await handler(request)


def _shown(request: web.Request) -> bytes | None:
    link: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    return None if link is None else link.getpeercert(binary_form=True)
