"""Run as a script: becomes the command it is given, as the user it is given, and dies with its parent.

A process of its own rather than a hook between fork and exec, because Python code there can deadlock in a
process that has threads. It imports nothing of ours, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, deadly_signal, uid, gid, *command = sys.argv[1:]
    os.umask(0o077)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    # After the change of user: the kernel forgets the tie when the credentials change.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(deadly_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != int(parent):  # it died before the tie was made
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
