"""Peak memory of a training step: a process for each library, `python memory.py LIBRARY FAMILY BATCH`, prints MiB."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import networks
import peers
import torch
from cases import Memory
from harness import Name, Row
from setting import CPU, ours

from zfcuda import training

OURS = "zfcuda"


def measure(name: Name, case: Memory) -> Row:
    """In place of times, MiB."""
    found = {}
    for library in (OURS, *CPU.formats):
        command = [sys.executable, __file__, library, case.family, str(case.n)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[library] = float(result.stdout.split()[-1])
    return Row(*name, ours_ms=found.pop(OURS), peers_ms=dict(found))


def peak_mebibytes() -> float:
    """Of this process since it was started; getrusage would count its parent's memory before that."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def main(library: str, family: str, batch: str) -> None:
    """Prints by how much the resident size grows over three training steps of one library."""
    h, w, c = networks.ARCHITECTURES[family]().input_shape
    x, labels = CPU.normal(int(batch), c, h, w), torch.arange(int(batch))
    before = peak_mebibytes()
    network = networks.build(CPU, family)
    if library == OURS:
        trainer = training.Trainer(network)
        for _ in range(3):
            trainer.step(ours(x), ours(labels.int()))
    else:
        module = networks.modules_of(dataclasses.replace(CPU, formats=(library,)), network)[library]
        del network
        step = peers.training_step(module, networks.formatted(library, x), labels, CPU.precision, lr=1e-2)
        for _ in range(3):
            step()
    print(peak_mebibytes() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
