import numpy as np
import pytest

from zfcuda import DataError
from zfcuda.analysis.evolution import Tracker, evolution, load_evolution
from zfcuda.data import ArrayDataset, Augmentation, Preprocess
from zfcuda.nn import Architecture, Network
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, ReLUSpec
from zfcuda.training import Trainer

from .nets import PATTERNS, pattern_net, with_pattern
from .test_ablation import small, stripes

FIT = {"batch_size": 16, "progress": False, "augmentation": Augmentation(0, flip=False)}


def images_of_patterns():
    return np.stack([with_pattern(0, 3, 3), with_pattern(1, 8, 6), with_pattern(2, 5, 9)])


def test_a_look_shows_what_the_map_fires_for_and_where_that_changed():
    """P5's meaning: a map that learns another pattern shows it, and the change of image is marked."""
    net, images = pattern_net(), images_of_patterns()
    tracker = Tracker(net, images, at=(1, 2, 3), maps={"pool1": [0]}, layers=["pool1"])
    for epoch, pattern in ((1, 0), (2, 0), (3, 2)):
        net.layers["conv1"].weight[0, ..., 0] = np.where(PATTERNS[pattern] > 0, 1.0, -1.0)
        net.layers["conv1"].bias[0] = 0.5 - PATTERNS[pattern].sum()
        tracker.look(net, epoch)
    seen = tracker.result().layers["pool1"]
    assert seen.epochs.tolist() == [1, 2, 3]
    assert seen.indices.tolist() == [[0, 0, 2]]
    assert seen.changed.tolist() == [[False, False, True]]
    assert seen.likeness[2] == pytest.approx(1)
    assert seen.likeness[0] == seen.likeness[1] < 0.9
    assert seen.settled is None  # what it shows now, it shows for the first time
    for epoch, pattern in ((0, 0), (2, 2)):
        bright = seen.projections[0, epoch, ..., 0] > 0
        assert bright.sum() == PATTERNS[pattern].sum()


def test_a_map_that_stays_as_it_is_has_settled_at_once():
    net = pattern_net()
    tracker = Tracker(net, images_of_patterns(), at=(1, 2), layers=["pool1"])
    for epoch in (1, 2):
        tracker.look(net, epoch)
    assert tracker.result().layers["pool1"].settled == 1


def test_layers_come_in_the_order_of_the_net(tmp_path):
    net = pattern_net()
    layers = ["pool1", "fc2"]  # not in the order of the alphabet
    Tracker(net, images_of_patterns(), at=(1,), layers=layers[::-1], out_dir=tmp_path).look(net, 1)
    assert list(load_evolution(tmp_path).layers) == layers


def test_order_does_not_need_numbers_in_names(tmp_path):
    specs = (ConvSpec("stem", 2, 3), ReLUSpec("act"), FullyConnectedSpec("head", 3))
    net = Network(Architecture(pattern_net().input_shape, specs))
    Tracker(net, images_of_patterns(), at=(1,), layers=["head", "act", "stem"], out_dir=tmp_path).look(net, 1)
    assert list(load_evolution(tmp_path).layers) == ["stem", "act", "head"]


def test_the_trainer_calls_it_after_the_chosen_epochs():
    trainer = Trainer(Network(small()), lr=0.02)
    result = evolution(trainer, stripes(64, 0), epochs=4, at=(1, 3), maps=2, **FIT)
    layer = result.layers["pool1"]
    assert layer.epochs.tolist() == [1, 3]
    assert layer.maps.tolist() == [0, 5]
    assert layer.values.shape == (2, 2)
    assert layer.projections.shape[:2] == (2, 2)
    assert set(result.numbers()["pool1"]) >= {"changed", "likeness", "settled"}
    assert len(result.plot().axes) == 2


def test_a_resumed_training_keeps_what_was_seen(tmp_path):
    train, options = stripes(64, 0), {"at": (1, 2, 3), "maps": 2, **FIT}
    whole = evolution(Trainer(Network(small()), lr=0.02), train, epochs=3, **options)
    evolution(Trainer(Network(small()), lr=0.02), train, epochs=2, out_dir=tmp_path, **options)
    again = evolution(Trainer(Network(small()), lr=0.02), train, epochs=3, out_dir=tmp_path, resume=True, **options)
    for name in ("epochs", "values", "indices", "projections"):
        assert (getattr(again.layers["pool1"], name) == getattr(whole.layers["pool1"], name)).all()


def test_a_new_training_forgets_what_an_older_one_left(tmp_path):
    train = stripes(64, 0)
    evolution(Trainer(Network(small())), train, epochs=3, at=(1, 2, 3), maps=2, out_dir=tmp_path, **FIT)
    result = evolution(Trainer(Network(small())), train, epochs=1, at=(1, 2, 3), maps=2, out_dir=tmp_path, **FIT)
    assert result.layers["pool1"].epochs.tolist() == [1]


def test_looks_of_another_training_play_no_part(tmp_path):
    """The same folder, other images: what was seen after the third epoch of the first is not the second's."""
    options = {"maps": 2, "out_dir": tmp_path, **FIT}
    evolution(Trainer(Network(small())), stripes(64, 0), epochs=3, at=(1, 3), **options)
    trainer = Trainer(Network(small()))
    evolution(trainer, stripes(64, 1), epochs=2, at=(1, 2), **options)
    folder, training = tmp_path / "evolution", trainer.net.origin["training"]
    assert load_evolution(folder, training).layers["pool1"].epochs.tolist() == [1, 2]
    with pytest.raises(ValueError, match="nothing to show"):
        load_evolution(folder, "another")


def test_damaged_looks_are_named(tmp_path):
    net = pattern_net()
    tracker = Tracker(net, images_of_patterns(), at=(1,), out_dir=tmp_path)
    tracker.look(net, 1)
    path = tmp_path / "epoch-0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"epoch-0001\.safetensors is damaged"):
        Tracker(net, images_of_patterns(), at=(1,), out_dir=tmp_path).result()


def test_looks_at_other_maps_are_refused(tmp_path):
    net = pattern_net()
    for epoch, maps in ((1, 2), (2, 3)):
        Tracker(net, images_of_patterns(), at=(1, 2), out_dir=tmp_path, maps=maps).look(net, epoch)
    with pytest.raises(DataError, match="of other maps"):
        load_evolution(tmp_path)


def test_looks_can_be_loaded_again(tmp_path):
    tracker = Tracker(pattern_net(), images_of_patterns(), at=(1, 2), out_dir=tmp_path)
    for epoch in (1, 2):
        tracker.look(pattern_net(), epoch)
    loaded, kept = load_evolution(tmp_path).layers["pool1"], tracker.result().layers["pool1"]
    for name in ("epochs", "maps", "values", "indices", "frames", "projections"):
        assert (getattr(loaded, name) == getattr(kept, name)).all()
    with pytest.raises(ValueError, match="nothing to show"):
        load_evolution(tmp_path / "nowhere")


def test_nothing_seen():
    net = pattern_net()
    with pytest.raises(ValueError, match="no epoch was looked at"):
        Tracker(net, images_of_patterns(), at=(9,)).result()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": ()}, "at must be"),
        ({"at": (0,)}, "at must be"),
        ({"maps": 0}, "maps must be"),
        ({"layers": ["x"]}, "layer"),
    ],
)
def test_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        Tracker(pattern_net(), images_of_patterns(), **change)


def test_a_data_set_can_be_looked_at():
    net = pattern_net()
    net.preprocess = Preprocess(np.zeros((16, 16, 1), np.float32), crop=(16, 16), scale=1 / 255)
    raw = (255 * images_of_patterns()).astype(np.uint8)
    tracker = Tracker(net, ArrayDataset(raw, np.zeros(3, np.int32), ("one",)), at=(1,), maps=3)
    tracker.look(net, 1)
    assert tracker.result().layers["pool1"].indices[:, 0].tolist() == [0, 1, 2]
