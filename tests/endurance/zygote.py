"""Starts a command again and again, each time in a fork of one process that has imported it.

Importing takes a second and what is to be disturbed a tenth of one, so that nearly all signals
would meet imports. A script, started by `commands.Zygote`: it reads requests from stdin, one JSON
object a line, and answers each with two lines, the process and how it ended. With ``--fresh`` it
imports nothing beforehand, and runs its one request itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

INTERRUPTED = 128 + signal.SIGINT


def use_local_model(given: dict[str, Any]) -> None:
    """Put a model whose files are on a server of this machine in place of the published ones."""
    from umx_np.pretrained import models
    from umx_np.pretrained import transfer as _transfer
    from umx_np.pretrained.models import PUBLISHED, PublishedFile

    files = {file["target"]: PublishedFile(**file) for file in given["files"]}
    info = replace(PUBLISHED["umxhq"], name=given["name"], files=files)
    setattr(models, "PUBLISHED", {info.name: info})  # noqa: B010
    setattr(_transfer, "FIRST_PAUSE", 0.001)  # noqa: B010


def prepare(request: dict[str, Any]) -> None:
    """Make this process one that a shell could have started."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    # Where a hanging process is can be asked.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if "model" in request:
        use_local_model(request["model"])


def run(request: dict[str, Any]) -> int:
    """Run the command. What interrupts this file, and not the command, counts as its beginning."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        prepare(request)
        main = importlib.import_module(request["main"]).main
        status = main(request["argv"])
        # From here on the interpreter is at work.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return status
    except KeyboardInterrupt as interrupt:
        trace = interrupt.__traceback__
        while trace is not None:
            place = Path(trace.tb_frame.f_code.co_filename)
            if place.parts[-1] != "zygote.py" and "umx_np" in place.parts:
                raise
            trace = trace.tb_next
        return INTERRUPTED


def serve() -> int:
    """Answer requests until there are no more; in a fork, return the status of its command."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        # An interrupt is kept back until what it would end is inside of `run`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pid = os.fork()
        if pid == 0:
            return run(json.loads(line))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1:] == ["--fresh"]:
        sys.exit(run(json.loads(sys.stdin.readline())))
    sys.exit(serve())
