"""The machine code of a build's kernels, from cuobjdump: registers, shared memory, and the instructions of the main
loop by pipe. Nothing here knows what a kernel is for.

The main loop. Every backward branch closes a natural loop: what reaches the branch without passing its target. The main
loop is the smallest one that holds most of the kernel's products (the instructions of tensor cores, or else FFMA) and a
barrier, which a loop over k-tiles has and the loops in it have not; without a barrier anywhere, the smallest that holds
most of the products. Of the loops in it, one with products repeats (an FFMA loop over the depth of a k-tile): its
instructions are kept apart, for whoever knows how often it does, and so are those of one that only copies (to shared
memory, without registers). One that touches no memory catches up an index and is
seldom entered: it does not count, so that the sum stays a bound. Any other counts once, as do both sides of every
branch, and instructions whose predicate is false.

The way. A kernel that only moves data has no main loop: of the ways from its entry to an end that go back nowhere, the
one whose global accesses outside of loops move the most bytes, and the shortest of these.
"""

from __future__ import annotations

import collections
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Pipes in the order of tables. `moved` is no pipe: cycles of the path to L1 and shared memory, 128 bytes each.
PIPES = ("tensor", "fma", "imad", "alu", "xu", "shared", "global", "copy", "uniform", "control")

_OPCODES = {
    "tensor": "HMMA IMMA DMMA BMMA HGMMA IGMMA QGMMA BGMMA",
    "fma": "FFMA FFMA2 FADD FADD2 FMUL FMUL2 FFMA32I FADD32I FMUL32I HFMA2 HADD2 HMUL2",
    "imad": "IMAD XMAD IMUL",
    "xu": "MUFU I2F F2I F2F FRND POPC FLO BREV",
    "shared": "LDS LDSM STS STSM ATOMS SHFL MOVM",
    "global": "LDG STG LD ST LDL STL ATOM ATOMG RED REDG",
    "copy": "LDGSTS UBLKCP UTMALDG UTMASTG",
    "uniform": "LDC R2UR S2UR REDUX",
    "control": "BRA BRX JMP JMX BSSY BSYNC BREAK BMOV EXIT RET CALL NOP WARPSYNC YIELD NANOSLEEP BAR DEPBAR LDGDEPBAR "
    "ARRIVES SYNCS MEMBAR ERRBAR CCTL FENCE WARPGROUP S2R CS2R VOTE",
}
_PIPE_OF = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}
_BARRIERS = {"BAR", "SYNCS"}
_ENDS = {"EXIT", "RET", "BRX", "JMX"}

_ARCHITECTURE = re.compile(r"^\s*code for (sm_\w+)")
_FUNCTION = re.compile(r"^\s*Function\s*:?\s*(\S+?):?$")
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_RESOURCE = re.compile(r"\b(REG|STACK|SHARED|LOCAL):(\d+)")

# Of shared memory, each block on sm_90 and newer is given this much for the system, which cuobjdump counts as its own.
RESERVED = 1024


class NoToolError(Exception):
    """A program of the CUDA toolkit is missing."""


class NoCodeError(ValueError):
    """A file has no machine code for an architecture."""


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str  # with its modifiers, "LDS.128"
    operands: str
    predicated: bool

    @property
    def name(self) -> str:
        return self.opcode.partition(".")[0]

    @property
    def pipe(self) -> str:
        if self.name in _PIPE_OF:
            return _PIPE_OF[self.name]
        return "uniform" if self.name.startswith("U") else "alu"

    @property
    def target(self) -> int | None:
        """Of a branch to an address. A loop may be left by a call that does not return."""
        found = re.search(r"0x([0-9a-f]+)\s*$", self.operands) if self.name in ("BRA", "JMP", "CALL") else None
        return int(found[1], 16) if found else None

    @property
    def moved(self) -> int:
        """Cycles at 128 bytes each in which a warp's bytes pass to or from shared memory or L1, at least: those that it
        loads from shared memory may be the same for all lanes."""
        if self.pipe not in ("shared", "global", "copy"):
            return 0
        modifiers = self.opcode.split(".")
        if self.name in ("LDSM", "STSM"):
            return int(modifiers[-1]) if modifiers[-1] in ("2", "4") else 1
        if self.name == "LDS":
            return 1
        return 4 if "128" in modifiers else 2 if "64" in modifiers else 1

    @property
    def global_bytes(self) -> int:
        """Of a lane."""
        if self.pipe != "global":
            return 0
        sizes = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
        return next((sizes[one] for one in self.opcode.split(".") if one in sizes), 4)

    @property
    def multiply_adds(self) -> int:
        """Of a warp. A wgmma is done by four warps together."""
        if self.pipe != "tensor":
            return 32 if self.name == "FFMA" else 0
        shape = self.opcode.split(".")[1]
        if "x" in shape:
            m, n, k = map(int, shape.split("x"))
            return m * n * k // 4
        return {"1688": 1024, "16816": 2048, "16832": 4096, "884": 256, "1684": 512}[shape]


@dataclass(frozen=True)
class Counts:
    """Instructions of a warp by pipe."""

    pipes: dict[str, int]
    moved: int = 0
    multiply_adds: int = 0

    @classmethod
    def of(cls, instructions: Iterable[Instruction]) -> Counts:
        every = list(instructions)
        pipes = collections.Counter(one.pipe for one in every)
        return cls({p: pipes[p] for p in PIPES}, sum(i.moved for i in every), sum(i.multiply_adds for i in every))

    def plus(self, other: Counts, times: int = 1) -> Counts:
        pipes = {pipe: count + times * other.pipes[pipe] for pipe, count in self.pipes.items()}
        return Counts(pipes, self.moved + times * other.moved, self.multiply_adds + times * other.multiply_adds)

    @property
    def instructions(self) -> int:
        return sum(self.pipes.values())


@dataclass(frozen=True)
class MainLoop:
    """A warp's instructions in one turn: outside of loops that repeat, and once through each of those."""

    once: Counts
    repeated: Counts
    copies: tuple[Counts, ...] = ()  # the loops that only copy, in the order of their addresses


@dataclass(frozen=True)
class Code:
    """A kernel as compiled for one architecture."""

    name: str  # as its compiler has it
    registers: int
    stack: int  # bytes a thread, spilled registers among them
    shared: int  # bytes a block, static
    instructions: int
    loop: MainLoop | None
    way: Counts  # of a warp


# ---- The tools -------------------------------------------------------------------------------------------------------


def find_tool(name: str) -> str:
    """The path of a program of the CUDA toolkit: on PATH, beside nvcc, or from a wheel. NoToolError without it."""
    nvcc = shutil.which("nvcc")
    folders = [Path(nvcc).resolve().parent] if nvcc else []
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        folders += sorted(Path(root).glob("*/bin"), reverse=True)
    found = shutil.which(name) or next((str(f / name) for f in folders if (f / name).is_file()), None)
    if found is None:
        raise NoToolError(f"{name} is not on PATH: install the CUDA toolkit's, or pip install nvidia-cuda-{name}")
    return found


def _run(*command: str, text: str | None = None, path: str = "") -> str:
    """`path`: where the program looks for others too."""
    environment = {**os.environ, "PATH": os.pathsep.join(filter(None, [os.environ.get("PATH"), path]))}
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ValueError(f"{Path(command[0]).name} fails: {said[0] if said else f'exit status {done.returncode}'}")
    return done.stdout


def architectures(path: Path) -> list[str]:
    """Those that a module, object file or cubin has machine code for. FileNotFoundError, NoToolError, or ValueError if
    cuobjdump fails."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    listed = _run(find_tool("cuobjdump"), "-lelf", str(path))
    return sorted(set(re.findall(r"\.(sm_\w+)\.cubin", listed)))


def read(path: Path, architecture: str) -> list[Code]:
    """Every kernel for this architecture ("sm_90a"). Raises what `architectures` does, and NoCodeError if there is
    none."""
    if architecture not in (others := architectures(path)):
        raise NoCodeError(f"no kernel for {architecture} in {path}: it has {', '.join(others) or 'no machine code'}")
    cuobjdump, beside = find_tool("cuobjdump"), str(Path(find_tool("nvdisasm")).parent)
    sass, usage = (
        _run(cuobjdump, "-arch", architecture, what, str(path), path=beside) for what in ("-sass", "-res-usage")
    )
    return parse(sass, usage, architecture)


def compiler(path: Path) -> str:
    """ "CUDA 13.0, V13.0.88": of the first machine code in a file; "unknown" where it does not say."""
    command = [find_tool("cuobjdump"), "-elf", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as dump:
        assert dump.stdout is not None
        for line in dump.stdout:
            if found := re.search(r"Cuda compilation tools, release ([\d.]+), (V[\d.]+)", line):
                dump.kill()
                return f"CUDA {found[1]}, {found[2]}"
    return "unknown"


def demangle(names: Sequence[str]) -> list[str]:
    """C++ names for people. NoToolError without c++filt."""
    if not (tool := shutil.which("c++filt")):
        raise NoToolError("c++filt is not on PATH: install binutils")
    return _run(tool, text="\n".join(names)).splitlines()


# ---- What they print -------------------------------------------------------------------------------------------------


def parse(sass: str, usage: str, architecture: str) -> list[Code]:
    """Kernels of one architecture from what cuobjdump prints with -sass and with -res-usage."""
    resources: dict[str, dict[str, int]] = {}
    function = ""
    for line in usage.splitlines():
        if found := _FUNCTION.match(line):
            function = found[1]
        elif counts := _RESOURCE.findall(line):
            resources[function] = {what: int(count) for what, count in counts}
    reserved = RESERVED if int(re.sub(r"\D", "", architecture)) >= 90 else 0
    return [
        Code(
            name=function,
            registers=resources[function]["REG"],
            stack=resources[function]["STACK"] + resources[function]["LOCAL"],
            shared=max(0, resources[function]["SHARED"] - reserved),
            instructions=sum(one.name != "NOP" for one in instructions),
            loop=main_loop(instructions),
            way=way(instructions),
        )
        for function, instructions in _functions(sass, architecture).items()
    ]


def _functions(sass: str, architecture: str) -> dict[str, list[Instruction]]:
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    wanted = False
    for line in sass.splitlines():
        if found := _INSTRUCTION.match(line):
            predicated = line[line.index("*/") + 2 :].lstrip().startswith("@")
            current.append(Instruction(int(found[1], 16), found[2], found[3], predicated))
        elif found := _ARCHITECTURE.match(line):
            wanted = found[1] == architecture
        elif found := _FUNCTION.match(line):
            current = []
            if wanted:
                functions[found[1]] = current  # the same in every object that has it
    return functions


# ---- Loops -----------------------------------------------------------------------------------------------------------


def main_loop(instructions: Sequence[Instruction]) -> MainLoop | None:
    """See above; None where no loop has products."""
    products = {i for i, one in enumerate(instructions) if one.pipe == "tensor"}
    products = products or {i for i, one in enumerate(instructions) if one.name == "FFMA"}
    every = natural_loops(instructions)
    loops = [loop for loop in every if loop & products]
    if not loops:
        return None
    most = max(len(loop & products) for loop in loops)
    large = [loop for loop in loops if 2 * len(loop & products) > most]
    waiting = [loop for loop in large if any(instructions[i].name in _BARRIERS for i in loop)]
    main = min(waiting or large, key=len)
    inner = [loop for loop in every if loop < main]
    repeated = frozenset().union(*(loop for loop in inner if loop & products))
    seldom = frozenset().union(*(loop for loop in inner if not any(instructions[i].moved for i in loop)))
    copies = sorted((loop - seldom for loop in inner if _copies(instructions, loop) and not loop & products), key=min)
    once = main.difference(repeated, seldom, *copies)
    whole, again, *copying = (Counts.of(instructions[i] for i in part) for part in (once, repeated, *copies))
    return MainLoop(whole, again, tuple(copying))


def _copies(instructions: Sequence[Instruction], loop: frozenset[int]) -> bool:
    return any(instructions[i].pipe == "copy" for i in loop)


def way(instructions: Sequence[Instruction]) -> Counts:
    """See above."""
    end = len(instructions)
    successors = _successors(instructions)
    in_loops = frozenset().union(*natural_loops(instructions))
    best = [(0, 0)] * (end + 1)  # from each instruction on: bytes, and instructions, less being better
    after = [end] * end
    for i in reversed(range(end)):
        after[i] = max((j for j in successors[i] if j > i), key=best.__getitem__, default=end)
        moved, fewer = best[after[i]]
        best[i] = (moved + (0 if i in in_loops else instructions[i].global_bytes), fewer - 1)
    taken, i = [], 0
    while i < end:
        taken.append(instructions[i])
        i = after[i]
    return Counts.of(taken)


def _successors(instructions: Sequence[Instruction]) -> list[list[int]]:
    """Of each instruction, as indices."""
    index = {one.address: i for i, one in enumerate(instructions)}
    found: list[list[int]] = []
    for i, one in enumerate(instructions):
        target = index.get(one.target) if one.target is not None else None
        jumps = one.name in _ENDS or (target is not None and one.name != "CALL" and not _may_fall_through(one))
        falls = (not jumps or one.predicated) and i + 1 < len(instructions)
        found.append([target] * (target is not None) + [i + 1] * falls)
    return found


def natural_loops(instructions: Sequence[Instruction]) -> list[frozenset[int]]:
    """The instructions of each loop, as indices; loops of one target are one."""
    before: list[list[int]] = [[] for _ in instructions]
    backward: dict[int, list[int]] = {}
    for i, following in enumerate(_successors(instructions)):
        for j in following:
            before[j].append(i)
            if j < i:
                backward.setdefault(j, []).append(i)
    loops = []
    for head, tails in backward.items():
        body, waiting = {head}, list(tails)
        while waiting:
            i = waiting.pop()
            if i not in body:
                body.add(i)
                waiting += before[i]
        if 0 not in body or head == 0:  # else it has another entry
            loops.append(frozenset(body))
    return loops


def _may_fall_through(branch: Instruction) -> bool:
    """A branch may be conditional by its operands too: "BRA.DIV UR4, 0x120", "BRA P0, 0x120"."""
    return bool(re.search(r"\b(U?P\d|UR\d+|R\d+)\b", branch.operands))
