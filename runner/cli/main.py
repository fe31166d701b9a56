"""The entry of ``gpurun``: it loads nothing before Ctrl-C is taken care of."""

import _signal  # type: ignore[import-not-found]  # built in; ``signal`` would load other modules first
import sys


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits with its code.

    While the command line is still loading, Ctrl-C ends the process without a word, as it ends ``cat``; Python would print a
    traceback. Who was started to ignore Ctrl-C (a shell's background job) goes on ignoring it.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from runner.cli.group import run

    run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
