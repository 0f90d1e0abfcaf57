"""zfcuda import, from a file of another library to a checkpoint that other commands take."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")

from tests.interop.onnx_models import model  # noqa: E402
from zfcuda import load  # noqa: E402
from zfcuda.cli import main  # noqa: E402
from zfcuda.interop import onnx as interop  # noqa: E402

RNG = np.random.default_rng(0)
NODES = """
c = Conv <pads=[1, 1, 1, 1]> (x, conv1_weight, bias)
r = Relu (c)
p = MaxPool <kernel_shape=[2, 2], strides=[2, 2]> (r)
f = Flatten (p)
l = Gemm <transB=1> (f, fc_weight)
y = Softmax (l)
"""


def write(path, shape=("N", 3, 12, 12)):
    channels, units = shape[1], 4 * 36
    weights = {
        "conv1_weight": RNG.standard_normal((4, channels, 3, 3)).astype(np.float32),
        "bias": RNG.standard_normal(4).astype(np.float32),
        "fc_weight": (RNG.standard_normal((3, units)) / 20).astype(np.float32),
    }
    onnx.save(model(NODES, weights, shape), path)
    return path


def run(*arguments):
    return main(["import", *map(str, arguments)])


def test_a_net_and_its_preprocessing(tmp_path, capsys):
    path, out = write(tmp_path / "model.onnx"), tmp_path / "net.safetensors"
    (tmp_path / "classes.txt").write_text("cat\ndog\n\nkangaroo\n", encoding="utf-8")
    options = ["--mean", 0.4, 0.5, 0.6, "--std", 0.2, "--resize", 14, "--classes", tmp_path / "classes.txt"]
    assert run(path, "--out", out, *options) == 0
    said = capsys.readouterr().out
    assert "4 layers, 544 parameters" in said
    assert "12 x 12 x 3, of images of 14 x 14 x 3" in said
    assert f"zfcuda visualize {out}" in said
    net = load(out)
    assert (net.classes, net.head) == (("cat", "dog", "kangaroo"), "softmax")
    image = RNG.integers(0, 256, (1, 14, 14, 3), dtype=np.uint8)
    expected = (image[:, 1:13, 1:13] / 255 - [0.4, 0.5, 0.6]) / 0.2
    np.testing.assert_allclose(net.preprocess(image), expected, atol=1e-4)
    np.testing.assert_array_equal(net.predict(net.preprocess(image)), interop.load(path).predict(net.preprocess(image)))


def test_names_that_two_outputs_have(tmp_path, capsys):
    """As the labels of ImageNet that go around do."""
    (tmp_path / "twice.txt").write_text("cat\ndog\n cat \n", encoding="utf-8")
    out = tmp_path / "net.safetensors"
    assert run(write(tmp_path / "model.onnx"), "--out", out, "--classes", tmp_path / "twice.txt") == 0
    assert "has more than one line that says cat: data with such classes cannot" in capsys.readouterr().err
    assert load(out).classes == ("cat", "dog", "cat")


def test_imagenet(tmp_path):
    path, out = write(tmp_path / "model.onnx"), tmp_path / "net.safetensors"
    assert run(path, "--out", out, "--imagenet") == 0
    preprocess = load(out).preprocess
    assert preprocess.image_shape == (14, 14, 3)
    np.testing.assert_allclose(preprocess.mean[0, 0], np.array([0.485, 0.456, 0.406]) * 255, rtol=1e-6)
    assert run(path, "--out", out, "--imagenet", "--resize", 12) == 0
    assert load(out).preprocess.image_shape == (12, 12, 3)


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((224, 224), (256, 256)),
        ((299, 299), (342, 342)),  # as torchvision's Inception v3
        ((32, 32), (37, 37)),
        ((224, 448), (256, 512)),
    ],
)
def test_imagenet_of_other_sizes(shape, image, tmp_path):
    path, out = tmp_path / "model.onnx", tmp_path / "net.safetensors"
    weights = {"w": RNG.standard_normal((3, 3)).astype(np.float32)}
    onnx.save(model("g = GlobalAveragePool (x)\nf = Flatten (g)\ny = MatMul (f, w)", weights, ("N", 3, *shape)), path)
    assert run(path, "--out", out, "--imagenet") == 0
    preprocess = load(out).preprocess
    assert (preprocess.image_shape, preprocess.crop) == ((*image, 3), shape)


@pytest.mark.parametrize("shape", [(4, 12, 12), (3, 1, 12)])
def test_imagenet_of_what_are_no_coloured_images(shape, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    weights = {"w": RNG.standard_normal((shape[0], 3)).astype(np.float32)}
    onnx.save(model("g = GlobalAveragePool (x)\nf = Flatten (g)\ny = MatMul (f, w)", weights, ("N", *shape)), path)
    assert run(path, "--out", tmp_path / "net.safetensors", "--imagenet") == 2
    takes = f"{shape[1]} x {shape[2]} x {shape[0]}"
    assert (
        f"--imagenet is for nets that take images of 3 channels, but this one takes {takes}" in capsys.readouterr().err
    )
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "input_of"),
    [
        ((), "crops of 12 x 12 x 3, times 0.003922, 0.003922, 0.003922"),
        (("--mean", 0.5, "--scale", 1), "crops of 12 x 12 x 3, less 0.5, 0.5, 0.5, times 1, 1, 1"),
        (("--imagenet",), "crops of 14 x 14 x 3, less 123.7, 116.3, 103.5, times 0.01712, 0.01751, 0.01743"),
    ],
)
def test_info_says_what_is_made_of_images(tmp_path, options, input_of, capsys):
    out = tmp_path / "net.safetensors"
    assert run(write(tmp_path / "model.onnx"), "--out", out, *options) == 0
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"preprocessing  {input_of}" in lines
    assert "head           softmax: probabilities" in lines


@pytest.mark.parametrize(
    ("options", "said"), [((), "none: the outputs as they are"), (("--head", "sigmoid"), "sigmoid: a probability")]
)
def test_info_shows_the_head_of_one_output(tmp_path, options, said, capsys):
    out = tmp_path / "net.safetensors"
    assert run(write_one_output(tmp_path / "model.onnx", "y = Identity (l)"), "--out", out, *options) == 0
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"head           {said}" in printed
    assert "1 output       without names" in printed
    assert "1 classes" not in printed


def test_signals_are_never_scaled(tmp_path, capsys):
    weights = {"w": RNG.standard_normal((4, 2, 1, 3)).astype(np.float32)}
    nodes = "c = Conv (x, w)\nr = Relu (c)\ng = GlobalAveragePool (r)\ny = Flatten (g)\n"
    onnx.save(model(nodes, weights, ("N", 2, 1, 64)), tmp_path / "model.onnx")
    out = tmp_path / "net.safetensors"
    assert run(tmp_path / "model.onnx", "--out", out, "--resize", 20) == 2
    assert "--resize is for images: signals, as of 1 x 64 x 2, are never scaled" in capsys.readouterr().err
    assert not out.exists()
    assert run(tmp_path / "model.onnx", "--out", out) == 0
    assert load(out).preprocess.image_shape == (1, 64, 2)


def test_blue_green_red(tmp_path):
    """The network takes its images as red, green, blue, and makes of them what the model makes of them turned."""
    path, out = write(tmp_path / "model.onnx"), tmp_path / "net.safetensors"
    assert run(path, "--out", out, "--bgr") == 0
    net, model_as_it_is = load(out), interop.load(path)
    assert [layer.kind for layer in net.layers.values()] == [layer.kind for layer in model_as_it_is.layers.values()]
    x = RNG.standard_normal((2, 12, 12, 3)).astype(np.float32)
    turned = np.ascontiguousarray(x[..., ::-1])
    np.testing.assert_allclose(net.predict(x), model_as_it_is.predict(turned), rtol=1e-5)
    assert abs(net.predict(x) - model_as_it_is.predict(x)).max() > 1e-3


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_commands_take_it(tmp_path, channels, capsys):
    """Pictures of one channel, arrays of two and four."""
    path, out = write(tmp_path / "model.onnx", ("N", channels, 12, 12)), tmp_path / "net.safetensors"
    assert run(path, "--out", out) == 0
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            image = RNG.integers(0, 256, (16, 20, channels), dtype=np.uint8)
            if channels == 1:
                Image.fromarray(image[..., 0]).save(tmp_path / "data" / name / f"{i}.png")
            else:
                np.save(tmp_path / "data" / name / f"{i}.npy", image)
    arguments = ["visualize", out, "--data", tmp_path / "data", "--out", tmp_path / "report", "--quiet", "--no-sanity"]
    assert main(list(map(str, arguments))) == 0, capsys.readouterr().err
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "What was looked at: all 6 images of" in page  # and not those alone that are held out: it learned of none
    assert main(["info", str(out)]) == 0


def write_one_output(path, last):
    weights = {"w": RNG.standard_normal((4, 3, 3, 3)), "v": RNG.standard_normal((1, 4))}
    nodes = "c = Conv (x, w)\nr = Relu (c)\ng = GlobalAveragePool (r)\nf = Flatten (g)\nl = Gemm <transB=1> (f, v)\n"
    weights = {name: array.astype(np.float32) for name, array in weights.items()} | {"axes": np.array([1])}
    onnx.save(model(nodes + last, weights), path)
    return path


@pytest.mark.parametrize("last", ["y = Identity (l)", "y = Squeeze (l, axes)"])
def test_a_softmax_of_one_output_is_refused(tmp_path, last, capsys):
    path, out = write_one_output(tmp_path / "model.onnx", last), tmp_path / "net.safetensors"
    assert run(path, "--out", out, "--head", "softmax") == 2
    assert "head must be 'sigmoid' (of a yes or no) or 'none' (of a regression)" in capsys.readouterr().err
    assert not out.exists()
    assert run(path, "--out", out) == 0
    assert "1, as the model makes them (--head sigmoid makes a probability of a logit)" in capsys.readouterr().out
    assert run(path, "--out", out, "--head", "sigmoid") == 0
    assert "outputs  1, sigmoid" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["occlude", "invariance", "faithfulness"])
def test_one_output_is_followed_for_images_of_any_class(tmp_path, command, capsys):
    write_one_output(tmp_path / "model.onnx", "s = Squeeze (l, axes)\ny = Sigmoid (s)")
    out = tmp_path / "net.safetensors"
    assert run(tmp_path / "model.onnx", "--out", out) == 0
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            image = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / name / f"{i}.png")
    arguments = [command, out, "--data", tmp_path / "data", "--out", tmp_path / "report", "--quiet"]
    assert main(list(map(str, arguments))) == 0, capsys.readouterr().err
    assert (tmp_path / "report" / "report.html").is_file()


def test_sizes_left_open(tmp_path, capsys):
    path, out = write(tmp_path / "model.onnx", ("N", 3, "H", "W")), tmp_path / "net.safetensors"
    assert run(path, "--out", out) == 2
    assert "has open sizes" in capsys.readouterr().err
    assert not out.exists()
    assert run(path, "--out", out, "--input-shape", 12, 12, 3) == 0
    assert load(out).input_shape == (12, 12, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", 10], "--crop must be the net's input, 12 x 12; got 10"),
        (["--resize", 8], "resize must be at least the crop's smaller side, 12, got 8"),
        (["--mean", 1, 2], "--mean must be 1 or 3 numbers, as the net takes channels; got 2"),
        (["--output", "z"], "output must be one of y; got 'z'"),
        (["--imagenet", "--mean", 1], "--imagenet and --mean exclude each other"),
        (["--imagenet", "--std", 1, 1, 1], "--imagenet and --std exclude each other"),
        (["--imagenet", "--scale", 1], "--imagenet and --scale exclude each other"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, message):
    path, out = write(tmp_path / "model.onnx"), tmp_path / "net.safetensors"
    assert run(path, "--out", out, *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_nothing_is_written_where_something_is_wrong(tmp_path, capsys):
    path, out = write(tmp_path / "model.onnx"), tmp_path / "net.safetensors"
    for name in ("model.pth", "model.pt", "model.bin"):
        assert run(tmp_path / name, "--out", out) == 2
        said = capsys.readouterr().err
        assert "pickled modules and weights are not read" in said
        assert "torch.export.save(" in said
    (tmp_path / "few.txt").write_text("one\n", encoding="utf-8")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    cases = [
        ([tmp_path / "model.h5", "--out", out], "MODEL must be a .onnx or .pt2 file"),
        ([tmp_path / "none.onnx", "--out", out], "no ONNX file at "),
        ([path, "--out", tmp_path / "net.onnx"], "--out must be a .safetensors file"),
        ([path, "--out", tmp_path / "none" / "net.safetensors"], "must be a file in a directory that is writable"),
        (
            [path, "--out", out, "--classes", tmp_path / "few.txt"],
            "classes must be 3 names, one for each output",
        ),
        ([path, "--out", out, "--classes", tmp_path / "bytes.txt"], "cannot be read as text in UTF-8"),
        ([tmp_path / "model.pt2", "--out", out, "--input-shape", 1, 2, 3], "--input-shape is for ONNX files"),
        ([tmp_path / "model.pt2", "--out", out], "no exported program at "),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    out.write_bytes(b"what was there")
    path.write_bytes(path.read_bytes()[:200])
    assert run(path, "--out", out) == 2
    assert out.read_bytes() == b"what was there"


def test_a_file_of_pytorch(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 2))
    exported = torch.export.export(module.eval(), (torch.zeros(2, 3, 10, 10),))
    torch.export.save(exported, tmp_path / "model.pt2")
    out = tmp_path / "net.safetensors"
    assert run(tmp_path / "model.pt2", "--out", out, "--head", "softmax") == 0
    net = load(out)
    assert list(net.layers) == ["0", "1", "3"]
    x = RNG.standard_normal((2, 10, 10, 3)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x).permute(0, 3, 1, 2)).softmax(1).numpy()
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-4)


def test_the_package_needs_neither_onnx_nor_pytorch():
    code = (
        "import sys, zfcuda, zfcuda.cli, zfcuda.interop; zfcuda.cli.build_parser(); zfcuda.interop.pt2; "
        "found = {'onnx', 'torch', 'onnxruntime'} & set(sys.modules); assert not found, found; zfcuda.interop.onnx.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
