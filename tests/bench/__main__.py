"""Runs the measurements of this folder, each in a process of its own so that none bears another's memory.

python -m tests.bench [NAME ...] [options that the named ones understand]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    known = sorted(path.stem for path in HERE.glob("[!_]*.py") if "\ndef main(" in path.read_text())
    asked = argparse.ArgumentParser(prog="tests.bench")
    asked.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    given, options = asked.parse_known_args()
    for unknown in set(given.names) - set(known):
        asked.error(f"there is no {unknown}; there are {', '.join(known)}")
    failed = []
    for name in given.names or known:
        print(f"\n── {name} {'─' * (76 - len(name))}", flush=True)
        command = [sys.executable, "-m", f"tests.bench.{name}", *options]
        if subprocess.run(command, cwd=HERE.parents[1], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
