"""`zfcuda`, of which one rank gets a signal in the middle of its work, when a function has returned there once.

mpirun -n N python -m tests.commands.dying RANK SIGNAL MODULE FUNCTION COMMAND ...
"""

import importlib
import os
import sys

from zfcuda import cli
from zfcuda.training import world


def main(rank, number, module, function, *command):
    module = importlib.import_module(module)
    whole = getattr(module, function)

    def dying(*arguments):
        found = whole(*arguments)
        if world().Get_rank() == int(rank):
            os.kill(os.getpid(), int(number))
        return found

    setattr(module, function, dying)
    return cli.main(command)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
