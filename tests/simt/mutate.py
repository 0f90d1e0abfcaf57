"""Breaks the CUDA kernels, one place at a time, and asks whether the emulated tests notice.

    python tests/simt/mutate.py DIRECTORY [--files conv/main_loop.cuh pool.cuh] [--out results.json]

In device code, each ``__syncthreads``, ``__syncwarp``, ``copy_async_wait`` and ``copy_async_commit`` is deleted, each
wait is weakened by one group, and each comparison is shifted by one (``<`` and ``<=``, ``>`` and ``>=`` change places).
A copy of the sources with all mutants, of which a variable selects one, is built once in DIRECTORY, with every access
checked. Then the tests of the kernel's family run for each, until one fails, first those that noticed other mutants.
Comparisons that the compiler evaluates (in constexpr functions and `if constexpr`) are left alone.
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
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Which tests run the kernels of a file, both by the start of their names; all of them for what all kernels share.
FAMILIES = {
    "conv/block": ("test_conv_variants", "test_block"),
    "conv/unpool": ("test_conv_variants", "test_block"),
    "conv/": ("test_conv", "test_block"),
    "pool": ("test_pool", "test_block"),
    "activation": ("test_activation",),
    "norm": ("test_norm",),
    "loss": ("test_loss",),
    "optimizer": ("test_optimizer",),
    "image": ("test_image",),
}

# Where only some tests of the family run the kernels of a file: words in their names.
KEYWORDS = {
    "conv/bias_grad": ["bias_grad"],
    "conv/dgrad": ["transpose", "ragged", "tile", "split"],
    "conv/wgrad": ["weight_grad", "ragged", "tile", "split"],
    "conv/splits": ["split"],
}

# What survives the first gets a second chance.
RUNS = [{"seed": 1, "schedule": "mixed"}, {"seed": 2, "schedule": "mixed"}]

CPU_SECONDS = 30  # for one test: a mutant that loops for ever is noticed, too

SWITCH = """\
#pragma once
// Which mutant lives, and comparisons that it may shift: `a < mutant::compare<7, 0, 1>() < b`.
extern "C" {
inline __attribute__((visibility("default"))) int zfcuda_mutant = -1;
}
namespace mutant {
inline __attribute__((noinline, no_sanitize("thread"))) bool is(int number) { return zfcuda_mutant == number; }
enum Operator { kLess, kLessEqual, kGreater, kGreaterEqual };
template <int Number, Operator Was, Operator Becomes>
struct compare {};
template <typename L, int Number, Operator Was, Operator Becomes>
struct Left { L value; };
template <typename L, int Number, Operator Was, Operator Becomes>
inline Left<L, Number, Was, Becomes> operator<(L value, compare<Number, Was, Becomes>) { return {value}; }
template <typename L, typename R, int Number, Operator Was, Operator Becomes>
inline bool operator<(Left<L, Number, Was, Becomes> left, R right) {
    switch (is(Number) ? Becomes : Was) {
        case kLess: return left.value < right;
        case kLessEqual: return left.value <= right;
        case kGreater: return left.value > right;
        default: return left.value >= right;
    }
}
}  // namespace mutant
"""

COMPARISON = re.compile(r" (<=|>=|<|>) ")
OPERATORS = {
    "<": ("kLess", "kLessEqual", "<="),
    "<=": ("kLessEqual", "kLess", "<"),
    ">": ("kGreater", "kGreaterEqual", ">="),
    ">=": ("kGreaterEqual", "kGreater", ">"),
}
WAITING = re.compile(r"(__syncthreads\(\)|__syncwarp\([^;]*\)|simt::copy_async_commit\(\));")
COPY_WAIT = re.compile(r"simt::copy_async_wait<([^;]*)>\(\);")


@dataclass
class Mutant:
    number: int
    file: str
    line: int
    code: str
    change: str
    caught: bool = False
    by: str = ""


def device_ranges(text: str) -> list[tuple[int, int]]:
    """Where the bodies of device functions stand, those that the compiler can evaluate left out."""
    ranges: list[tuple[int, int]] = []
    for found in re.finditer(r"__global__|__device__|ZFCUDA_HOST_DEVICE", text):
        if ranges and found.start() < ranges[-1][1]:
            continue
        position, depth = found.end(), 0
        while position < len(text) and not (depth == 0 and text[position] in "{;"):
            depth += {"(": 1, ")": -1}.get(text[position], 0)
            position += 1
        signature = text[text.rfind("\n", 0, found.start()) : position]
        if position == len(text) or text[position] == ";" or "constexpr" in signature:
            continue
        begin, braces = position, 0
        while True:
            braces += {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
            if braces == 0:
                break
        ranges.append((begin, position))
    return ranges


def mutate_file(path: Path, name: str, mutants: list[Mutant]) -> None:
    """Rewrites the file so that each of its mutants can be selected; adds them to the list."""
    text = path.read_text()
    edits: list[tuple[int, int, str]] = []

    def add(start: int, change: str) -> int:
        number, line = len(mutants), text.count("\n", 0, start) + 1
        code = text.splitlines()[line - 1].strip()
        mutants.append(Mutant(number, name, line, code, change))
        return number

    for begin, end in device_ranges(text):
        for line in re.finditer(r"[^\n]*\n?", text[begin:end]):
            code = line.group().split("//")[0]
            start = begin + line.start()
            if re.search(r"\bconstexpr\b|static_assert|^\s*#|\btemplate\b", code):
                continue
            for found in COMPARISON.finditer(code):
                was, becomes, shifted = OPERATORS[found[1]]
                number = add(start + found.start(1), f"`{found[1]}` becomes `{shifted}`")
                proxy = f"< mutant::compare<{number}, mutant::{was}, mutant::{becomes}>() <"
                edits.append((start + found.start(1), start + found.end(1), proxy))
        for found in WAITING.finditer(text, begin, end):
            number = add(found.start(), f"`{found[1]}` deleted")
            edits.append((found.start(), found.end(), f"if (!mutant::is({number})) {found[0]}"))
        for found in COPY_WAIT.finditer(text, begin, end):
            deleted = add(found.start(), "wait deleted")
            weakened = add(found.start(), "one more group may be pending")
            weak = f"if (mutant::is({weakened})) simt::copy_async_wait<({found[1]}) + 1>();"
            edits.append((found.start(), found.end(), f"{weak} else if (!mutant::is({deleted})) {found[0]}"))
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    if edits:
        include = '#include "kernels/mutant.h"\n'
        text = (
            text.replace("#pragma once\n", "#pragma once\n" + include, 1) if "#pragma once" in text else include + text
        )
        path.write_text(text)


def build(directory: Path, names: list[str]) -> list[Mutant]:
    tree = directory / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("build*", ".git", "*.so", "__pycache__", "data")
    for part in ("csrc", "tests", "zfcuda"):
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for file in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / file, tree)
    (tree / "csrc/kernels/mutant.h").write_text(SWITCH)
    mutants: list[Mutant] = []
    kernels = tree / "csrc/kernels"
    for path in (*sorted(kernels.rglob("*.cu*")), tree / "csrc/conv_phases.h"):
        name = os.path.relpath(path, kernels)
        if not names or name in names:
            mutate_file(path, name, mutants)
    import pybind11

    options = [
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DZFCUDA_CUDA=OFF",
        "-DZFCUDA_CHECKED=ON",
        "-DCMAKE_CXX_FLAGS=-w",
        "-DCMAKE_BUILD_TYPE=None",
    ]
    subprocess.run(["cmake", "-S", tree, "-B", directory / "build", "-G", "Ninja", *options], check=True)
    subprocess.run(["ninja", "-C", directory / "build", "_checked"], check=True)
    for built in (*(directory / "build").glob("_checked*.so"), directory / "build/_build_info.py"):
        shutil.copy(built, tree / "zfcuda")
    return mutants


class Runner:
    """A pytest plugin that, once the tests are collected, runs those of each mutant in a child process that has it."""

    def __init__(self, mutants: list[Mutant], module, directory: Path, done):
        self.mutants, self.module, self.directory, self.done = mutants, module, directory, done
        self.select = ctypes.c_int.in_dll(ctypes.CDLL(module.__file__), "zfcuda_mutant")
        self.killers: list[str] = []  # tests that failed for a mutant, the latest first
        self.in_child = False

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
                mutant.by = self.verdict(os.waitpid(child, 0)[1], log.read_text(errors="replace"))
                mutant.caught = mutant.by != ""
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
    parser.add_argument("--files", nargs="*", default=[], help="of csrc/kernels; all if none is named")
    parser.add_argument("--out", type=Path, help="results as JSON (DIRECTORY/mutants.json)")
    parser.add_argument("--list", action="store_true", help="build and list the mutants, run nothing")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    out = (arguments.out or directory / "mutants.json").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    mutants = build(directory, arguments.files)
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.number:4d} {mutant.file}:{mutant.line}: {mutant.change}: {mutant.code}")
        return

    os.chdir(directory / "tree")
    sys.path.insert(0, str(directory / "tree"))
    sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
    os.environ["ZFCUDA_EMULATED_MODULE"] = "_checked"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    module = importlib.import_module("zfcuda._checked")
    unchanged = Mutant(-1, "unchanged", 0, "", "")
    met: list[Mutant] = []

    def done(mutant: Mutant) -> None:
        if mutant is unchanged:
            if mutant.caught:
                sys.exit(f"the tests fail without a mutant: {mutant.by}")
            return
        verdict = "caught" if mutant.caught else "SURVIVED"
        place = f"{mutant.file}:{mutant.line}: {mutant.change}: {mutant.code}"
        print(f"{verdict:8s} {place}   [{mutant.by[:90]}]", flush=True)
        met.append(mutant)
        out.write_text(json.dumps([asdict(m) for m in met], indent=1))

    # Missing waits first: what other tests of kernels find least.
    order = [unchanged, *sorted(mutants, key=lambda m: "becomes" in m.change)]
    runner = Runner(order, module, directory, done)
    options = ["-x", "-qq", "-s", "-p", "no:cacheprovider", "--tb=short", "-k", "emulated", "tests/kernels"]
    status = pytest.main(options, [runner])
    if runner.in_child:
        sys.stdout.flush()
        os._exit(int(status))
    caught = sum(m.caught for m in met)
    print(f"{caught} of {len(met)} mutants caught ({100 * caught / max(1, len(met)):.1f} %)")


if __name__ == "__main__":
    main()
