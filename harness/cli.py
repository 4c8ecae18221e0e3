"""The command line: a command is run, and every way to end is one of the designed exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys

import typer

from harness.commands import app
from harness.contract.errors import GateError, RunFailed

GOES_ON = "gate --resume --out RUN, or the same call again, goes on from there"
MAKE_ROOM = f"make room: what was done is stored, {GOES_ON}"


def main() -> None:
    """Run a command; every way to end is one of the designed exit codes."""
    # A cancelled CI job sends SIGTERM: end as on Ctrl-C, servers included. A shell starts background jobs with
    # SIGINT ignored; then neither would end us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:  # a wrong command line
        message = error.format_message()
        if not message:  # no command at all: the help has been printed
            sys.exit(3)
        _fail(f"{message} (quantgate --help)", 3)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except SystemExit:  # typer ends like this, with status 1, when standard output was closed
        status = RunFailed.exit_code
    except GateError as error:
        _debug()
        if error.details:
            print(error.details, file=sys.stderr)
        _fail(str(error), error.exit_code)
    except OSError as error:
        _debug()
        full = f"; {MAKE_ROOM}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        _fail(f"{error.filename or 'file'}: {error.strerror or error}{full}", RunFailed.exit_code)
    except Exception as error:  # a mistake of ours: still one line and a designed exit code
        _debug()
        _fail(f"internal error: {type(error).__name__}: {error}; --debug shows where", RunFailed.exit_code)
    if status == 130:  # what typer makes of Ctrl-C
        _fail(f"interrupted; what was done is stored: {GOES_ON}", RunFailed.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _debug() -> None:
    if os.environ.get("QUANTGATE_DEBUG"):
        import traceback

        traceback.print_exc()


def _fail(message: str, status: int) -> None:
    # A server's words may be in it: one line, and nothing that steers a terminal.
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    print(f"quantgate: {line}", file=sys.stderr)
    if "--json" in sys.argv[1:]:  # who reads standard output as JSON finds some, whatever happened
        with contextlib.suppress(OSError):
            print(json.dumps({"verdict": None, "exit_code": status, "error": line}), flush=True)
    sys.exit(status)
