"""Run a command that writes or reads the built book: turn.py PROGRAM ARGUMENTS. Two at once take turns."""

import fcntl
import os
import sys
from pathlib import Path

BUILT = Path(__file__).parents[1] / "_build"


def main() -> None:
    BUILT.mkdir(exist_ok=True)
    lock = os.open(BUILT / "lock", os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Waiting for another make in this folder ...", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)  # the command holds it until it ends, however it ends
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
