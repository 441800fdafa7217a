"""Says at the end of a test run which programs its tests missed, and how to get them; and what it skipped."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
PACKAGES = {
    "Orthanc": "orthanc",
    "storescu": "dcmtk",
    "dciodvfy": "dicom3tools",
    "pgbouncer": "pgbouncer",
    "chromium": "chromium",
    "promtool": "prometheus",
    "rsyslogd": "rsyslog rsyslog-gnutls",
    "setpriv": "util-linux",
    "shellcheck": "shellcheck",
    "systemd-nspawn": "systemd systemd-container",
}
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)]
    if not DICOMWEB.exists():
        missing.append("orthanc-dicomweb")
    if missing:
        terminalreporter.write_line(
            f"Not installed: {', '.join(missing)}. The tests that need them fail; on Debian or Ubuntu:\n"
            f"    apt-get install --no-install-recommends {' '.join(missing)}",
            red=True,
        )
    skipped = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for why, count in skipped.items():
        terminalreporter.write_line(f"NOT PROVEN HERE: {count} tests. {why}", red=True, bold=True)
