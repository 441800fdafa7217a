"""gateway token."""

from __future__ import annotations

import hashlib
import secrets

from pydantic import ValidationError

from gateway.commands.opening import WRONG_USE, complain
from gateway.settings.sections import ApiToken, Role


def make(name: str, role: Role) -> int:
    """The token alone on standard output; what the configuration keeps of it beside."""
    token = secrets.token_urlsafe(32)
    try:
        kept = ApiToken(name=name, role=role, sha256=hashlib.sha256(token.encode()).hexdigest())
    except ValidationError as error:
        complain(*(problem["msg"].removeprefix("Value error, ") for problem in error.errors()))
        return WRONG_USE
    print(token)
    complain(
        "It is shown this once: give it to whom it is for. Below api_tokens in the configuration stands",
        f'  - {{name: {kept.name}, role: {kept.role}, sha256: "{kept.sha256}"}}',
    )
    return 0
