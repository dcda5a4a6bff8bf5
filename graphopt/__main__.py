"""The program ``graphopt``, and ``python -m graphopt``: the command line, ended in order by whatever signal ends it."""

import os
import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command line; an interrupt is no traceback, however early it comes."""
    _fill_standard_streams()
    for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C: temporary files and processes go first
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        from graphopt.cli.main import main as command_line

        return command_line()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _fill_standard_streams() -> None:
    """Open what the caller closed: the next file would get its number, and what is printed would end up in there."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))


if __name__ == "__main__":
    sys.exit(main())
