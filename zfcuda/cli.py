"""The command line: `zfcuda demo`, `train`, `visualize` and the rest. Each command is a module of `zfcuda.commands`.

Bad input ends with one line on standard error and exit status 2, a training that diverged with 1, Ctrl-C with 130 (and
a report of what was done by then).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from ._version import __version__
from .errors import BackendError

COMMANDS = (
    "demo",
    "train",
    "import",
    "pack",
    "visualize",
    "evolve",
    "invariance",
    "diagnose",
    "occlude",
    "faithfulness",
    "sanity",
    "correspond",
    "ablate",
    "features",
    "study",
    "tune",
    "info",
)

_DESCRIPTION = """\
Train a convnet on kernels of its own, and see what it has learned: Zeiler and Fergus's deconvnet and every analysis
around it. Start with `zfcuda demo`. Each command leaves report.html, its pictures and its numbers in --out DIR.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line for an option that is wrong; the usage too where something is missing or unknown."""
        if message.startswith("argument -"):
            self.exit(2, f"{self.prog}: {message}\n")
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each is added by its module's `add_parser`."""
    parser = _Parser(prog="zfcuda", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"zfcuda {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f".commands.{name}", __package__).add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = build_parser().parse_args(argv)
    # What is wrong with a picture is in the message, or does not matter.
    warnings.filterwarnings("ignore", module="PIL")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may be any bytes
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as of `| head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, BackendError, ImportError, OSError) as error:  # DataError, CheckpointError are ValueErrors
        return _fail(arguments.command, error, 2)
    except MemoryError as error:
        return _fail(arguments.command, f"there is not enough memory for this: {error}".removesuffix(": "), 2)
    except FloatingPointError as error:
        return _fail(arguments.command, error, 1)
    except KeyboardInterrupt:
        print(f"zfcuda {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _fail(command: str, error: Exception | str, status: int) -> int:
    if isinstance(error, OSError) and error.filename and error.strerror:  # without its number
        error = f"{error.filename}: {error.strerror}"
    message = " ".join(str(error).split()) or type(error).__name__
    message = message.encode(errors="backslashreplace").decode()  # names of files may be any bytes
    print(f"zfcuda {command}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
