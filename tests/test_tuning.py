"""The tuner, end to end on the emulator: what may win, what may not, and what it leaves behind."""

import functools
import types
from dataclasses import replace

import numpy as np
import pytest

from zfcuda import BackendError, backends, cli, models, ops, plans, tuning
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec
from zfcuda.plans import Problem

# A small map with a long depth.
CONV = Problem("conv2d", "fp32", (1, 4, 4, 72), (8, 3, 3, 72), (1, 1), (1, 1))
OWN_POOL = {"window": (3, 3), "pool_stride": (2, 2), "pool_padding": (1, 1)}
PROBLEMS = [
    CONV,
    replace(CONV, operation="conv_transpose2d", precision="tf32"),
    replace(CONV, operation="conv2d_weight_grad", precision="bf16"),
    replace(CONV, operation="conv2d_relu_pool", precision="bf16", **OWN_POOL),
    replace(CONV, operation="unpool_conv2d_weight_grad", **OWN_POOL),
]
tune = functools.partial(tuning.tune, device="emulated")


@pytest.fixture
def module(tmp_path, monkeypatch, small_checks):
    """The emulated backend's module, with a cache of its own, and small checks of kernels."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = backends.get("emulated").module
    yield module
    module.clear_plans()


@pytest.fixture
def clock(module, monkeypatch):
    """Instead of a clock, clock.times: plan -> ms, 1 for those that it does not name. Also `clock.current`."""
    set_plan = module.set_plan

    class Clock:
        times = {}  # noqa: RUF012
        current = None
        calls = 0

    def set_and_note(*plan):
        set_plan(*plan)
        Clock.current = plan[-2:]

    def elapsed(backend, call, repeats):
        Clock.calls += 1
        return Clock.times.get(Clock.current, 1.0)

    monkeypatch.setattr(module, "set_plan", set_and_note)
    monkeypatch.setattr(tuning, "_elapsed", elapsed)
    return Clock


def candidates(problem=CONV):
    backend = backends.get("emulated")
    return backend.module.plan_candidates(*problem.key(backend))


def test_end_to_end(module, monkeypatch):
    """By the host's clock: a plan for every problem, the same in another process that reads the file."""
    monkeypatch.setattr(tuning, "_ROUNDS", 1)
    reported = []
    found = tune(PROBLEMS, report=reported.append)
    assert found == reported
    assert [plan.problem for plan in found] == PROBLEMS
    for plan in found:
        assert (plan.kernel, plan.splits) in candidates(plan.problem)
        assert 0 < plan.ms <= plan.untuned_ms
    path = tuning.save(found, device="emulated")
    assert path == plans.cache_path("emulator")
    assert plans.read(backends.get("emulated")) == found


def test_the_fastest_wins_and_holds(module, clock):
    winner = candidates()[3]
    clock.times = {winner: 0.25, candidates()[0]: 0.75}
    (plan,) = tune([CONV])
    assert (plan.kernel, plan.splits) == winner == clock.current
    assert (plan.ms, plan.untuned_ms, plan.gain) == (0.25, 0.75, 3.0)


def test_a_gain_within_the_noise_changes_nothing(module, clock):
    untuned, other = candidates()[:2]
    clock.times = {other: 0.99}
    (plan,) = tune([CONV])
    assert (plan.kernel, plan.splits) == untuned == clock.current
    assert plan.gain == 1


def test_slow_plans_are_timed_once(module, clock):
    others = candidates()[1:]
    clock.times = dict.fromkeys(others, 20.0)
    tune([CONV])
    assert clock.calls == len(others) + 1 + tuning._ROUNDS


def spoil(monkeypatch, clock, bad, spoiled):
    """The result of `ops.conv2d` is spoiled(result) where the plan `bad` holds."""
    whole = ops.conv2d
    monkeypatch.setattr(ops, "conv2d", lambda *a, **k: (spoiled if clock.current == bad else np.array)(whole(*a, **k)))


@pytest.mark.parametrize("spoiled", [lambda y: 1.01 * y, lambda y: y * np.nan])
def test_a_wrong_plan_never_wins(module, clock, monkeypatch, spoiled):
    bad = candidates()[2]
    clock.times = {bad: 0.01}
    spoil(monkeypatch, clock, bad, lambda y: spoiled(y).astype(np.float32))
    with pytest.warns(RuntimeWarning, match=f"plan {bad[0]} with {bad[1]} splits of conv2d fp32, images 1x4x4x72"):
        (plan,) = tune([CONV])
    assert (plan.kernel, plan.splits) == candidates()[0] == clock.current


def test_switches_count(module, clock, monkeypatch):
    problem = PROBLEMS[3]
    bad = candidates(problem)[1]
    clock.times = {bad: 0.01}
    whole = ops.conv2d_relu_pool

    def spoiled(*arguments, **options):
        y, switches = whole(*arguments, **options)
        return y, switches + np.uint8(clock.current == bad)

    monkeypatch.setattr(ops, "conv2d_relu_pool", spoiled)
    with pytest.warns(RuntimeWarning, match=r"other switches 100\.0%"):
        (plan,) = tune([problem])
    assert (plan.kernel, plan.splits) != bad


def fail(error):
    def raise_it(result):
        raise error

    return raise_it


def test_a_plan_that_cannot_run_is_left_out(module, clock, monkeypatch):
    bad = candidates()[1]
    clock.times = {bad: 0.01}
    spoil(monkeypatch, clock, bad, fail(MemoryError("no room for partial sums")))
    (plan,) = tune([CONV])
    assert (plan.kernel, plan.splits) == candidates()[0]


def test_where_the_untuned_plan_cannot_run_nothing_can(module, clock, monkeypatch):
    spoil(monkeypatch, clock, candidates()[0], fail(RuntimeError("the GPU is gone")))
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        tune([CONV])


def test_an_interruption_leaves_the_untuned_plan(module, clock, monkeypatch):
    untuned, bad = candidates()[:2]
    spoil(monkeypatch, clock, bad, fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tune([CONV])
    assert clock.current == untuned


def test_tuned_results_have_the_same_bits_every_time(module, clock):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (CONV.x, CONV.w))
    clock.times = {candidates()[-1]: 0.5}
    with backends.use("emulated"):
        tune([CONV])
        first, second = (ops.conv2d(x, w, stride=1, padding=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_saving_keeps_what_is_there(module, clock):
    first = tune(PROBLEMS[:2])
    tuning.save(first, device="emulated")
    again = [replace(first[1], ms=0.125), plans.Plan(PROBLEMS[4], "composed", 1, 1.0, 2.0)]
    path = tuning.save(again, device="emulated")
    assert plans.read(backends.get("emulated")) == [first[0], *again]
    # And no half-written one; verdicts are kept beside, where a plan's kernel is checked.
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith("kernels-")] == [path.name]


def test_saving_replaces_a_damaged_file(module, clock):
    found = tune([CONV])
    path = plans.cache_path("emulator")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.warns(RuntimeWarning, match="damaged"):
        tuning.save(found, device="emulated")
    assert plans.read(backends.get("emulated")) == found


def test_a_cache_that_cannot_be_written(module, clock, tmp_path):
    found = tune([CONV])
    (tmp_path / "zfcuda").write_text("a file in the place of the directory")
    with pytest.warns(RuntimeWarning), pytest.raises(OSError, match="zfcuda"):
        tuning.save(found, device="emulated")


def test_there_is_nothing_to_tune_on_a_processor():
    with pytest.raises(BackendError, match="there is nothing to tune on the cpu backend"):
        tuning.tune([CONV], device="cpu")


def test_gpus_of_several_kinds(module, monkeypatch):
    monkeypatch.setattr(module, "gpu_names", lambda: ["NVIDIA Toy", "NVIDIA Other"])
    with pytest.raises(BackendError, match=r"the GPUs differ \(NVIDIA Toy, NVIDIA Other\).*CUDA_VISIBLE_DEVICES"):
        tune([CONV])


def test_a_problem_that_cannot_be(module):
    with pytest.raises(ValueError, match="kernel height"):
        tune([replace(CONV, w=(8, 9, 9, 72))])
    with pytest.raises(ValueError, match="operation must be one of"):
        tune([replace(CONV, operation="softmax")])


def test_timed_by_the_events_of_the_gpu():
    """Without a GPU: that the calls lie between two events."""
    happened = []

    class Event:
        def record(self):
            happened.append("event")

        def synchronize(self):
            happened.append("waited")

    cuda = types.SimpleNamespace(Event=Event, get_elapsed_time=lambda start, end: 6.0)
    gpu = types.SimpleNamespace(on_host=False, xp=types.SimpleNamespace(cuda=cuda))
    assert tuning._elapsed(gpu, lambda: happened.append("call"), 3) == 2.0
    assert happened == ["event", "call", "call", "call", "event", "waited"]


# ---- Networks --------------------------------------------------------------------------------------------


def small_network():
    layers = (
        ConvSpec("conv1", 8, 3, 1, 1),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2", 8, 3),
        FullyConnectedSpec("fc3", 2),
    )
    return Network(Architecture((6, 6, 3), layers))


def test_problems_of_a_network():
    found = tuning.problems(small_network(), 2)
    assert [(p.operation, p.x) for p in found] == [
        ("conv2d", (2, 6, 6, 3)),
        ("conv_transpose2d", (2, 6, 6, 3)),
        ("conv2d_weight_grad", (2, 6, 6, 3)),
        ("conv2d_relu_pool", (2, 6, 6, 3)),
        ("unpool_conv2d_weight_grad", (2, 6, 6, 3)),
        ("conv2d", (2, 3, 3, 8)),
        ("conv_transpose2d", (2, 3, 3, 8)),
        ("conv2d_weight_grad", (2, 3, 3, 8)),
        ("conv2d", (2, 1, 1, 8)),
        ("conv_transpose2d", (2, 1, 1, 8)),
        ("conv2d_weight_grad", (2, 1, 1, 8)),
    ]
    assert {p.precision for p in found} == {"fp32"}
    assert found[3].window == (2, 2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        tuning.problems(small_network(), 0)


def test_problems_in_the_precision_of_the_network():
    net = models.zfnet_small(10, (32, 32, 3))
    net.precision = "bf16"
    found = tuning.problems(net, 128)
    assert {p.precision for p in found} == {"bf16", "tf32"}
    assert len([p for p in found if p.precision == "tf32"]) == 3  # of the last layer, which makes the logits
    assert len(found) == 4 * 3 + 3 * 2 + 3 * 3  # convolutions 4 and 5 are one problem


def test_a_network_meets_the_problems_that_are_tuned(module, monkeypatch):
    """A training step asks for workspaces of these problems and no others."""
    net, backend = small_network(), backends.get("emulated")
    asked = set()
    for name in {p.operation for p in tuning.problems(net, 2)}:
        size = getattr(module.fp32, f"{name}_workspace")

        def noted(conv, *pool, name=name, size=size):
            asked.add((name, tuple(conv.output), *(tuple(p.output) for p in pool)))
            return size(conv, *pool)

        monkeypatch.setattr(module.fp32, f"{name}_workspace", noted)
    with backends.use("emulated"):
        net.loss_and_gradients(np.ones((2, 6, 6, 3), np.float32), np.zeros(2, np.int32))
    tuned = set()
    for problem in tuning.problems(net, 2):
        name, _, conv, pool = problem.key(backend)
        tuned.add((name, tuple(conv.output), *([] if pool is None else [tuple(pool.output)])))
    assert asked <= tuned
    assert {name for name, *_ in asked} == {name for name, *_ in tuned}


# ---- The command -----------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    small_network().save(tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def test_the_command(module, clock, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(tuning, "save", functools.partial(tuning.save, device="emulated"))
    words = ["tune", checkpoint, "--batch-size", "1", "2", "--precision", "fp32", "bf16"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 2 * 11 + 1
    assert lines[0].startswith("conv2d fp32, images 1x6x6x3, filters 8x3x3x3, stride 1x1: ")
    assert lines[0].endswith(": 1 ms, untuned 1 (1.00 times as fast)")
    saved = plans.cache_path("emulator")
    assert lines[-1] == f"44 plans, 1.00 times as fast as untuned (geometric mean), saved: {saved}"
    assert len(plans.read(backends.get("emulated"))) == 44


def test_the_command_without_a_gpu(checkpoint, capsys):
    if "cuda" in backends.available():
        pytest.skip("a GPU is here")
    assert cli.main(["tune", checkpoint]) == 2
    assert "zfcuda tune: the " in capsys.readouterr().err
