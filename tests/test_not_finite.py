"""NaN and infinity in weights, activations and images: every command and analysis refuses them, and says where."""

import json

import numpy as np
import pytest
from PIL import Image

from zfcuda import CheckpointError, analysis, cli
from zfcuda.analysis import feature_analysis
from zfcuda.data import ArrayDataset, Preprocess
from zfcuda.nn import Architecture, BatchNormSpec, ConvSpec, FullyConnectedSpec, Network, models
from zfcuda.training import Trainer, evaluate

CLASSES = ("cat", "dog")
SHAPE = (28, 28, 3)


def network():
    net = Network(models.zfnet_small_architecture(len(CLASSES), SHAPE))
    net.preprocess = Preprocess(np.full(SHAPE, 128, np.float32), crop=SHAPE[:2], scale=1 / 64)
    net.classes = CLASSES
    return net


def dataset(count=4):
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)
    return ArrayDataset(images, np.arange(count, dtype=np.int32) % 2, CLASSES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, parts of its pictures, and checkpoints: one whose weights are not finite, and one whose activations
    are not from conv3 on."""
    root = tmp_path_factory.mktemp("not-finite")
    pictures = dataset(8)
    for half in ("train", "test"):
        for i, name in enumerate(CLASSES * 4):
            (root / "data" / half / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures.images[i]).save(root / "data" / half / name / f"{i}.png")
    (root / "parts.json").write_text(json.dumps({f"data/train/cat/{i}.png": {"ear": [0, 0, 9, 9]} for i in (0, 2, 4)}))
    for name, value in (("weights", np.nan), ("activations", 3e38)):
        (root / name).mkdir()
        words = ("--data", root / "data", "--epochs", 1, "--batch-size", 4, "--track-evolution", 1)
        assert run("train", *words, "--out", root / name) == 0
        damage(root / name / "checkpoint.safetensors", value)
    return root


def damage(path, value):
    from zfcuda.nn import read_checkpoint

    saved = read_checkpoint(path)
    saved.parameters["conv3.weight"][...] = value
    saved.write(path)


def run(*words):
    return cli.main([*map(str, words), "--quiet"])


COMMANDS = {
    "visualize": ("NET", "--data", "DATA"),
    "invariance": ("NET", "--data", "DATA", "--images", 2, "--steps", 2),
    "diagnose": ("NET", "--data", "DATA"),
    "occlude": ("NET", "--data", "DATA", "--size", 14, "--stride", 14),
    "faithfulness": ("NET", "--data", "DATA", "--methods", "gradient", "--patch", 14),
    "sanity": ("NET", "--data", "DATA"),
    "correspond": ("NET", "PARTS"),
    "features": ("NET", "--data", "DATA", "--per-class", 2, "--draws", 1),
}
ONLY_WEIGHTS = {"evolve": ("NET",), "train": ("--data", "DATA", "--epochs", 2, "--batch-size", 4, "--resume")}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *((command, "weights") for command in {**COMMANDS, **ONLY_WEIGHTS}),
        *((command, "activations") for command in COMMANDS),
    ],
)
def test_commands(place, tmp_path, capsys, command, kind):
    net = place / kind / "checkpoint.safetensors"
    named = {"NET": net, "DATA": place / "data", "PARTS": place / "parts.json"}
    words = [named.get(word, word) for word in {**COMMANDS, **ONLY_WEIGHTS}[command]]
    out = net.parent if command == "train" else tmp_path / "out"
    before = net.read_bytes()
    capsys.readouterr()
    assert run(command, *words, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    if kind == "weights":
        assert "conv3.weight has values that are not finite" in line
    else:
        assert "has activations that are not finite for image 0" in line
        assert line.partition("layer '")[2].partition("'")[0] in (*list(network().layers)[6:], "output")
    assert net.read_bytes() == before
    assert command == "train" or not (tmp_path / "out" / "report.html").exists()


def test_info_says_so(place, capsys):
    capsys.readouterr()
    for kind, said in (("weights", True), ("activations", False)):
        assert cli.main(["info", str(place / kind / "checkpoint.safetensors")]) == 0
        line = "damaged        the network's conv3.weight has values that are not finite"
        assert (line in capsys.readouterr().out.splitlines()) == said


ANALYSES = {
    "top_activations": lambda net, images, data: analysis.top_activations(net, images, "pool5"),
    "invariance": lambda net, images, data: analysis.invariance(
        net, images, [0] * len(images), amounts={"rotation": [90]}
    ),
    "diagnosis": lambda net, images, data: analysis.diagnosis(net, images),
    "occlusion": lambda net, images, data: analysis.occlusion(net, images[-1], 0, size=14, stride=14),
    "faithfulness": lambda net, images, data: analysis.faithfulness(
        net, images, [0] * len(images), np.zeros((len(images), *SHAPE[:2])), patch=14
    ),
    "sanity": lambda net, images, data: analysis.sanity(net, images, methods=["gradient"]),
    "correspondence": lambda net, images, data: analysis.correspondence(
        net, images, {"ear": [(0, 0, 9, 9)] * len(images)}, random_draws=0
    ),
    "feature_analysis": lambda net, images, data: feature_analysis(
        net, data, data, layers=["pool5"], per_class=[2], draws=1
    ),
    "evaluate": lambda net, images, data: evaluate(net, data),
}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ANALYSES)
def test_analyses(name, value):
    net = network()
    images = np.random.default_rng(1).standard_normal((2, *SHAPE), np.float32)
    net.layers["conv4"].weight[...] = value
    where = r"conv4\.weight has values" if not np.isfinite(value) else "layer '.*' has activations"
    with pytest.raises(ValueError, match=f"{where} that are not finite"):
        ANALYSES[name](net, images, dataset())


def test_running_averages():
    layers = (ConvSpec("conv", 2, 3), BatchNormSpec("bn"), FullyConnectedSpec("fc", 2))
    net = Network(Architecture(SHAPE, layers))
    net.layers["bn"].running_mean[1] = np.nan
    with pytest.raises(ValueError, match=r"the network's bn\.running_mean has values that are not finite"):
        analysis.top_activations(net, np.zeros((2, *SHAPE), np.float32), "bn")


@pytest.mark.parametrize("name", sorted(ANALYSES.keys() - {"feature_analysis", "evaluate"}))  # theirs are whole numbers
def test_images(name):
    images = np.random.default_rng(1).standard_normal((2, *SHAPE), np.float32)
    images[1, 5, 5, 1] = np.inf
    with pytest.raises(ValueError, match=r"image( 1)? has values that are not finite"):
        ANALYSES[name](network(), images, dataset())


def test_no_epoch_ends_with_such_weights(tmp_path, monkeypatch):
    """The last step's weights are in no loss of the epoch."""
    trainer = Trainer(network())
    whole = trainer.optimizer.update

    def update(parameters, *arguments, **options):
        whole(parameters, *arguments, **options)
        if trainer.steps == 1:
            parameters["conv2.bias"][0] = np.inf

    monkeypatch.setattr(trainer.optimizer, "update", update)
    with pytest.raises(FloatingPointError, match=r"conv2\.bias has values that are not finite after step 1"):
        trainer.fit(dataset(), epochs=1, batch_size=2, out_dir=tmp_path, progress=False)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_velocities(tmp_path):
    trainer = Trainer(network())
    trainer.fit(dataset(), epochs=1, batch_size=2, out_dir=tmp_path, progress=False)
    from zfcuda.nn import read_checkpoint

    saved = read_checkpoint(tmp_path / "checkpoint.safetensors")
    saved.tensors["velocity/fc6.weight"][0] = np.nan
    saved.write(tmp_path / "checkpoint.safetensors")
    other = Trainer(network())
    before = {name: array.copy() for name, array in other.net.parameters().items()}
    with pytest.raises(CheckpointError, match=r"cannot go on training: the velocity of fc6\.weight has values that"):
        other.fit(dataset(), epochs=2, batch_size=2, out_dir=tmp_path, resume=True, progress=False)
    for name, array in other.net.parameters().items():
        np.testing.assert_array_equal(array, before[name])
