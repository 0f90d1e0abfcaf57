"""Breaks the CUDA kernels, one place at a time, and asks whether the emulated tests notice.

    python tests/simt/mutate.py DIRECTORY [--files conv/main_loop.cuh pool.cuh] [--kinds wait operator] [--sample 100]
    python tests/simt/mutate.py DIRECTORY --selftests [...]

In device code, by kinds:

wait        a barrier, fence, arrival, commit or wait is deleted, or a wait weakened by one group
call        an argument of one of Hopper's primitives is another one: the parity of a wait, the arrivals or bytes that
            are expected, the number of a barrier, a coordinate of a box, a field of a descriptor, an operand
condition   an `if` asks for the opposite: so roles change places
comparison  shifted by one: ``<`` and ``<=``, ``>`` and ``>=`` change places
operator    becomes another (``+`` and ``-`` change places, ``*`` becomes ``+``, ``&`` becomes ``|`` and so on), or the
            operands of ``-``, ``/``, ``%`` change places
index       one more than it is
constant    a literal or a constant of the tile (a stride, a pitch, a size) is one more than it is
argument    the two of ``at``, ``inside`` or ``divide_up`` change places

A copy of the sources with all of them, or with a random sample, of which a variable selects one, is built once in
DIRECTORY, with every access checked. Then the tests of the kernel's family run for each, until one fails, first those
that noticed other mutants; of one that survives it is said whether any test reached it. What the compiler evaluates
(constexpr functions, `if constexpr`, template arguments, sizes of arrays) is left alone. With --selftests the same is
done to the correct kernels among the emulator's own tests: what the emulator and their results notice.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from mutations import KINDS, Mutant, choose, mutants_of_file, rewrite

ROOT = Path(__file__).resolve().parents[2]

# Which tests run the kernels of a file, both by the start of their names; all of them for what all kernels share.
FAMILIES = {
    "conv/block": ("test_conv_variants", "test_block"),
    "conv/unpool": ("test_conv_variants", "test_block"),
    "conv/wgmma": ("test_wgmma",),
    "conv/tma": ("test_tma",),
    "conv/conv_tma": ("test_tma",),
    "conv/wgrad_tma": ("test_tma",),
    "conv/dgrad_patch": ("test_dgrad_patch",),
    "conv/patch_tiles": ("test_dgrad_patch",),
    "conv/": ("test_conv", "test_block"),
    "pool": ("test_pool", "test_block"),
    "activation": ("test_activation",),
    "norm": ("test_norm",),
    "loss": ("test_loss",),
    "optimizer": ("test_optimizer",),
    "image": ("test_image",),
    "window": ("test_window",),
}

# Where only some tests of the family run the kernels of a file: words in their names.
KEYWORDS = {
    "conv/bias_grad": ["bias_grad"],
    "conv/dgrad": ["transpose", "ragged", "tile", "split"],
    "conv/wgrad": ["weight_grad", "ragged", "tile", "split"],
    "conv/splits": ["split"],
}

SELFTESTS = ("barrier_kernels.cpp", "tensor_kernels.cpp", "warpgroup_kernels.cpp", "selftest.h")

# What survives the first gets a second chance.
RUNS = [{"seed": 1, "schedule": "mixed"}, {"seed": 2, "schedule": "mixed"}]

REACHED = "the mutant was reached"
CPU_SECONDS = 30  # for one test: a mutant that loops for ever is noticed, too


def sources(tree: Path, selftests: bool) -> dict[str, Path]:
    """What may be broken, by name."""
    if selftests:
        return {name: tree / "tests/simt" / name for name in SELFTESTS}
    kernels = tree / "csrc/kernels"
    paths = (*sorted(kernels.rglob("*.cu*")), tree / "csrc/conv_phases.h")
    return {os.path.relpath(path, kernels): path for path in paths}


def copy(directory: Path) -> Path:
    """The sources, to be broken."""
    tree = directory / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("build*", ".git", "*.so", "__pycache__", "data")
    for part in ("csrc", "tests", "zfcuda", "benchmarks"):
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for file in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / file, tree)
    shutil.copy(Path(__file__).with_name("mutant.h"), tree / "csrc/kernels")
    return tree


def break_all(
    files: dict[str, Path], names: list[str], kinds: list[str], sample: int | None, seed: int
) -> list[Mutant]:
    """The mutants, each of which can be selected in the files as they are now."""
    found = [
        mutant for name, path in files.items() if not names or name in names for mutant in mutants_of_file(path, name)
    ]
    mutants = choose([mutant for mutant in found if mutant.kind in kinds], sample, seed)
    for name, path in files.items():
        if own := [mutant for mutant in mutants if mutant.file == name]:
            rewrite(path, own)
    return mutants


def build(directory: Path, module: str) -> None:
    import pybind11

    options = [
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DZFCUDA_CUDA=OFF",
        "-DZFCUDA_CHECKED=ON",
        "-DCMAKE_CXX_FLAGS=-w",
        "-DCMAKE_BUILD_TYPE=None",
    ]
    subprocess.run(["cmake", "-S", directory / "tree", "-B", directory / "build", "-G", "Ninja", *options], check=True)
    subprocess.run(["ninja", "-C", directory / "build", module], check=True)
    for built in (*(directory / "build").glob(f"{module}*.so"), directory / "build/_build_info.py"):
        shutil.copy(built, directory / "tree/zfcuda")


class Runner:
    """A pytest plugin that, once the tests are collected, runs those of each mutant in a child process that has it."""

    def __init__(self, mutants: list[Mutant], module, directory: Path, done):
        self.mutants, self.module, self.directory, self.done = mutants, module, directory, done
        library = ctypes.CDLL(module.__file__)
        self.select = ctypes.c_int.in_dll(library, "zfcuda_mutant")
        self.reached = ctypes.c_int.in_dll(library, "zfcuda_mutant_reached")
        self.killers: list[str] = []  # tests that failed for a mutant, the latest first
        self.in_child = False

    def pytest_sessionfinish(self):
        if self.in_child and self.reached.value:
            print(REACHED)

    def pytest_runtest_setup(self):
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # whose signal ends the process

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        for mutant in self.mutants:
            items = self.tests_of(mutant, session.items)
            for configuration in RUNS if mutant.number >= 0 else RUNS[:1]:
                log = self.directory / f"{mutant.number}.log"
                child = os.fork()
                if child == 0:
                    self.in_child = True
                    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                    self.select.value = mutant.number
                    self.module.debug.configure(**configuration)
                    session.items[:] = items
                    return None  # goes on with pytest's own loop
                status, text = os.waitpid(child, 0)[1], log.read_text(errors="replace")
                mutant.by = self.verdict(status, text)
                mutant.caught = mutant.by != ""
                mutant.reached |= mutant.caught or REACHED in text
                if mutant.caught:
                    break
            self.done(mutant)
        return True

    def tests_of(self, mutant: Mutant, items: list) -> list:
        """Those that run its kernels: first what noticed other mutants, then a few of each kind, the slow ones last."""
        stem = mutant.file.split(".")[0]
        family = next((tests for start, tests in FAMILIES.items() if stem.startswith(start)), ("test",))

        def order(item):
            if item.nodeid in self.killers:
                return (0, self.killers.index(item.nodeid))
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            _, number = parameters.get("case", ("", 12))
            return (2 if item.path.stem == "test_conv_variants" else 1, number)

        chosen = [
            item
            for item in items
            if item.path.stem.startswith(family) and any(word in item.name for word in KEYWORDS.get(stem, [""]))
        ]
        return sorted(chosen, key=order)

    def verdict(self, status: int, log: str) -> str:
        """The first sign that the mutant was noticed; empty if the tests passed."""
        if os.WIFSIGNALED(status):
            return f"killed by signal {os.WTERMSIG(status)}"
        code = os.waitstatus_to_exitcode(status)
        if code == pytest.ExitCode.OK:
            return ""
        if code != pytest.ExitCode.TESTS_FAILED:
            raise RuntimeError(f"pytest could not run:\n{log}")
        for killer in re.findall(r"^FAILED (\S+)", log, re.MULTILINE):
            self.killers = [killer, *(k for k in self.killers if k != killer)][:20]
        failures = re.findall(r"^E +(.*)$", log, re.MULTILINE)
        return failures[0] if failures else "a test failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="for the mutated sources and the build")
    parser.add_argument("--selftests", action="store_true", help="break the kernels of the emulator's own tests")
    parser.add_argument("--files", nargs="*", default=[], help="of csrc/kernels or tests/simt; all if none is named")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, help="all if none is named")
    parser.add_argument("--sample", type=int, metavar="N", help="of those, N at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--out", type=Path, help="results as JSON (DIRECTORY/mutants.json)")
    parser.add_argument("--list", action="store_true", help="list the mutants, run nothing")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    out = (arguments.out or directory / "mutants.json").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    files = sources(copy(directory), arguments.selftests)
    mutants = break_all(files, arguments.files, arguments.kinds, arguments.sample, arguments.seed)
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.number:4d} {mutant}")
        return
    name = "_selftest_checked" if arguments.selftests else "_checked"
    build(directory, name)
    tests = ["-k", "emulated", "tests/kernels"]
    if arguments.selftests:
        tests = ["-k", "correct_kernels_pass and _selftest_checked", "tests/simt/test_emulator.py"]
    run(directory, name, mutants, tests, out)


def run(directory: Path, name: str, mutants: list[Mutant], tests: list[str], out: Path) -> None:
    """The tests, for each of the mutants in this module."""
    os.chdir(directory / "tree")
    sys.path.insert(0, str(directory / "tree"))
    sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
    os.environ["ZFCUDA_EMULATED_MODULE"] = "_checked"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    module = importlib.import_module(f"zfcuda.{name}")
    unchanged = Mutant("unchanged", 0, "", "", "", [])
    met: list[Mutant] = []

    def done(mutant: Mutant) -> None:
        if mutant is unchanged:
            if mutant.caught:
                sys.exit(f"the tests fail without a mutant: {mutant.by}")
            return
        verdict = "caught" if mutant.caught else "SURVIVED" if mutant.reached else "NOT REACHED"
        print(f"{verdict:11s} {mutant}   [{mutant.by[:90]}]", flush=True)
        met.append(mutant)
        out.write_text(json.dumps([asdict(m) for m in met], indent=1))

    # Missing waits first: what other tests of kernels find least.
    order = [unchanged, *sorted(mutants, key=lambda m: KINDS.index(m.kind))]
    runner = Runner(order, module, directory, done)
    status = pytest.main(["-x", "-qq", "-s", "-p", "no:cacheprovider", "--tb=short", *tests], [runner])
    if runner.in_child:
        sys.stdout.flush()
        os._exit(int(status))
    for kind, count in Counter(m.kind for m in met).items():
        caught = sum(m.caught for m in met if m.kind == kind)
        print(f"{kind}: {caught} of {count} mutants caught ({100 * caught / count:.1f} %)")


if __name__ == "__main__":
    main()
