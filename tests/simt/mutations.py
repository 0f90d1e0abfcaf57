"""Where device code can be broken, and how: the mutants that mutate.py runs."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Each operator by its name in mutant.h, and what becomes of it; comparisons all stand as the first, whose rank they
# share.
COMPARISONS = {
    "<": ("kLess", "kLessEqual", "<="),
    "<=": ("kLessEqual", "kLess", "<"),
    ">": ("kGreater", "kGreaterEqual", ">="),
    ">=": ("kGreaterEqual", "kGreater", ">"),
}
OPERATORS = {
    "+": ("kAdd", ("kSubtract", "-")),
    "-": ("kSubtract", ("kAdd", "+"), ("kSubtractFrom", "its operands swapped")),
    "*": ("kMultiply", ("kAdd", "+")),
    "/": ("kDivide", ("kMultiply", "*"), ("kDivideInto", "its operands swapped")),
    "%": ("kModulo", ("kDivide", "/"), ("kModuloOf", "its operands swapped")),
    "&": ("kAnd", ("kOr", "|")),
    "|": ("kOr", ("kAnd", "&")),
    "^": ("kXor", ("kOr", "|")),
    "<<": ("kLeft", ("kRight", ">>")),
    ">>": ("kRight", ("kLeft", "<<")),
}
COMPARISON = re.compile(r" (<=|>=|<|>) ")
OPERATOR = re.compile(r" (<<|>>|[-+*/%&|^]) ")
CONSTANT = re.compile(r"(?<![\w.:$])(?:(?:\w+::)*k[A-Z]\w*|\d+u?)(?![\w.(]|::)")
ARGUMENTS = re.compile(r"\b(at|inside|divide_up)\(([\w.:]+(?:\([\w.]*\))?), ([\w.:]+(?:\([\w.]*\))?)\)")
WAITING = re.compile(
    r"(?:__syncthreads|__syncwarp|simt::(?:copy_async_commit|copy_async_arrive|warpgroup_arrive|warpgroup_commit"
    r"|fence_proxy_async|tensor_store_commit|mbarrier_init_fence|mbarrier_wait|mbarrier_arrive(?:_expect)?"
    r"|named_barrier_sync|named_barrier_arrive))\("
)
GROUP_WAIT = re.compile(
    r"simt::(copy_async_wait|warpgroup_wait|tensor_store_wait_read|tensor_store_wait)<([^;<>]*)>\(\);"
)

# Of Hopper's primitives: an argument, what takes its place, and what that means.
CALLS = {
    "mbarrier_init": [(1, "({}) + 1", "one arrival more")],
    "mbarrier_wait": [(1, "({}) ^ 1", "the other parity")],
    "mbarrier_arrive_expect": [(1, "({}) + 16", "16 bytes more")],
    "named_barrier_sync": [(0, "({}) + 1", "the next barrier"), (1, "({}) + 32", "a warp more")],
    "named_barrier_arrive": [(0, "({}) + 1", "the next barrier"), (1, "({}) + 32", "a warp more")],
    "tensor_load": [(i, "({}) + 1", "the next box") for i in range(3, 8)],
    "tensor_load_im2col": [(i, "({}) + 1", "the next box") for i in range(3, 9)],
    "tensor_store": [(i, "({}) + 1", "the next box") for i in range(2, 7)],
    "matrix_descriptor": [
        (0, "({}) + 8", "16 bytes further on"),
        (1, "({}) + 16", "another leading dimension"),
        (2, "({}) + 16", "another stride"),
        (3, "mutant::other_swizzle({})", "another swizzle"),
    ],
    "advance": [(1, "({}) + 16", "16 bytes further on")],
    "wgmma_bf16": [
        (1, "({}) + 1", "A 16 bytes further on"),
        (2, "({}) + 1", "B 16 bytes further on"),
        (3, "!({})", "not"),
    ],
}
CALLS["wgmma_tf32"] = CALLS["wgmma_bf16"]
CALL = re.compile(rf"\b(?:simt::)?({'|'.join(CALLS)})(?:<[^;()]*>)?\(")
CONDITION = re.compile(r"\bif \(")

# Lines that the compiler needs to know, declarations of arrays, and what is not an expression.
FIXED = re.compile(r"\bconstexpr\b|static_assert|^\s*#|\btemplate\b|\bcase\b|SIMT_SHARED")
DECLARED_ARRAY = re.compile(r"^\s*(?:const\s+)?(?!return\b|else\b)[\w:]+(?:<[^;]*>)?\s+\(?&?\w+\)?\[")
KINDS = ("wait", "call", "condition", "comparison", "operator", "index", "constant", "argument")


@dataclass
class Mutant:
    file: str
    line: int
    code: str
    kind: str
    change: str
    edits: list[tuple[int, int, str]]  # from, to, what takes its place, in which @ is the number
    number: int = -1
    caught: bool = False
    reached: bool = False
    by: str = ""

    def __str__(self):
        return f"{self.file}:{self.line}: {self.change}: {self.code}"


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


def template_arguments(code: str) -> list[tuple[int, int]]:
    """Where they stand in a line; a comparison has spaces around it."""
    spans = []
    for found in re.finditer(r"\w<(?![<=\s])", code):
        end, depth = found.end(), 1
        while end < len(code) and depth:
            depth += {"<": 1, ">": -1}.get(code[end], 0)
            end += 1
        spans.append((found.start(), end))
    return spans


def arguments_of(text: str, begin: int) -> list[tuple[int, int]]:
    """Where those of a call stand whose bracket opens before `begin`."""
    spans, depth, start, position = [], 0, begin, begin
    while depth >= 0:
        symbol = text[position]
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(symbol, 0)
        if depth < 0 or (symbol == "," and depth == 0):
            spans.append((start, position))
            start = position + 1
        position += 1
    return [(a + len(text[a:b]) - len(text[a:b].lstrip()), b) for a, b in spans]


def bracketed(code: str, begin: int) -> int:
    """Where the bracket is closed that opens at `begin`; -1 if not in this line."""
    depth = 0
    for position in range(begin, len(code)):
        depth += {"[": 1, "]": -1}.get(code[position], 0)
        if depth == 0:
            return position
    return -1


def mutants_of_line(code: str) -> Iterator[tuple[str, str, list[tuple[int, int, str]]]]:
    """Kind, change and edits of each."""
    for found in COMPARISON.finditer(code):
        was, becomes, other = COMPARISONS[found[1]]
        proxy = f"< mutant::Change<@, mutant::{was}, mutant::{becomes}>() <"
        yield "comparison", f"`{found[1]}` becomes `{other}`", [(*found.span(1), proxy)]
    for found in OPERATOR.finditer(code):
        symbol = found[1]
        was, *others = OPERATORS[symbol]
        for becomes, other in others:
            proxy = f"{symbol} mutant::Change<@, mutant::{was}, mutant::{becomes}>() {symbol}"
            change = other if "operands" in other else f"becomes `{other}`"
            yield "operator", f"`{symbol}` {change}", [(*found.span(1), proxy)]
    for found in ARGUMENTS.finditer(code):
        call, first, second = found.groups()
        swapped = f"(mutant::is(@) ? {call}({second}, {first}) : {found[0]})"
        yield "argument", f"`{found[0]}` with its arguments swapped", [(*found.span(), swapped)]
    if DECLARED_ARRAY.search(code):
        return
    for found in re.finditer(r"(?<=[\w)\]])\[(?!\])", code):
        end = bracketed(code, found.start())
        if end > 0:
            index = code[found.end() : end]
            edits = [(found.end(), found.end(), "mutant::more<@>("), (end, end, ")")]
            yield "index", f"`[{index}]` is one more", edits
    for found in CONSTANT.finditer(code):
        yield "constant", f"`{found[0]}` is one more", [(*found.span(), f"mutant::more<@>({found[0]})")]


def mutants_of_file(path: Path, name: str) -> list[Mutant]:
    text = path.read_text()
    lines = text.splitlines()
    found: list[Mutant] = []

    def add(kind: str, change: str, start: int, edits: list[tuple[int, int, str]]) -> None:
        line = text.count("\n", 0, start) + 1
        moved = [(start + a, start + b, replacement) for a, b, replacement in edits]
        found.append(Mutant(name, line, lines[line - 1].strip(), kind, change, moved))

    for begin, end in device_ranges(text):
        for call in CALL.finditer(text, begin, end):
            arguments = arguments_of(text, call.end())
            for number, replacement, meaning in CALLS[call[1]]:
                start, stop = arguments[min(number, len(arguments) - 1)]
                was = text[start:stop]
                in_registers = call[1].startswith("wgmma") and number == 1 and was.isidentifier()
                if number < len(arguments) and not in_registers:
                    other = f"(mutant::is(@) ? ({replacement.format(was)}) : ({was}))"
                    add("call", f"`{call[1]}`, `{was}`: {meaning}", start, [(0, stop - start, other)])
        fixed = False  # within a statement that the compiler evaluates
        for line in re.finditer(r"[^\n]*\n?", text[begin:end]):
            code = line.group().split("//")[0].rstrip()
            fixed = fixed or FIXED.search(code) is not None
            spans = template_arguments(code)
            for kind, change, edits in () if fixed else mutants_of_line(code):
                if not any(a <= edits[0][0] < b for a, b in spans):
                    add(kind, change, begin + line.start(), edits)
            fixed = fixed and not code.endswith((";", "{", "}"))
        for wait in WAITING.finditer(text, begin, end):
            add("wait", f"`{wait[0][:-1]}` deleted", wait.start(), [(0, 0, "if (!mutant::is(@)) ")])
        for wait in GROUP_WAIT.finditer(text, begin, end):
            add("wait", f"`{wait[1]}` deleted", wait.start(), [(0, 0, "if (!mutant::is(@)) ")])
            weak = f"if (mutant::is(@)) simt::{wait[1]}<({wait[2]}) + 1>(); else "
            add("wait", "one more group may be pending", wait.start(), [(0, 0, weak)])
        for condition in CONDITION.finditer(text, begin, end):
            (start, stop), *others = arguments_of(text, condition.end())
            if not others and " = " not in text[start:stop]:
                edits = [(0, 0, "mutant::is(@) != static_cast<bool>("), (stop - start, stop - start, ")")]
                add("condition", f"`{text[start:stop]}` is not so", start, edits)
    return found


def collide(a: Mutant, b: Mutant) -> bool:
    """Whether one of them rewrites what the other changes."""
    return any(
        max(a0, b0) < min(a1, b1) or (b0 == b1 and a0 < b0 < a1) or (a0 == a1 and b0 < a0 < b1)
        for a0, a1, _ in a.edits
        for b0, b1, _ in b.edits
    )


def choose(mutants: list[Mutant], sample: int | None, seed: int) -> list[Mutant]:
    """All or a random sample, but one of those that collide; numbered."""
    order = random.Random(seed).sample(mutants, len(mutants)) if sample else mutants
    chosen: dict[str, list[Mutant]] = {}
    for mutant in order:
        others = chosen.setdefault(mutant.file, [])
        if not any(collide(mutant, other) for other in others if other.line == mutant.line):
            others.append(mutant)
            mutant.number = 0
        if sample and sum(map(len, chosen.values())) == sample:
            break
    kept = [mutant for mutant in mutants if mutant.number == 0]
    for number, mutant in enumerate(kept):
        mutant.number = number
    return kept


def rewrite(path: Path, mutants: list[Mutant]) -> None:
    """So that each of the mutants can be selected."""
    text = path.read_text()
    edits = [(a, b, replacement.replace("@", str(m.number))) for m in mutants for a, b, replacement in m.edits]
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    include = '#include "kernels/mutant.h"\n'
    text = text.replace("#pragma once\n", "#pragma once\n" + include, 1) if "#pragma once" in text else include + text
    path.write_text(text)
