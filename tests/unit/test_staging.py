"""What a process that is gone has left in its staging folder is void at once; a living one's stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.dicom.staging import Staging

FILL = (
    "import sys, time; from pathlib import Path; from gateway.dicom.staging import Staging;"
    "staging = Staging(Path(sys.argv[1])); staging.fresh().write_bytes(b'half'); print('filled', flush=True);"
    "time.sleep(100)"
)


def test_only_what_the_dead_have_left_is_swept(tmp_path: Path) -> None:
    mine = Staging(tmp_path, 0)
    mine.fresh().write_bytes(b"half")
    with subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        mine.prepare()
        Staging(tmp_path, 0).prepare()
        assert len(list(tmp_path.glob("*/*"))) == 2
        other.kill()
        other.wait()
    mine.prepare()
    assert [path.parent for path in tmp_path.glob("*/*")] == [mine.path]
