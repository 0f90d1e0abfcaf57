"""Measures problems on the CPU for cpu.py, each in a process of its own: a copy of this one, which has loaded both
libraries and done nothing else. Takes the fields of `Work`, pickled, on standard input; prints each row as a line of
JSON."""

from __future__ import annotations

import functools
import json
import pickle
import sys
from dataclasses import asdict, dataclass

import analyses
import cases
import cpu_device
import graph_layers
import layers
import memory
import networks
import torch
from harness import Ceilings, Name, Row, measure
from processes import StoppedError, messages
from setting import CPU

MAKERS = layers.MAKERS | graph_layers.MAKERS | networks.MAKERS | analyses.MAKERS


@dataclass(frozen=True)
class Work:
    problems: list[cases.Problem]
    allocator: str  # in whose environment this process was started
    seconds: float  # and rounds: of cpu_device.time_alternating
    rounds: tuple[int, int]
    ceilings: Ceilings | None

    def measure(self, problem: cases.Problem) -> Row:
        name = self.name(problem)
        if isinstance(problem.case, cases.Memory):
            return memory.measure(name, problem.case)
        torch.manual_seed(0)
        timer = functools.partial(cpu_device.time_alternating, seconds=self.seconds, rounds=self.rounds)
        return measure(name, MAKERS[problem.direction](CPU, problem.case), timer, self.ceilings)

    def name(self, problem: cases.Problem) -> Name:
        return Name(problem.case.family, problem.case.label, problem.direction, self.allocator)


def in_own_process(work: Work, problem: cases.Problem) -> Row:
    try:
        (row,) = messages(lambda send: send(work.measure(problem)))
        return row
    except StoppedError as why:
        return Row(*work.name(problem), note=str(why))


if __name__ == "__main__":
    work = Work(**pickle.load(sys.stdin.buffer))
    for problem in work.problems:
        print(json.dumps(asdict(in_own_process(work, problem))), flush=True)
