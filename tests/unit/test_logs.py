"""Each line of the log is JSON on request and names its job, whatever thread or library wrote it."""

from __future__ import annotations

import json
import subprocess
import sys

_SAYS = """
import asyncio, logging, sys, structlog
from gateway import logs
from gateway.dicom.association import exchange

log = structlog.get_logger("test")

async def main():
    log.info("before")
    with logs.about_job("J-1"):
        log.info("in the task")
        await asyncio.to_thread(log.info, "in a thread")
        await exchange(lambda watch: log.info("in an association"), 5)
        warn = logging.getLogger("aiohttp").warning
        await asyncio.create_task(asyncio.to_thread(warn, "of a %s\\nDoe^Jane", "library"))
        log.debug("too little")
        try:
            raise ValueError("Doe^Jane")
        except ValueError:
            log.error("it broke", exc_info=True)
            logging.getLogger("asyncio").error("unheard", exc_info=True)
    log.info("after")

logs.begin(logging.INFO, sys.argv[1])
asyncio.run(main())
"""


def said(form: str) -> str:
    ran = subprocess.run([sys.executable, "-c", _SAYS, form], capture_output=True, text=True, check=True)
    return ran.stderr


def test_each_line_of_a_job_names_it_in_json() -> None:
    lines = [json.loads(line) for line in said("json").splitlines()]
    of_job = {line["event"].partition(" (")[0] for line in lines if line.get("job") == "J-1"}
    assert of_job == {
        "in the task",
        "in a thread",
        "in an association",
        "of a library",
        "it broke",
        "unheard",
    }
    assert [line["event"] for line in lines if "job" not in line] == ["before", "after"]
    assert all({"level", "timestamp"} <= line.keys() for line in lines)
    assert "Doe" not in str(lines)


def test_text_is_text_and_as_discreet() -> None:
    told = said("text")
    assert "in a thread" in told and "J-1" in told and not told.lstrip().startswith("{")
    assert "Doe" not in told
