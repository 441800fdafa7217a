"""PgBouncer in front of the tests' PostgreSQL."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.peers.ports import free_port
from tests.programs import PATH


@contextmanager
def pooler(server: str, mode: str) -> Iterator[str]:
    """The url of the same database by way of PgBouncer."""
    program = shutil.which("pgbouncer", path=PATH)
    assert program is not None, "not installed: pgbouncer"
    parts, port = urlsplit(server), free_port()
    socket = parse_qs(parts.query)["host"][0]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\n* = host={socket} port=5432 user=gateway\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\nignore_startup_parameters = options\n"
        )
        process = subprocess.Popen(
            [program, str(settings)], user=Path(socket).owner(), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            said = next((line for line in process.stderr if "process up" in line), None)
            assert said is not None, "pgbouncer didn't start"
            yield f"postgresql://gateway@127.0.0.1:{port}{parts.path}"
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()
