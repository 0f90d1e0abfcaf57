"""Every command from the outside: what it leaves."""

import html
import json
import shutil

import numpy as np

from zfcuda.data import Preprocess
from zfcuda.nn import Network, load
from zfcuda.nn.architecture import Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from .conftest import run


def report(directory):
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    return page, json.loads((directory / "report.json").read_text(encoding="utf-8"))["sections"]


def test_train_leaves_a_checkpoint_a_report_and_numbers(trained, capsys):
    page, numbers = report(trained.parent)
    assert [epoch["epoch"] for epoch in numbers["Training"]] == [1, 2]
    assert "test top-1" in page
    assert (trained.parent / "training.png").exists()


def test_train_resumes(trained, folder, tmp_path, capsys):
    words = (
        "--data",
        folder,
        "--image-size",
        28,
        "--batch-size",
        8,
        "--schedule",
        "fixed",
        "--quiet",
        "--out",
        tmp_path,
    )
    assert run("train", *words, "--epochs", 1) == 0
    assert run("train", *words, "--epochs", 2, "--resume") == 0
    assert len(report(tmp_path)[1]["Training"]) == 2


def test_train_in_bfloat16(folder, tmp_path):
    words = ("--data", folder, "--image-size", 28, "--epochs", 1, "--batch-size", 16, "--quiet", "--out", tmp_path)
    assert run("train", *words, "--precision", "bf16") == 0
    assert "bf16" in report(tmp_path)[0]
    assert run("train", *words, "--precision", "fp16") == 2


def test_visualize_every_block(trained, folder, tmp_path, capsys):
    assert run("visualize", trained, "--data", folder, "--maps", 2, "--top", 4, "--quiet", "--out", tmp_path) == 0
    page, numbers = report(tmp_path)
    assert [*(f"Block {block}" for block in range(1, 6)), "How far to trust such pictures"] == list(numbers)
    assert list(numbers["How far to trust such pictures"]["verdicts"]) == ["deconvnet", "gradient", "guided"]
    assert (tmp_path / "filters.png").exists()
    assert (tmp_path / "sanity.png").exists()
    assert (tmp_path / "top-pool1.png").exists()
    assert "red <b>" not in page
    assert f"report: {(tmp_path / 'report.html').resolve()}" in capsys.readouterr().out


def test_visualize_chosen_layers_with_another_rule(trained, folder, tmp_path):
    words = ("--layers", "relu4", "fc8", "--rule", "guided", "--maps", 2, "--images", 6, "--quiet", "--out", tmp_path)
    words += ("--no-sanity",)
    assert run("visualize", trained, "--data", folder, *words) == 0
    assert list(report(tmp_path)[1]) == ["Block 4", "Block 8"]


def test_occlude_images_of_the_data(trained, folder, tmp_path):
    words = ("--images", 2, "--size", 8, "--stride", 8, "--quiet", "--out", tmp_path)
    assert run("occlude", trained, "--data", folder, *words) == 0
    page, numbers = report(tmp_path)
    assert np.shape([one["probability"] for one in numbers["Occlusion"]]) == (2, 4, 4)
    assert (tmp_path / "occlusion-01.png").exists()
    assert page.count('class="explorer"') == 2


def test_occlude_with_a_fill(trained, folder, tmp_path):
    words = ("--images", 1, "--size", 14, "--stride", 14, "--quiet", "--fill")
    found = {}
    for fill, name in {
        "-1": "-1",
        "mean": "the image&#39;s mean colour",
        "blur": "the blurred image",
        "noise --seed 1": "noise with the image&#39;s mean and deviation",
        "noise --seed 2": "noise with the image&#39;s mean and deviation",
    }.items():
        assert run("occlude", trained, "--data", folder, "--out", tmp_path / fill, *words, *fill.split()) == 0
        page, numbers = report(tmp_path / fill)
        assert f"A square of 14 x 14 pixels at steps of 14, painted with {name}. Where" in page
        (one,) = numbers["Occlusion"]
        assert str(one["fill"]) == {"-1": "-1.0"}.get(fill, fill.split()[0])
        found[fill] = str(one["probability"])
    assert len(set(found.values())) == len(found)


FIRST = ConvSpec("conv1", 4, 3, 2), ReLUSpec("relu1")


def save(directory, *layers):
    """The network of these layers, which has preprocessing."""
    net = Network(Architecture((28, 28, 3), layers))
    net.preprocess = Preprocess.by_channel((28, 28))
    net.save(directory / "net.safetensors")
    return directory / "net.safetensors"


def test_where_there_are_no_switches_the_page_says_so(folder, tmp_path, capsys):
    net = save(tmp_path, *FIRST, MaxPoolSpec("pool1", 2), ConvSpec("conv2", 2, 3), FullyConnectedSpec("fc3", 2))
    words = ("--data", folder, "--maps", 1, "--top", 2, "--no-sanity", "--quiet", "--out", tmp_path / "out")
    for layers, rule, told in (("conv1", "deconvnet", 1), ("conv1", "gradient", 0), ("conv2", "deconvnet", 0)):
        assert run("visualize", net, *words, "--layers", layers, "--rule", rule) == 0
        assert report(tmp_path / "out")[0].count("no max pooling below this layer") == told
        hinted = "no max pooling, so no switches: the deconvnet's pictures show" in capsys.readouterr().err
        assert hinted == bool(told)
    assert run("visualize", net, *words) == 0  # of two blocks one has switches: the page says of which there are none
    assert "no max pooling" not in capsys.readouterr().err


def test_faithfulness_of_maps(folder, tmp_path):
    """A class is a pixel of a map, as `predict` counts."""
    net = save(tmp_path, *FIRST, ConvSpec("conv2", 3, 3, stride=4))
    words = ("--image", folder / "test" / "red <b>" / "3.png", "--patch", 14, "--quiet", "--out", tmp_path / "out")
    assert run("faithfulness", net, *words) == 0
    assert set(report(tmp_path / "out")[1]["Faithfulness"]) == {"occlusion", "gradient"}


def test_faithfulness(trained, folder, tmp_path):
    words = ("--images", 3, "--size", 14, "--stride", 14, "--patch", 7, "--orders", 2, "--quiet", "--out", tmp_path)
    assert run("faithfulness", trained, "--data", folder, "--methods", "occlusion", "guided", *words) == 0
    page, numbers = report(tmp_path)
    assert list(numbers["Faithfulness"]) == ["occlusion", "guided"]
    for found in numbers["Faithfulness"].values():
        assert np.shape(found["curves"]["insertion"]) == (3, 17)
        assert np.shape(found["random"]["deletion"]) == (3, 2, 17)
    assert "4 x 4 patches of 7 x 7 pixels" in page
    assert {path.name for path in tmp_path.glob("*.png")} == {"faithfulness.png", "faithfulness-maps.png"}


def test_faithfulness_of_a_file(trained, folder, tmp_path):
    image = folder / "test" / "red <b>" / "3.png"
    words = ("--image", image, "--methods", "gradient", "--patch", 14, "--fill", "blur", "--quiet", "--out", tmp_path)
    assert run("faithfulness", trained, "--data", folder, *words) == 0
    page, numbers = report(tmp_path)
    assert np.shape(numbers["Faithfulness"]["gradient"]["orders"]) == (1, 4)
    assert "paints them over with the blurred image" in page


def test_sanity(trained, folder, tmp_path):
    before = trained.read_bytes()
    words = ("--images", 4, "--size", 14, "--stride", 14, "--quiet", "--out", tmp_path)
    assert run("sanity", trained, "--data", folder, *words) == 0
    page, numbers = report(tmp_path)
    numbers = numbers["How far to trust such pictures"]
    assert numbers["randomised"] == ["fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1"]
    assert np.shape(numbers["likeness"]["occlusion"]["rank"]) == (4, 9)
    assert all(sentence in html.unescape(page) for sentence in numbers["sentences"].values())
    assert "Projected is the class that the net names" in page
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"sanity.png", "sanity-01.png", "sanity-02.png", "sanity-03.png"}
    assert trained.read_bytes() == before


def test_sanity_of_a_layer_below(trained, folder, tmp_path):
    words = ("--images", 1, "--layer", "conv2", "--seed", 3, "--size", 14, "--stride", 14, "--quiet", "--out", tmp_path)
    assert run("sanity", trained, "--data", folder, *words) == 0
    page, numbers = report(tmp_path)
    assert numbers["How far to trust such pictures"]["randomised"] == ["conv2", "conv1"]
    assert "Projected is the strongest unit of conv2" in page


def test_train_with_another_first_layer(folder, tmp_path):
    words = ("--data", folder, "--image-size", 28, "--epochs", 1, "--batch-size", 8, "--quiet", "--out", tmp_path)
    assert run("train", *words, "--first-layer", 11, 4) == 0
    net = load(tmp_path / "checkpoint.safetensors")
    assert net.layers["conv1"].weight.shape == (32, 11, 11, 3)
    assert net.layers["conv1"].output_shape == (7, 7, 32)


def test_occlude_a_file(trained, folder, tmp_path):
    image = folder / "test" / "red <b>" / "3.png"
    words = ("--image", image, "--label", "green & co", "--size", 14, "--stride", 14, "--quiet", "--out", tmp_path)
    assert run("occlude", trained, "--data", folder, *words) == 0
    assert report(tmp_path)[1]["Occlusion"][0]["label"] == 0  # classes in the order of their names


def test_occlude_on_cluttered_canvases_and_point(folder, tmp_path):
    words = ("--data", folder, "--image-size", 28, "--clutter", 40, "--quiet")
    assert run("train", *words, "--epochs", 1, "--batch-size", 16, "--out", tmp_path) == 0
    more = ("--images", 1, "--pointing", 3, "--size", 20, "--stride", 20, "--out", tmp_path / "occlude")
    assert run("occlude", tmp_path / "checkpoint.safetensors", *words, *more) == 0
    numbers = report(tmp_path / "occlude")[1]["Pointing"]
    assert len(numbers["hits"]) == 3
    assert 0 < numbers["chance"] < 1


def test_train_tracks_the_evolution_and_evolve_shows_it(folder, tmp_path):
    words = ("--data", folder, "--image-size", 28, "--epochs", 2, "--batch-size", 16, "--quiet", "--out", tmp_path)
    assert run("train", *words, "--track-evolution", 1, 2) == 0
    assert report(tmp_path)[1]["Evolution"]["pool1"]["epochs"] == [1, 2]
    assert run("evolve", tmp_path / "checkpoint.safetensors", "--out", tmp_path / "evolve") == 0
    page, numbers = report(tmp_path / "evolve")
    assert set(numbers["Evolution"]) == {"pool1", "pool2", "relu3", "relu4", "pool5"}
    assert page.count('class="slider"') == 5


def test_invariance(trained, folder, tmp_path):
    words = ("--images", 2, "--steps", 3, "--quiet", "--out", tmp_path)
    assert run("invariance", trained, "--data", folder, *words) == 0
    assert set(report(tmp_path)[1]["Invariance"]["curves"]) == {"translation", "scale", "rotation"}
    assert (tmp_path / "invariance-rotation.png").exists()


def test_diagnose_compares_networks(trained, folder, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(trained.read_bytes())
    assert run("diagnose", trained, other, "--data", folder, "--quiet", "--out", tmp_path) == 0
    page, numbers = report(tmp_path)
    assert "First layers compared" in page
    layers = numbers[f"Diagnosis of {trained}"]["layers"]
    assert [layer["layer"] for layer in layers] == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_correspond(trained, folder, tmp_path):
    names = [f"{half}/red <b>/{i}.png" for half, i in (("test", 0), ("test", 1), ("train", 2))]
    parts = {name: {"square": [6, 6, 14, 14], "corner": [0, 0, 8, 8]} for name in names}
    path = folder / "parts.json"
    path.write_text(json.dumps(parts))
    assert run("correspond", trained, path, "--quiet", "--out", tmp_path) == 0
    cells = report(tmp_path)[1]["Correspondence"]["cells"]
    assert [(cell["part"], cell["layer"]) for cell in cells] == [
        (part, layer) for part in ("square", "corner", "random") for layer in ("pool5", "relu7")
    ]


def test_features_on_other_images(trained, tmp_path):
    words = ("--per-class", 2, 4, "--draws", 1, "--test-images", 20, "--layers", "pool1", "relu7", "--quiet")
    words += ("--classifier", "svm", "softmax")
    assert run("features", trained, "--data", "fashion-mnist", *words, "--out", tmp_path) == 0
    numbers = report(tmp_path)[1]
    assert list(numbers) == ["Frozen features, linear SVM", "Frozen features, softmax"]
    for kind, analysis in zip(("svm", "softmax"), numbers.values(), strict=True):
        assert (tmp_path / f"features-{kind}.png").exists()
        assert [(score["layer"], score["per_class"]) for score in analysis["scores"]] == [
            (layer, count) for layer in ("pool1", "relu7") for count in (2, 4)
        ]


def test_features_against_a_network_from_scratch(trained, tmp_path):
    words = ("--per-class", 2, 4, "--draws", 1, "--test-images", 20, "--layers", "pool1", "--scratch-epochs", 1)
    words += ("--classifier", "softmax", "svm", "--quiet", "--out", tmp_path)
    assert run("features", trained, "--data", "fashion-mnist", *words) == 0
    page, numbers = report(tmp_path)
    softmax, svm = ([score["layer"] for score in one["scores"]] for one in numbers.values())
    assert softmax == ["pool1", "pool1", "from scratch", "from scratch"]
    assert svm == ["pool1", "pool1"]  # the network from scratch has a softmax of its own
    assert page.count("The same network from scratch on these images") == 1


def test_ablate_is_table_3(folder, tmp_path, capsys):
    words = ("--data", folder, "--image-size", 28, "--epochs", 1, "--batch-size", 16, "--quiet", "--out", tmp_path)
    assert run("ablate", *words, "--variants", "as it is", "without layers 3,4,6,7") == 0
    _, numbers = report(tmp_path)
    assert [row["variant"] for row in numbers["Ablation"]["rows"]] == ["as it is", "without layers 3,4,6,7"]
    assert (tmp_path / "ablation.png").exists()


def test_ablate_lists_its_variants(capsys):
    assert run("ablate", "--list") == 0
    assert "without layers 6,7" in capsys.readouterr().out.splitlines()


def test_study_joins_reports(trained, tmp_path, capsys):
    assert run("study", trained.parent, "--title", "One run", "--out", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>One run</title>" in page
    assert 'id="r1s1"' in page


def test_files_that_are_left_out_are_listed_once(trained, folder, tmp_path, capsys):
    data, other = tmp_path / "data", tmp_path / "other.safetensors"
    shutil.copytree(folder, data)
    (data / "test" / "red <b>" / "x.png").write_bytes(b"no picture")
    shutil.copy(trained, other)
    words = ("--data", data, "--skip-damaged", "--quiet", "--out", tmp_path / "out")
    assert run("diagnose", trained, other, *words) == 0
    assert capsys.readouterr().err.count("left out") == 1
