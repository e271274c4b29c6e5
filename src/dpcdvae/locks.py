"""A lock on a folder that one process works in."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import IO

from dpcdvae.errors import InputError

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock(folder: Path, instead: str) -> IO[str]:
    """An open file of ``folder`` that no other process can have; closing it, or any end of this process, gives it up.

    On a file system without locks nothing is held, and a line on standard error says so.

    Raises:
        InputError: a living process holds it, with what to do ``instead``.
    """
    import fcntl

    stream = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        stream.close()
        raise InputError(f"{folder} is in use by {holder}: {instead}") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            stream.close()
            raise
        print(f"{folder}: this file system has no locks: start no other command in it", file=sys.stderr)
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}")
    stream.flush()
    return stream
