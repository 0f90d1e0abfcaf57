import dataclasses
import json
import sys

import numpy as np
import pytest

from zfcuda import DataError
from zfcuda.analysis.ablation import Ablation, Budget, Run, ablation, table3
from zfcuda.data import ArrayDataset, Augmentation
from zfcuda.nn import models
from zfcuda.nn.architecture import Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

SHAPE = (12, 12, 1)
BUDGET = Budget(
    epochs=3, batch_size=16, lr=0.05, weight_decay=0.0, augmentation=Augmentation(0, flip=False), scale=0.02
)


def stripes(count, seed):
    """Two classes, stripes down and across: a convolution tells them apart, the mean does not."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int32)
    wave = np.sin(np.arange(12) * np.pi / 2 + rng.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 0, wave[:, None, :] + np.zeros((12, 1)), wave[:, :, None])
    images = 128 + 80 * images + rng.normal(0, 10, images.shape)
    return ArrayDataset(np.clip(images, 0, 255).astype(np.uint8)[..., None], labels, ("down", "across"))


def small(conv=True):
    layers = [ConvSpec("conv1", 6, 3, padding=1), ReLUSpec("relu1"), MaxPoolSpec("pool1", 3, 2, 1)] if conv else []
    return Architecture(SHAPE, (*layers, FullyConnectedSpec("fc2", 2)))


VARIANTS = {"with a convolution": small(), "without": small(conv=False)}


def study(tmp_path=None, budget=BUDGET, variants=VARIANTS, **arguments):
    arguments = {"progress": False, **arguments}
    return ablation(variants, stripes(96, 0), stripes(48, 1), budget=budget, out_dir=tmp_path, **arguments)


def test_the_ablated_part_is_what_the_task_needs():
    """P10's meaning: the table shows what a layer is for."""
    budget = dataclasses.replace(BUDGET, epochs=12)
    whole, ablated = study(budget=budget).rows
    assert (whole.variant, ablated.variant) == tuple(VARIANTS)
    assert whole.validation_error < 10
    assert whole.validation_error < ablated.validation_error
    assert whole.train_error < 10
    assert whole.validation_top5_error == 0
    assert whole.parameters == 6 * 9 + 6 + 2 * 6 * 36 + 2
    assert whole.seconds > 0


def test_runs_repeat_bit_for_bit():
    keep = ("train_error", "validation_error", "validation_top5_error")
    first, second = ([[getattr(run, name) for name in keep] for run in study().runs] for _ in range(2))
    assert first == second


def test_finished_runs_are_not_trained_again(tmp_path, monkeypatch):
    first = study(tmp_path)
    monkeypatch.setattr(sys.modules["zfcuda.analysis.ablation"], "Trainer", None)  # training again would call it
    assert study(tmp_path) == first


def test_an_interrupted_study_goes_on(tmp_path):
    whole = study(tmp_path / "whole")

    def stop(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut", on_run=stop)
    assert len(list((tmp_path / "cut").iterdir())) == 1
    seen = []
    again = study(tmp_path / "cut", on_run=seen.append)
    without_time = [dataclasses.replace(run, seconds=0) for run in again.runs]
    assert without_time == [dataclasses.replace(run, seconds=0) for run in whole.runs]
    assert [run.variant for run in seen] == list(VARIANTS)


def test_processes_give_the_same_runs(tmp_path):
    alone, together = study(), study(tmp_path, processes=2)
    assert [dataclasses.replace(run, seconds=0) for run in together.runs] == [
        dataclasses.replace(run, seconds=0) for run in alone.runs
    ]
    assert len(list(tmp_path.glob("*/row.json"))) == 2


def test_an_error_in_a_process_is_raised_here(tmp_path):
    with pytest.raises(FloatingPointError, match="the loss is"):
        study(budget=dataclasses.replace(BUDGET, lr=1e30), processes=2)


def test_another_budget_is_another_study(tmp_path):
    study(tmp_path)
    study(tmp_path, budget=dataclasses.replace(BUDGET, lr=0.01))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("changed", ["train", "validation"])
def test_other_images_are_another_study(tmp_path, changed):
    """One pixel: rows are made anew, and it is said why."""
    halves = {"train": stripes(96, 0), "validation": stripes(48, 1)}
    variants, said = {"without": small(conv=False)}, []

    def study_of(halves):
        options = {"budget": BUDGET, "out_dir": tmp_path, "progress": False, "say": said.append}
        return ablation(variants, halves["train"], halves["validation"], **options)

    first = study_of(halves)
    assert said == []
    assert study_of(halves) == first
    assert said.pop() == f"without, seed 0: taken from {next(tmp_path.iterdir())}"
    halves[changed].images[0, 0, 0] ^= 255
    study_of(halves)
    assert len(list(tmp_path.glob("*/row.json"))) == 2
    half = {"train": "training", "validation": "test"}[changed]
    assert said.pop().endswith(f"differs in {half} images")


def test_test_images_are_measured_anew(tmp_path):
    """The same training images, other test images: the error is that of these."""
    variants, train, test = {"with": small()}, stripes(96, 0), stripes(48, 1)
    wrong = ArrayDataset(test.images, 1 - test.labels, test.classes)
    rows = [
        ablation(variants, train, half, budget=BUDGET, out_dir=tmp_path, progress=False).runs[0].validation_error
        for half in (test, wrong)
    ]
    assert rows[0] < 50
    assert rows[1] == pytest.approx(100 - rows[0])


def test_another_version_is_another_study(tmp_path, monkeypatch):
    study(tmp_path)
    monkeypatch.setattr(sys.modules["zfcuda.analysis.ablation"], "__version__", "0.0.1")
    said = []
    study(tmp_path, say=said.append)
    assert len(list(tmp_path.iterdir())) == 4
    assert all(line.endswith("differs in version of zfcuda") for line in said)


def test_classes_of_the_test_images_are_matched_by_name():
    test = stripes(48, 1)
    turned = ArrayDataset(test.images, 1 - test.labels, test.classes[::-1])
    options = {"budget": BUDGET, "progress": False}
    one, other = (ablation({"with": small()}, stripes(96, 0), half, **options).runs[0] for half in (test, turned))
    assert one.validation_error == other.validation_error < 50


def test_seeds_give_a_mean_and_a_deviation():
    result = study(seeds=(0, 1), variants={"without": small(conv=False)})
    errors = [run.validation_error for run in result.runs]
    row = result.rows[0]
    assert row.seeds == 2
    assert row.validation_error == pytest.approx(np.mean(errors))
    assert row.deviation == pytest.approx(np.std(errors, ddof=1))


def test_the_longest_runs_are_dealt_out_first(tmp_path):
    module = sys.modules["zfcuda.analysis.ablation"]
    shapes = {"done": (6, 6, 4), "short": (6, 6, 1), "long": (6, 6, 3), "middle": (6, 6, 2)}
    layers = (ConvSpec("conv1", 2, 3, padding=1), FullyConnectedSpec("fc2", 5))
    networks = {name: Architecture(shape, layers) for name, shape in shapes.items()}
    assert module._multiplications(networks["long"]) == 36 * (9 * 3 * 2 + 2) + 36 * 2 * 5 + 5
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "row.json").touch()
    jobs = [module._Job(name, net, 0, None, {}, None, tmp_path / name, "cpu", False) for name, net in networks.items()]
    assert [jobs[number].variant for number in module._longest_first(jobs)] == ["long", "middle", "short", "done"]


def test_a_damaged_row_is_named(tmp_path):
    study(tmp_path)
    row = next(tmp_path.glob("*/row.json"))
    row.write_text(row.read_text()[:20])
    with pytest.raises(DataError, match=r"row\.json is damaged"):
        study(tmp_path)


def test_table3_on_any_network():
    base = models.zfnet_small_architecture(10, (28, 28, 1))
    variants = table3(base)
    assert variants["as it is"] == base
    assert "without layers 3,4,6,7" in variants
    assert len(variants) == len({variant.changes for variant in models.VARIANTS.values()})
    names = [layer.name for layer in table3(base, ["without layers 3,4"])["without layers 3,4"].layers]
    assert "conv3" not in names
    assert "conv5" in names
    full = models.zfnet_architecture(10)
    assert table3(full, ["ZF, layers 6,7 of 2048 units"]).popitem()[1] == models.VARIANTS[
        "ZF, layers 6,7 of 2048 units"
    ].change(full)


def test_results_are_saved_and_plotted(tmp_path):
    runs = (Run("a $b$", 0, 1.0, 2.0, 0.5, 10, 3.0), Run("a $b$", 1, 1.0, 4.0, 0.5, 10, 3.0))
    result = Ablation(runs, epochs=2)
    result.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["validation_error"] == 3.0
    assert result.plot().axes[0].get_yticklabels()[0].get_text() == r"a \$b\$"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {}}, "variants is empty"),
        ({"processes": 0}, "processes must be"),
        ({"seeds": ()}, "seeds must be different"),
        ({"seeds": (1, 1)}, "seeds must be different"),
    ],
)
def test_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        study(**change)


def test_an_unknown_variant_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"variant must be one of .*without layers 3,4.*; got 'no such'"):
        table3(models.zfnet_small_architecture(10, (28, 28, 1)), ["no such"])
