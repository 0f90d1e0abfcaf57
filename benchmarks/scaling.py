"""What more processes bring to training: measured on this machine, predicted for GPUs and networks.

    python benchmarks/scaling.py                                two processes of one thread each, then the model
    python benchmarks/scaling.py --processes                    the model alone, which needs no MPI
    python benchmarks/scaling.py --images-per-second 9000       of a GPU that somebody has measured
    python benchmarks/scaling.py --processes 8 --launch "srun --ntasks {n}"

Measures ZFNet on noise: a step of one process by its number of images; the sum of 249 MB of gradients in the trainer's
buckets; steps that processes make together, and each for itself while the others do; how fast images are read. Where
CuPy and GPUs are, all of it there, and the sum by NCCL too. The model stands in scaling_model.py, its assumptions
beside its tables. Where no GPU is measured its step is the bound of gpu_static.py, or what --images-per-second says.

Exit status: 0; 1, a process failed; 2, wrong arguments, or no MPI.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import loader
import numpy as np
import record
import scaling_model
import scaling_worker
from cpu_device import time_alternating
from harness import NOT_MEASURED
from scaling_model import LINKS, WAYS, Link, Step

from zfcuda import backends, data

RESULTS = Path(__file__).resolve().parent / "results"
BOUND, GPU = RESULTS / "gpu-static-sm_90a.json", "H200"
PRECISIONS = ("fp32", "tf32", "bf16")
COUNTS = (2, 8, 64)  # for which the model is asked
OFF = 0.2  # a prediction that is further off is explained
PAYS = 1.1  # times as fast


class FailedError(RuntimeError):
    """A measurement failed; the message says why."""


def mpirun() -> str | None:
    """Of this environment, or else of the system."""
    return shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = "how many, several times: each (default: 2; none: the model alone)"
    parser.add_argument("--processes", type=int, nargs="*", default=[2], metavar="N", help=several)
    parser.add_argument("--threads", type=int, default=1, help="of each process (default: 1)")
    parser.add_argument("--launch", metavar="COMMAND", help='starts {n} processes, also on other hosts: "srun -n {n}"')
    more = "measure more threads than there are processors"
    parser.add_argument("--oversubscribe", action="store_true", help=more)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64], metavar="N", help="images a process")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement (default: 7)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of what is measured (default: fp32)")
    parser.add_argument("--batch-size", type=int, default=128, help="images a GPU, for the model (default: 128)")
    rate = "of one GPU's training steps; not measured here"
    parser.add_argument("--images-per-second", type=float, metavar="RATE", help=rate)
    parser.add_argument("--quick", action="store_true", help="a small net, three rounds: to see that all works")
    out = "writes PATH.json and PATH.md; into benchmarks/results/ without it, unless it is --quick"
    parser.add_argument("--out", type=Path, metavar="PATH", help=out)
    options = parser.parse_args(arguments)
    for name in ("threads", "rounds", "batch_size", "images_per_second"):
        if (value := getattr(options, name)) is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be positive and finite, got {value}")
    if min(options.batches) < 1:
        parser.error(f"--batches must be at least 1, got {min(options.batches)}")
    if options.processes:
        _check_processes(parser, options)
    record.refuse_unwritable(parser, options.out and options.out.parent)
    options.batches = sorted(set(options.batches))
    options.rounds = 3 if options.quick else options.rounds
    return options


def _check_processes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if min(options.processes) < 2:
        parser.error(f"--processes must be at least 2, got {min(options.processes)}")
    if options.launch is None:
        processors, n = len(os.sched_getaffinity(0)), max(options.processes)
        if n * options.threads > processors and not options.oversubscribe:
            parser.error(
                f"{n} processes of {options.threads} threads need {n * options.threads} processors, and here are "
                f"{processors}: what is measured would be their waiting for each other (--oversubscribe does it)"
            )
        if (found := mpirun()) is None:
            parser.error("there is no mpirun: pip install mpich, or give --launch; --processes alone needs no MPI")
        options.launch = f"{shlex.quote(found)} -n {{n}}"
    elif "{n}" not in options.launch:
        parser.error(f"--launch needs {{n}}, where the number of processes goes, got {options.launch!r}")
    if importlib.util.find_spec("mpi4py") is None:
        parser.error("there is no mpi4py: pip install 'zfcuda[mpi]'; --processes alone needs no MPI")


# ---- Measurements ------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace, n: int, device: str) -> dict[str, Any]:
    """What `n` processes of scaling_worker.py find."""
    job = {
        "net": "zfnet_small" if options.quick else "zfnet",
        "batches": options.batches,
        "rounds": options.rounds,
        "device": device,
        "precision": options.precision,
    }
    command = shlex.split(options.launch.replace("{n}", str(n))) if n > 1 else []
    command += [sys.executable, str(Path(scaling_worker.__file__)), json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise FailedError(f"{n} processes end with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def reading(images: int, rounds: int) -> dict[str, float]:
    """Images a second that one process reads, packed and from JPEGs, and that it crops."""
    with tempfile.TemporaryDirectory() as folder:
        loader.make_pictures(Path(folder) / "made", images)
        jpegs, packed = loader.both(Path(folder) / "made", Path(folder))
        epoch = loader.Epoch.of(jpegs)
        calls: dict[str, Callable[[], object]] = {
            name: lambda dataset=dataset: loader.run_through(
                images for images, _ in data.load_batches(dataset, epoch.batches)
            )
            for name, dataset in (("packed", packed), ("JPEG", jpegs))
        }
        calls["crops"] = loader.crops_alone(packed, epoch)
        samples = time_alternating(calls, seconds=0, rounds=(rounds, rounds))
        return {name: 1e3 * len(packed) / statistics.median(times) for name, times in samples.items()}


def step_of(one: Mapping[str, Any], images: int) -> Step:
    """Of what one process found, the step on so many images; on its way, gradients are ready as in the largest."""
    shapes = {name: tuple(shape) for name, shape in one["shapes"].items()}
    longest = statistics.median(one["steps_s"][max(one["steps_s"], key=int)])
    ready = {name: seconds / longest for name, seconds in one["ready_s"].items()}
    return Step(images, statistics.median(one["steps_s"][str(images)]), shapes, ready, one["pass_s"] / longest)


def link_of(name: str, n: int, moved: float, samples: Sequence[float], hides: bool) -> Link:
    """What added up so many bytes in this time, and no faster than that."""
    return Link(name, 2 * (n - 1) / n * moved / statistics.median(samples) / 1e9, 0.0, None, hides)


# ---- Tables ------------------------------------------------------------------------------------------------------


def one_process(one: Mapping[str, Any]) -> str:
    """The step by its images, and what of it does not depend on them."""
    steps = {int(n): statistics.median(samples) for n, samples in one["steps_s"].items()}
    lines = [[str(n), f"{1e3 * s:.4g}", f"{1e3 * s / n:.4g}", f"{n / s:,.1f}"] for n, s in steps.items()]
    text = record.markdown_table(["images", "step, ms", "ms an image", "images/s"], lines)
    if len(steps) > 1:
        images, seconds = np.array(list(steps)), np.array(list(steps.values()))
        # Relative errors count.
        each, fixed = np.polyfit(images, seconds, 1, w=1 / seconds)
        text += f"\nAbout {1e3 * fixed:.3g} ms and {1e3 * each:.3g} ms an image.\n"
    ends = one["pass_s"]
    dense = [name for name, shape in one["shapes"].items() if len(shape) == 2]
    if dense:
        last = max(one["ready_s"][name] for name in dense)
        values = {name: math.prod(shape) for name, shape in one["shapes"].items()}
        share = sum(values[name] for name in dense) / sum(values.values())
        text += (
            f"After {last / ends:.0%} of the pass {share:.0%} of the gradients are ready (fully connected layers).\n"
        )
    return text


def sums(found: Mapping[int, Mapping[str, Any]], values: int) -> str:
    head = ["processes", "by", "MB", "ms", "GB/s sent by each", "small message, us"]
    lines = []
    for n, one in found.items():
        exchanges = one["exchange_s"]
        over_nccl = one.get("nccl_s", {})
        for by, size, samples in (
            ("MPI, host memory", 4, exchanges["fp32"]),
            ("MPI, host memory, as bf16", 2, exchanges["bf16"]),
            ("NCCL", 4, over_nccl.get("fp32")),
            ("NCCL, as bf16", 2, over_nccl.get("bf16")),
        ):
            cells = [NOT_MEASURED, NOT_MEASURED]
            if samples:
                link = link_of(by, n, size * values, samples, False)
                cells = [f"{1e3 * statistics.median(samples):.4g}", f"{link.gbytes:.3g}"]
            message = "" if by.startswith("NCCL") else f"{1e6 * one['message_s']:.0f}"
            lines.append([str(n), by, f"{size * values / 1e6:.1f}", *cells, message])
    return record.markdown_table(head, lines)


def compared(one: Mapping[str, Any], n: int, several: Mapping[str, Any]) -> tuple[str, list[dict[str, float]]]:
    """The model against steps that were made together, by the number of images of each process."""
    lines, rows, explained = [], [], []
    for images, samples in several["together_s"].items():
        step = step_of(one, int(images))
        by_nccl = "nccl_s" in several
        exchange = several["nccl_s" if by_nccl else "exchange_s"]["fp32"]
        link = link_of("measured", n, 4 * step.values, exchange, hides=by_nccl)
        predicted = scaling_model.predict(step, n, link, WAYS[0])
        beside, together = statistics.median(several["beside_s"][images]), statistics.median(samples)
        measured = n * step.images / together
        ratio = predicted.images_per_second / measured
        alone = statistics.median(exchange)
        hidden = 1 - (together - beside) / alone
        rows.append({"processes": n, "images": step.images, "predicted": predicted.images_per_second})
        rows[-1] |= {"measured": measured, "ratio": ratio, "beside": beside / step.seconds, "hidden": hidden}
        times = [f"{1e3 * s:.4g}" for s in (step.seconds, beside, alone, together)]
        rates = [f"{predicted.images_per_second:,.1f}", f"{measured:,.1f}", f"{ratio:.2f}"]
        gain = f"{measured / step.images_per_second:.2f}"
        lines.append([str(n), images, *times, *rates, gain, f"{hidden:.0%}"])
        if abs(ratio - 1) > OFF:
            slowed = n * step.images / (beside + predicted.exposed) / measured
            explained.append(
                f"- {images} images: {abs(ratio - 1):.0%} off. A process takes {beside / step.seconds:.2f} times as "
                f"long while the others compute (with that, predicted / measured is {slowed:.2f}); sums add "
                f"{1e3 * (together - beside):.4g} ms to it, {(together - beside) / alone:.2f} times what "
                "they take alone.\n"
            )
    head = ["processes", "images each", "one alone, ms", "each for itself, ms", "sums alone, ms", "together, ms"]
    head += ["predicted, images/s", "measured", "predicted / measured", "times as fast as one", "sums hidden"]
    return record.markdown_table(head, lines) + "".join(["\n", *explained] if explained else []), rows


def predictions(step: Step, links: Sequence[Link], rate: float) -> tuple[str, list[dict[str, Any]]]:
    """rate: images a second that a process reads."""
    lines, rows = [], []
    for link in links:
        for n in COUNTS:
            if link.most is not None and n > link.most:
                continue
            found = {way.name: scaling_model.predict(step, n, link, way, rate) for way in WAYS}
            cells = [
                f"{one.images_per_second:,.0f}{' (reads)' if one.reads else ''}, {1e3 * one.exposed:.3g} ms, "
                f"{one.sent / 1e6:.0f} MB"
                for one in found.values()
            ]
            efficiency = found[WAYS[0].name].images_per_second / n / step.images_per_second
            lines.append([link.name, str(n), f"{efficiency:.0%}", *cells])
            rates = {name: round(one.images_per_second) for name, one in found.items()}
            rows.append({"link": link.name, "processes": n, **rates})
    return record.markdown_table(["link", "GPUs", "share of N times one", *(way.name for way in WAYS)], lines), rows


def decisions(step: Step, links: Sequence[Link]) -> str:
    """Where another way to add up is at least a tenth faster, reading aside, and what follows."""
    fp32, bf16, columns, both = WAYS
    asked = {
        "Gradients as bf16": (bf16, fp32),
        "Columns instead of fp32 gradients": (columns, fp32),
        "Columns in bf16 instead of bf16 gradients": (both, bf16),
    }
    pays: dict[str, dict[str, dict[int, bool]]] = {}
    lines = []
    for what, (other, than) in asked.items():
        pays[what] = {link.name: {} for link in links}
        where = []
        for n in COUNTS:
            gains = {}
            for link in links:
                if link.most is None or n <= link.most:
                    now, then = (scaling_model.predict(step, n, link, way).images_per_second for way in (than, other))
                    gains[link.name] = then / now
                    pays[what][link.name][n] = then / now >= PAYS
            where.append(f"N = {n}: {_listed(f'{name} {gain:.1f}' for name, gain in gains.items() if gain >= PAYS)}")
        lines.append(f"{what}, times as fast: {'; '.join(where)}")
    rounded, _, split = (of_links.items() for of_links in pays.values())
    lines += [
        f"Columns send less than the gradients of fully connected layers below {scaling_model.break_even(step):,.0f} "
        "images of the whole batch, and nothing of it can be hidden",
        f"So gradients should travel as bf16: {_listed(name for name, of in rounded if any(of.values()))}",
        "So fully connected layers should be split by columns, whatever N, rather than that: "
        + _listed(name for name, of in split if all(of.values())),
    ]
    return "".join(f"- {line}\n" for line in lines)


def through_host(step: Step, n: int, several: Mapping[str, Any]) -> str:
    """By MPI (`exchange="mpi"`), whatever the link, as fast as it was here."""
    seconds = statistics.median(several["exchange_s"]["fp32"])
    link = link_of("", n, 4 * step.values, [seconds], hides=False)
    rate = scaling_model.predict(step, n, link, WAYS[0]).images_per_second
    return (
        f"- Through the host's memory, by MPI instead of NCCL, at the {1e3 * seconds:.3g} ms of {n} processes "
        f"here, {n} do {rate:,.0f} images/s, {rate / n / step.images_per_second:.0%} of {n} times one\n"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nowhere"


ASSUMPTIONS = (
    "a link carries, in GB/s a process and direction, after so many us of each exchange: "
    + "; ".join(f"{link.name} {link.gbytes:g}, {link.latency_us:g} us" for link in LINKS),
    "one GPU a host over a network, all of whose rate is its own; links as fast for 64 processes as for 2",
    "sums travel while the backward pass computes, and slow it by nothing; bucket after bucket, as the trainer's",
    "every process reads at the rate of one here, ahead of its use; crops cost a GPU nothing",
    "columns: nothing is computed while activations of the whole batch travel; layers compute as long as before",
)


def steps_of_gpus(options: argparse.Namespace, one: Mapping[str, Any], device: str) -> dict[str, Step]:
    """Whose scaling is predicted, by what is said of where it comes from."""
    here = step_of(one, options.batches[-1])
    n = options.batch_size
    if options.images_per_second:
        title = f"{options.images_per_second:g} images/s as given, not measured here"
        return {title: scaling_model.at_rate(here, n, options.images_per_second)}
    if device == "cuda":
        return {f"this GPU, {options.precision}, measured": scaling_model.at_rate(here, n, here.images_per_second)}
    if options.quick:
        return {}
    bounds = {p: scaling_model.bound(BOUND, GPU, p, n, here.shapes) for p in PRECISIONS}
    return {
        f"{GPU}, {precision}: {step.images_per_second:,.0f} images/s, a bound from the machine code, not measured": step
        for precision, step in bounds.items()
    }


# ---- The command -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    device = "cpu" if backends.status()["cuda"] else "cuda"
    facts = {**record.environment(), "device": device, "threads a process": options.threads}
    contents: dict[str, Any] = {"environment": facts}
    text: list[str] = []

    def say(part: str) -> None:
        text.append(part.rstrip())
        print(f"{text[-1]}\n", flush=True)

    say("# Scaling of training\n\n" + "\n".join(f"- {name}: {value}" for name, value in facts.items()))
    try:
        contents["one"] = one = run(options, 1, device)
        say(f"## One process, {options.precision}\n\n{one_process(one)}")
        several = {n: run(options, n, device) for n in options.processes}
    except FailedError as error:
        print(error, file=sys.stderr)
        return 1
    contents["several"] = several
    here = step_of(one, options.batches[-1])
    links = list(LINKS)
    if several:
        say(f"## The sum of gradients\n\n{sums(several, here.values)}")
        tables = [compared(one, n, found) for n, found in several.items()]
        contents["compared"] = [row for _, rows in tables for row in rows]
        say("## Together: the model against a measurement\n\n" + "\n".join(table for table, _ in tables))
        n = options.processes[-1]
        if samples := several[n].get("nccl_s"):
            links.append(link_of(f"NCCL, as here on {n}", n, 4 * here.values, samples["fp32"], True))
    contents["reading"] = rates = reading(50 if options.quick else 2000, options.rounds)
    listed = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    say(f"## Reading\n\nImages/s of one process: {listed}")
    contents["predicted"] = {}
    for title, step in steps_of_gpus(options, one, device).items():
        table, rows = predictions(step, links, rates["packed"])
        contents["predicted"][title] = rows
        say(
            f"## Model: {title}; {step.images} images a GPU\n\nImages/s, what is exposed, what each sends.\n\n{table}\n"
            f"{decisions(step, links)}{''.join(map(functools.partial(through_host, step), several, several.values()))}"
        )
    say("Assumed:\n" + "\n".join(f"- {assumption}" for assumption in ASSUMPTIONS))
    if out := options.out or (None if options.quick else default_path(facts)):
        out.parent.mkdir(parents=True, exist_ok=True)
        record.write_whole(out.with_name(f"{out.name}.json"), json.dumps(contents, indent=1) + "\n")
        record.write_whole(out.with_name(f"{out.name}.md"), "\n\n".join(text) + "\n")
    return 0


def default_path(facts: Mapping[str, Any]) -> Path:
    name = f"scaling {facts['processor']} {facts['device']} {facts['processors']} processors"
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
