"""Start a program, wait for it, and write down how long it ran and how much memory it took.

Linux counts the memory of the parent, as it was when the child began, into the peak of the child. A
benchmark is far too large a parent; this file imports next to nothing and is run by
``python -I -S``, so the floor is some 10 MB.

Usage: launcher.py RESULT_FILE PROGRAM [ARGUMENT ...]
"""

import os
import sys
import time


def main() -> None:
    """Run the program named by the arguments; see the top of this file."""
    result, *command = sys.argv[1:]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    # macOS counts bytes, everybody else kilobytes.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open(result, "w", encoding="ascii") as file:
        file.write(f"{os.waitstatus_to_exitcode(status)} {seconds!r} {peak}\n")


if __name__ == "__main__":
    main()
