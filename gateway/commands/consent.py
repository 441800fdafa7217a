"""Whether what is done to many at a time is meant: asked of whoever sits before a terminal."""

from __future__ import annotations

import io
import select
import sys

import typer

from gateway.commands.opening import FAILED, WRONG_USE, complain

_YES, _NO = ("y", "yes"), ("n", "no")
_PATIENCE = 1.0  # for what is piped in


def ask_about_all(what: str, *, filtered: bool) -> int | None:
    """The exit code, if they aren't to be acted on. Where nobody answers, all that a filter means are; to act
    on whatever there is, in all departments, is never meant by keeping silent."""
    if sys.stdin is not None and sys.stdin.isatty():
        if typer.confirm(f"{what} them?", err=True):
            return None
        complain("nothing was done")
        return FAILED
    answer = _piped_answer()
    if answer in _YES:
        return None
    if answer in _NO:
        complain("nothing was done")
        return FAILED
    if answer:
        complain("nothing was done: what was piped in is neither y nor n; --yes does it without asking")
        return WRONG_USE
    if not filtered:
        complain(
            f"nothing was done: that is every job of all departments that there is to {what}, and nobody can"
            " be asked here; say which by the filters of gateway jobs list, or say --yes"
        )
        return WRONG_USE
    return None


def _piped_answer() -> str:
    """Of a script, which writes it at once; a pipe that only stays open isn't waited for."""
    if sys.stdin is None:
        return ""
    try:
        if not select.select([sys.stdin], [], [], _PATIENCE)[0]:
            return ""
    except io.UnsupportedOperation:  # no file, so that nothing has to be waited for
        pass
    return sys.stdin.buffer.readline().decode(errors="replace").strip().lower()
