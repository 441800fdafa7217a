"""The README's department in ten lines does what it says, over https."""

from __future__ import annotations

import asyncio
import re
import ssl
import textwrap
from pathlib import Path

import aiohttp
import yaml

from tests.peers.certificates import Authority
from tests.peers.gateway import PATIENCE, TOKENS, TRAUMA, hospital

README = (Path(__file__).parents[2] / "README.md").read_text()


async def test_it_is_ten_lines_and_does_a_job(tmp_path: Path, database_url: str) -> None:
    """As it is written, but for who is where, and a database."""
    block = README.partition("## A department in ten lines\n\n")[2].partition("\n\n")[0]
    assert len(block.splitlines()) == 10
    written = yaml.safe_load(re.sub(r"\$\{\w+\}", "secret", textwrap.dedent(block)))
    authority = Authority(tmp_path)
    shown = authority.certify("gateway")
    async with hospital(tmp_path, database_url) as house:
        ours = house.configuration
        for name in ("database_url", "secret_keys", "data_dir", "api_tokens"):
            written[name] = ours[name]
        written["listen"] |= {
            "host": "127.0.0.1",
            "port": 0,
            "tls": {"certificate": str(shown.certificate), "key": str(shown.key)},
        }
        written["sectra"] |= {**ours["sectra"], "allowed_networks": ["127.0.0.1/32"]}
        written["archives"]["vna"] |= ours["archives"]["vna"]
        written["adapters"]["milvue"] |= {name: ours["adapters"]["milvue"][name] for name in ("url", "token")}
        assert list(written["departments"]["emergency"]["applications"]) == [TRAUMA]
        house.configuration = written
        url = (await house.start()).url.replace("http:", "https:")
        patient = house.admit()
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority.path))
        headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.post(f"{url}/ia/{TRAUMA}", json=house.invocation(patient.slide)) as answer:
                assert answer.status == 200, await answer.text()
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with session.get(f"{url}/api/v1/jobs", headers=headers) as answer:
                        [job] = (await answer.json())["jobs"]
                    if job["state"] in ("done", "failed", "held"):
                        break
                    await asyncio.sleep(0.1)
        assert job["state"] == "done"
        assert len(house.results_on(patient.slide)) == 1
        assert len(house.stored_of(patient.study)) == 2
