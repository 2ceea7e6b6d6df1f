"""Run the cases of one section in a process of its own; `benchmarks.gpu.supervise` starts it.

Usage: python -m benchmarks.gpu.child MODULE RECORD OPTIONS

MODULE has a function ``cases(context)``, RECORD is the file for the results, OPTIONS is JSON.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.context import Context, Options
from benchmarks.gpu.record import ERROR, Recorder

# Exit status of a process whose card no longer answers; the cases that are left need a fresh one.
BROKEN = 4


def main(arguments: list[str]) -> int:
    """Run what the arguments name; return the exit status."""
    module, path, text = arguments
    options: dict[str, Any] = json.loads(text)
    skip = set(options.pop("skip"))
    faulthandler.enable()
    recorder = Recorder(Path(path))
    context = Context(Options(**options))
    cases = importlib.import_module(module).cases(context)
    recorder.plan([case.name for case in cases])
    for case in cases:
        if case.name in skip:
            continue
        # A kernel that never ends may hold Python's lock; this thread does not need it.
        limit = case.seconds * context.options.patience
        faulthandler.dump_traceback_later(limit, exit=True)
        status = recorder.run(case)
        faulthandler.cancel_dump_traceback_later()
        if status == ERROR and context.is_broken():
            # After some errors nothing on the card can be freed in an orderly way either.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(BROKEN)
        context.release()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
