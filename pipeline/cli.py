"""The command `emograph`. Errors are one line on stderr and exit code 1; a traceback only with --debug."""

from __future__ import annotations

import errno
import os
import signal
import sys

from pipeline.errors import UserError, printable
from pipeline.streams import mend_streams, silence

DEBUG = "EMOGRAPH_DEBUG"
"""The variable that tells processes of --debug."""
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def debugging() -> bool:
    """Whether --debug was given."""
    return os.environ.get(DEBUG) == "1"


def main() -> None:
    """Entry point of the command."""
    try:
        mend_streams()
        if _launches(sys.argv[1:]):
            from pipeline.spawner import begin

            begin()
        # Inside, since it takes a while: a Ctrl-C meanwhile is a Ctrl-C like any other.
        from pipeline.commands import app

        try:
            app(prog_name="emograph")
        finally:
            sys.stdout.flush()  # at the interpreter's end it is too late to say what goes wrong
    except UserError as error:
        if debugging():
            raise
        print(f"emograph: error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would be told with a traceback
        sys.exit(130)
    except BrokenPipeError:  # `| head`
        silence()
        sys.exit(141)
    except OSError as error:
        if debugging() or error.filename is not None or error.errno not in _UNWRITTEN:
            raise
        _end_unwritten(error)


def _launches(arguments: list[str]) -> bool:
    """Whether this command will start workers, as far as can be seen before the commands are known."""
    words = [word for word in arguments if not word.startswith("-")]
    return len(words) > 1 and words[0] == "launch" and "--help" not in arguments


def _end_unwritten(error: OSError) -> None:
    """stdout takes nothing any more, so nothing may be left for the end of the interpreter to write there."""
    message = f"emograph: error: cannot write the output: {error.strerror}"
    try:
        print(message, file=sys.stderr)
    except OSError:
        pass
    silence()
    sys.exit(1)


if __name__ == "__main__":
    main()
