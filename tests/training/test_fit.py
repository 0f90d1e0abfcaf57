"""Epochs, checkpoints, resuming, and what goes wrong on the way."""

import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors

import zfcuda
from zfcuda.data import ArrayDataset, Augmentation, Preprocess
from zfcuda.training import Linear, Plateau, Trainer, default_preprocess, evaluate
from zfcuda.training.checkpoint import CHECKPOINT, METRICS
from zfcuda.training.ranks import Ranks

from . import tiny

TIMES = ("seconds", "images_per_second")


def _fit(trainer, out=None, *, epochs=3, train=None, **options):
    options = {"schedule": Linear(4), "batch_size": 8, "progress": False} | options
    return trainer.fit(train or tiny.dataset(), tiny.dataset(20, seed=1), epochs=epochs, out_dir=out, **options)


def _untimed(history):
    return [{name: value for name, value in metrics.items() if name not in TIMES} for metrics in history]


def test_fit_learns_and_says_how_well():
    net = tiny.network(dropout=0.0)
    history = _fit(Trainer(net, lr=1e-2), epochs=12, train=tiny.dataset(200), augmentation=Augmentation(0, flip=False))
    last = history[-1]
    assert [metrics["epoch"] for metrics in history] == list(range(1, 13))
    assert last["step"] == 12 * 25
    assert last["train_top1"] > 0.9
    assert last["validation_top1"] > 0.9
    assert last["train_loss"] < 0.3 * history[0]["train_loss"]
    assert last["validation_top1"] == evaluate(net, tiny.dataset(20, seed=1)).top1
    assert net.classes == tiny.CLASSES


def test_the_validation_set_is_matched_by_the_names_of_its_classes():
    """Half of the classes, in another order: what is right stays right."""
    whole = tiny.dataset(60, seed=1)
    kept = whole.labels != 1
    labels = np.where(whole.labels[kept] == 2, 0, 1).astype(np.int32)
    part = ArrayDataset(whole.images[kept], labels, ("right", "left"))
    net = tiny.network(dropout=0.0)
    augmentation = Augmentation(0, flip=False)
    history = Trainer(net).fit(
        tiny.dataset(200), part, epochs=12, batch_size=8, augmentation=augmentation, progress=False
    )
    assert history[-1]["validation_top1"] > 0.9
    assert net.classes == tiny.CLASSES


class Ordered(ArrayDataset):
    """Has an order of its own, as packed images do, and remembers what it was asked for."""

    asked: list = []  # noqa: RUF012

    def order(self, rng):
        return (np.arange(len(self)) + rng.integers(len(self))) % len(self)

    def batch(self, indices):
        self.asked.append(list(map(int, indices)))
        return super().batch(indices)


def test_a_data_set_is_read_in_its_own_order():
    plain = tiny.dataset(24)
    train = Ordered(plain.images, plain.labels, plain.classes)
    preprocess = default_preprocess(tiny.network(), plain)
    Trainer(tiny.network(), seed=5).fit(train, epochs=2, batch_size=8, preprocess=preprocess, progress=False)
    for epoch, batches in enumerate((train.asked[:3], train.asked[3:])):
        assert np.concatenate(batches).tolist() == train.order(np.random.default_rng([5, epoch])).tolist()


def test_files_of_a_training(tmp_path):
    net = tiny.network()
    history = _fit(Trainer(net), tmp_path / "new" / "run")
    files = tmp_path / "new" / "run"
    assert sorted(os.listdir(files)) == [CHECKPOINT, METRICS]
    lines = (files / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    loaded = zfcuda.load(files / CHECKPOINT)
    assert tiny.bits(loaded) == tiny.bits(net)
    assert loaded.classes == tiny.CLASSES
    np.testing.assert_array_equal(loaded.preprocess.mean, net.preprocess.mean)
    assert (loaded.preprocess.crop, loaded.preprocess.scale) == ((6, 6), net.preprocess.scale)
    dataset = tiny.dataset(9)
    assert evaluate(loaded, dataset) == evaluate(net, dataset)


def test_preprocessing_travels_with_a_plainly_saved_network(tmp_path):
    net = tiny.network()
    net.preprocess = Preprocess(np.full((7, 8, 1), 3.5, np.float32), crop=(6, 6), scale=0.25)
    net.save(tmp_path / "net.safetensors")
    loaded = zfcuda.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded.preprocess.mean, net.preprocess.mean)
    assert (loaded.preprocess.crop, loaded.preprocess.scale) == ((6, 6), 0.25)
    assert loaded.classes is None


@pytest.mark.parametrize("schedule", [Linear(4), Plateau(patience=1, margin=0.5)], ids=["linear", "plateau"])
def test_resuming_goes_on_bit_for_bit(tmp_path, schedule):
    whole = Trainer(tiny.network(), max_filter_rms=0.4, seed=7)
    _fit(whole, tmp_path / "whole", epochs=4, schedule=schedule)
    _fit(Trainer(tiny.network(), max_filter_rms=0.4, seed=7), tmp_path / "parts", epochs=2, schedule=schedule)
    # Another process: another network object, whose weights and seed the checkpoint replaces.
    resumed = Trainer(zfcuda.nn.Network(tiny.architecture(), seed=99), max_filter_rms=0.4)
    _fit(resumed, tmp_path / "parts", epochs=4, schedule=schedule, resume=True)
    assert tiny.bits(resumed.net) == tiny.bits(whole.net)
    assert resumed.seed == 7
    assert _untimed(resumed.history) == _untimed(whole.history)
    for name, velocity in whole.optimizer.velocities.items():
        assert resumed.optimizer.velocities[name].tobytes() == velocity.tobytes()
    assert len((tmp_path / "parts" / METRICS).read_text().splitlines()) == 4


def test_resuming_a_finished_training_changes_nothing(tmp_path):
    trainer = Trainer(tiny.network())
    _fit(trainer, tmp_path, epochs=2)
    content = (tmp_path / CHECKPOINT).read_bytes()
    again = Trainer(tiny.network())
    assert _fit(again, tmp_path, epochs=2, resume=True) == trainer.history
    assert tiny.bits(again.net) == tiny.bits(trainer.net)
    assert (tmp_path / CHECKPOINT).read_bytes() == content


def test_resuming_without_a_checkpoint_starts_anew(tmp_path):
    trainer = Trainer(tiny.network())
    assert len(_fit(trainer, tmp_path, epochs=1, resume=True)) == 1
    with pytest.raises(ValueError, match="resume needs out_dir"):
        _fit(trainer, None, resume=True)


def test_the_same_seed_gives_the_same_bits():
    nets = [tiny.network(), tiny.network(), tiny.network()]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        _fit(Trainer(net, seed=seed), epochs=2)
    assert tiny.bits(nets[0]) == tiny.bits(nets[1])
    assert tiny.bits(nets[0]) != tiny.bits(nets[2])


def test_every_image_of_an_epoch_is_used_once_in_an_order_of_its_own():
    seen = []

    class Watched(zfcuda.data.Subset):
        def batch(self, indices):
            seen.append(list(indices))
            return super().batch(indices)

    dataset = Watched(tiny.dataset(27), range(27))
    preprocess = Preprocess(np.zeros((6, 6, 1), np.float32), (6, 6))
    Trainer(tiny.network()).fit(dataset, epochs=2, batch_size=5, preprocess=preprocess, progress=False)
    assert [len(indices) for indices in seen] == [5] * 10
    first, second = np.concatenate(seen[:5]).tolist(), np.concatenate(seen[5:]).tolist()
    assert len(set(first)) == len(set(second)) == 25
    assert first != second


def test_a_batch_larger_than_the_data_is_the_data():
    history = _fit(Trainer(tiny.network()), epochs=1, train=tiny.dataset(6), batch_size=100)
    assert history[0]["step"] == 1


def test_callbacks_see_every_epoch(tmp_path):
    seen = []
    _fit(Trainer(tiny.network()), epochs=2, callbacks=[lambda trainer, metrics: seen.append((trainer.steps, metrics))])
    assert [(steps, metrics["epoch"]) for steps, metrics in seen] == [(6, 1), (12, 2)]


def test_inputs_have_the_scale_that_the_weights_were_made_for():
    dataset = tiny.dataset()
    lecun, gaussian = tiny.network(), zfcuda.nn.Network(dataclasses.replace(tiny.architecture(), initial="gaussian"))
    inputs = default_preprocess(lecun, dataset)(dataset.images)
    assert np.sqrt(np.square(inputs).mean()) == pytest.approx(1, rel=1e-5)
    assert default_preprocess(gaussian, dataset).scale == 1.0


def test_larger_images_are_cropped_as_in_the_paper():
    dataset = tiny.dataset(40, size=(8, 10))
    net = tiny.network()
    _fit_options = {"epochs": 1, "batch_size": 8, "progress": False}
    Trainer(net).fit(dataset, dataset, **_fit_options)
    assert net.preprocess.crop == (6, 6)
    assert net.preprocess.image_shape == (8, 10, 1)
    corners, flips = Augmentation.for_images(net.preprocess).draw(np.random.default_rng(0), 400, net.preprocess)
    assert {tuple(corner) for corner in corners.tolist()} == {(0, 0), (0, 4), (2, 0), (2, 4), (1, 2)}
    assert 150 < flips.sum() < 250


def test_small_images_are_shifted_by_up_to_the_padding():
    preprocess = Preprocess(np.zeros((6, 8, 1), np.float32), (6, 8))
    augmentation = Augmentation(padding=2)
    corners, flips = augmentation.draw(np.random.default_rng(0), 1000, preprocess)
    assert corners.dtype == np.int32
    assert (corners.min(0).tolist(), corners.max(0).tolist()) == ([-2, -2], [2, 2])
    assert 400 < flips.sum() < 600
    assert not Augmentation(padding=2, flip=False).draw(np.random.default_rng(0), 1000, preprocess)[1].any()
    again = augmentation.draw(np.random.default_rng(0), 1000, preprocess)
    np.testing.assert_array_equal(again[0], corners)
    with pytest.raises(ValueError, match="padding must not be negative, got -1"):
        Augmentation(padding=-1)


# ---- What goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"train": tiny.dataset(size=(6, 5))}, "crop must fit into the images"),
        ({"preprocess": Preprocess(np.zeros((7, 6, 1), np.float32), (6, 6))}, r"images must have shape \(7, 6, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _fit(Trainer(tiny.network()), **options)


def test_a_loss_that_is_nan_leaves_the_last_checkpoint(tmp_path):
    trainer = Trainer(tiny.network())

    def poison(trainer, metrics):
        if metrics["epoch"] == 2:
            trainer.net.layers["conv2"].weight[0] = np.inf

    # The callback runs before its epoch's checkpoint, so the first epoch's is the last one that is good.
    kept = []
    with pytest.raises(FloatingPointError, match=r"in step 12: conv2\.weight is not finite"):
        _fit(trainer, tmp_path, callbacks=[lambda *_: kept.append((tmp_path / CHECKPOINT).exists()), poison])
    assert kept == [False, True]


def test_ctrl_c_leaves_the_last_checkpoint_and_says_so(tmp_path, monkeypatch, capsys):
    expected = Trainer(tiny.network())
    _fit(expected, epochs=4)

    trainer = Trainer(tiny.network())
    step = trainer.net.loss_and_gradients

    def interrupted(*args, **kwargs):
        if kwargs["step"] == 15:  # in the third epoch
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    monkeypatch.setattr(trainer.net, "loss_and_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fit(trainer, tmp_path, epochs=4)
    said = capsys.readouterr().err
    assert "Interrupted in epoch 3; the checkpoint of epoch 2 is whole" in said
    assert str(tmp_path / CHECKPOINT) in said

    resumed = Trainer(tiny.network())
    _fit(resumed, tmp_path, epochs=4, resume=True)
    assert tiny.bits(resumed.net) == tiny.bits(expected.net)


def test_ctrl_c_before_the_first_checkpoint(tmp_path, monkeypatch, capsys):
    trainer = Trainer(tiny.network())

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.net, "loss_and_gradients", interrupted)
    for out, said in ((tmp_path, "before the first checkpoint"), (None, "nothing was written")):
        with pytest.raises(KeyboardInterrupt):
            _fit(trainer, out)
        assert said in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, failing):
    _fit(Trainer(tiny.network()), tmp_path, epochs=1)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left on device"):
        _fit(Trainer(tiny.network()), tmp_path, epochs=2, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    _fit(Trainer(tiny.network(units=9)), tmp_path, epochs=1)
    net = tiny.network()
    before = tiny.bits(net)
    with pytest.raises(zfcuda.CheckpointError, match=r"checkpoint\.safetensors is of another architecture"):
        _fit(Trainer(net), tmp_path, resume=True)
    assert tiny.bits(net) == before


@pytest.mark.parametrize("changed", ["images", "labels", "validation"])
def test_a_checkpoint_of_other_data_is_not_resumed(tmp_path, changed):
    """What the epochs before have learned and measured is not of these data."""
    _fit(Trainer(tiny.network()), tmp_path, epochs=1)
    train, validation = tiny.dataset(), tiny.dataset(20, seed=1)
    dataset = validation if changed == "validation" else train
    (dataset.labels if changed == "labels" else dataset.images)[3] ^= 1
    trainer = Trainer(tiny.network())
    before = tiny.bits(trainer.net)
    with pytest.raises(zfcuda.CheckpointError, match=rf"{CHECKPOINT} was t[a-z]+ on other images, labels or classes"):
        trainer.fit(train, validation, epochs=2, batch_size=8, out_dir=tmp_path, resume=True, progress=False)
    assert tiny.bits(trainer.net) == before


def test_resuming_goes_on_with_the_checkpoints_augmentation(tmp_path):
    options = {"epochs": 1, "augmentation": Augmentation(1, flip=False)}
    _fit(Trainer(tiny.network()), tmp_path, **options)
    whole, resumed = Trainer(tiny.network()), Trainer(tiny.network())
    _fit(whole, epochs=2, augmentation=options["augmentation"])
    _fit(resumed, tmp_path, epochs=2, resume=True)
    assert tiny.bits(resumed.net) == tiny.bits(whole.net)
    with pytest.raises(zfcuda.CheckpointError, match="was trained with shifts by up to 1 pixel, none mirrored: resume"):
        _fit(Trainer(tiny.network()), tmp_path, epochs=3, resume=True, augmentation=Augmentation(1))


def test_resuming_with_other_settings_says_so(tmp_path, capsys):
    _fit(Trainer(tiny.network()), tmp_path, epochs=1)
    _fit(Trainer(tiny.network(), lr=0.5), tmp_path, epochs=2, resume=True, progress=True)
    assert "resumed with lr 0.5 instead of 0.01\n" in capsys.readouterr().err


def test_the_checkpoint_says_how_it_was_trained(tmp_path):
    options = {"augmentation": Augmentation(1, flip=False), "about": {"data": {"name": "columns"}}}
    for epochs in (1, 2):
        _fit(Trainer(tiny.network(), lr=0.02, seed=3), tmp_path, epochs=epochs, resume=True, **options)
    origin = zfcuda.load(tmp_path / CHECKPOINT).origin
    assert origin["data"] == {"name": "columns"}
    assert (origin["images"], origin["epochs"], origin["version"]) == (50, 2, zfcuda.__version__)
    assert origin["augmentation"] == {"padding": 1, "flip": False}
    assert origin["settings"].items() >= {"lr": 0.02, "batch_size": 8, "seed": 3, "precision": "fp32"}.items()
    assert origin["train"] == zfcuda.data.digest(tiny.dataset())


def test_ten_crops_are_mirrored_if_training_images_were(tmp_path):
    preprocess = Preprocess(np.zeros((8, 8, 1), np.float32), crop=(6, 6), scale=0.01)
    train, found = tiny.dataset(50, size=(8, 8)), {}
    for flip in (True, False):
        net = tiny.network()
        options = {"epochs": 1, "batch_size": 8, "preprocess": preprocess, "progress": False}
        Trainer(net).fit(train, augmentation=Augmentation(flip=flip), out_dir=tmp_path / str(flip), **options)
        net = zfcuda.load(tmp_path / str(flip) / CHECKPOINT)
        crops = preprocess.ten_crops(train.images, flip=flip)
        expected = np.mean([net.predict(crop) for crop in crops], axis=0)[np.arange(50), train.labels]
        found[flip] = evaluate(net, train, ten_crop=True).loss
        assert found[flip] == pytest.approx(-np.log(expected).mean(), rel=1e-5)
    assert found[True] != found[False]


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    _fit(Trainer(tiny.network()), tmp_path, epochs=1)
    content = (tmp_path / CHECKPOINT).read_bytes()
    for length in (0, 5, 300, len(content) - 1):
        (tmp_path / CHECKPOINT).write_bytes(content[:length])
        with pytest.raises(zfcuda.CheckpointError, match=CHECKPOINT):
            _fit(Trainer(tiny.network()), tmp_path, resume=True)


def test_a_network_without_its_training_cannot_be_resumed(tmp_path):
    tiny.network().save(tmp_path / CHECKPOINT)
    with pytest.raises(zfcuda.CheckpointError, match="holds a network, but no training that could go on"):
        _fit(Trainer(tiny.network()), tmp_path, resume=True)


def _rewrite(path, change):
    """The checkpoint with other contents: change(tensors, header)."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["zfcuda"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
    change(tensors, header)
    path.write_bytes(safetensors.numpy.save(tensors, {"zfcuda": json.dumps(header)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, header: tensors.pop("velocity/fc6.weight"), "no training that could go on"),
        (lambda tensors, header: tensors.pop("preprocess/mean"), "how images become inputs"),
        (lambda tensors, header: header["metadata"].update({"zfcuda.training": "{"}), "no training that could go on"),
        (lambda tensors, header: header.update({"preprocess": []}), "does not hold the network"),
        (lambda tensors, header: header["metadata"].update({"zfcuda.origin": "[1]"}), "does not hold the network"),
        (
            lambda tensors, header: header["metadata"].update({"zfcuda.origin": '{"augmentation": {"padding": "x"}}'}),
            "what the network says of its augmentation is damaged",
        ),
        (
            lambda tensors, header: tensors.update({"velocity/fc6.bias": np.zeros(3, np.float32)}),
            r"the velocity of fc6\.bias has shape \(3,\)",
        ),
    ],
)
def test_damaged_training_state_is_refused(tmp_path, change, message):
    _fit(Trainer(tiny.network()), tmp_path, epochs=1)
    _rewrite(tmp_path / CHECKPOINT, change)
    net = tiny.network()
    before = tiny.bits(net)
    with pytest.raises(zfcuda.CheckpointError, match=message):
        _fit(Trainer(net), tmp_path, resume=True)
    assert tiny.bits(net) == before


def test_a_damaged_image_stops_the_training_with_its_path():
    class Damaged(zfcuda.data.Subset):
        def batch(self, indices):
            if 13 in indices:
                raise zfcuda.DataError("cats/13.jpg: cannot be read")
            return super().batch(indices)

    preprocess = Preprocess(np.zeros((6, 6, 1), np.float32), (6, 6))
    with pytest.raises(zfcuda.DataError, match=r"cats/13\.jpg"):
        _fit(Trainer(tiny.network()), train=Damaged(tiny.dataset(), range(48)), preprocess=preprocess)


def test_ranks_compare_every_number_of_the_mean(monkeypatch):
    """What two ranks would tell each other, where they differ in one of many pixels."""
    told = []
    monkeypatch.setattr(Ranks, "check_same", lambda self, what: told.append(what.get("preprocess")))
    train = tiny.dataset(8)
    for change in (0, 0, 1):
        preprocess = default_preprocess(tiny.network(), train)
        preprocess.mean[1, 1] += change
        Trainer(tiny.network()).fit(train, epochs=1, batch_size=8, preprocess=preprocess, progress=False)
    told = [one for one in told if one is not None]
    assert told[0] == told[1] != told[2]
