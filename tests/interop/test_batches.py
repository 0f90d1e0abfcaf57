"""A network takes each image by itself: what depends on how many a batch has is refused, of modules and of files."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop.test_torch_functions import SHAPE, images, made  # noqa: E402
from zfcuda import CheckpointError  # noqa: E402
from zfcuda.interop import pt2  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402
from zfcuda.interop.builder import Builder  # noqa: E402
from zfcuda.interop.tensors import Tensor  # noqa: E402
from zfcuda.nn.layers import FullyConnectedSpec  # noqa: E402

DEPENDS = "depends on how many images a batch has"
COMPUTED = {
    "a factor": lambda x, y: y * x.size(0),
    "a divisor": lambda x, y: y / x.shape[0],
    "a summand": lambda x, y: y + x.size(0),
    "minus it": lambda x, y: y - len(x),
    "all numbers": lambda x, y: y * (x.numel() / 100),
    "a power": lambda x, y: y * 2.0 ** -x.size(0),
    "a tensor of it": lambda x, y: y * torch.tensor(float(x.size(0))),
    "a sum of ones": lambda x, y: y * torch.ones(x.size(0)).sum(),
    "a factor of a summand": lambda x, y: torch.add(x, y, alpha=x.size(0)),
    "a bound": lambda x, y: y.clamp(max=x.size(0) / 10),
    "a slope": lambda x, y: F.leaky_relu(y, x.size(0) / 100),
    "in place": lambda x, y: y.mul_(x.size(0)).add_(1),
    "channels": lambda x, y: y[:, : x.size(0) // 4],
    "a window": lambda x, y: F.avg_pool2d(y, x.size(0) // 4),
    "padding": lambda x, y: F.conv2d(y, torch.ones(1, 5, 1, 1), padding=x.size(0)),
}


def doing(function):
    return made(lambda x, y, fc: function(x, y).mean((2, 3)))


@pytest.mark.parametrize("what", COMPUTED)
def test_modules_that_compute_with_it(what):
    with pytest.raises(ValueError, match=DEPENDS):
        interop.from_module(doing(COMPUTED[what]), SHAPE)


def test_the_layer_is_named():
    with pytest.raises(ValueError, match=rf"^mul {DEPENDS} \(x.size\(0\), len\(x\), x.numel\(\)\): 13 or 17"):
        interop.from_module(doing(lambda x, y: (y + 1) * x.size(0)), SHAPE)
    with pytest.raises(ValueError, match=rf"^add\.factor {DEPENDS}"):
        interop.from_module(doing(lambda x, y: torch.add(x, y, alpha=len(x))), SHAPE)


@pytest.mark.parametrize(("change", "expected"), [(0, None), (1e-7, None), (1e-3, "b"), (np.ones(5), "b")])
def test_layers_that_differ_by_rounding(change, expected):
    """A library's product of matrices need not be the same, bit for bit, when it is made again."""
    builders = []
    for more in (0, change):
        builder = Builder((1, 1, 3), 1)
        made = builder.add(FullyConnectedSpec, "a", [Tensor("input", (1, 1, 3))], {"weight": np.ones((4, 3))}, units=4)
        weight = np.ones((5 if np.ndim(more) else 2, 4)) * [1, 2, 3, 4] + np.max(more)
        builder.add(FullyConnectedSpec, "b", [made], {"weight": weight}, units=len(weight))
        builders.append(builder)
    assert builders[0].first_difference(builders[1]) == expected
    assert builders[1].first_difference(builders[0]) == expected


def test_modules_that_can_be_read_for_one_number_only():
    def pooled(x, y):  # 13 * 13 cells are not too many for a window, 17 * 17 are
        return F.max_pool2d(F.pad(y.relu(), (10, 10, 10, 10)), x.size(0))

    with pytest.raises(ValueError, match=rf"^the model {DEPENDS}.*; of 17, (?s:.*)window has at most 256 cells"):
        interop.from_module(doing(pooled), SHAPE)


@pytest.mark.parametrize("rows", [1, 5])
def test_a_number_for_each_image(rows):
    with pytest.raises(ValueError, match="the same for all images of a batch; these differ from image to image"):
        interop.from_module(doing(lambda x, y: y * torch.arange(x.size(0) * rows).float().view(-1, rows, 1, 1)), SHAPE)


ALLOWED = {
    "rows": lambda x, y: y.view(x.size(0), 5, 7, 6),
    "all images": lambda x, y: y[: x.size(0)],
    "a quotient of two": lambda x, y: y * (x.numel() / x.size(0) / 100),
    "a remainder": lambda x, y: y * (x.numel() // len(x)),
    "ones for each": lambda x, y: y * torch.ones(x.size(0), 1, 1, 1),
    "numbers for each": lambda x, y: y + torch.tensor([1.0, 2, 3, 4, 5]).view(-1, 1, 1).expand(x.size(0), -1, 7, 6),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_modules_for_which_it_does_not_matter(what):
    net = interop.from_module(doing(ALLOWED[what]), SHAPE)
    x, given = images()
    with torch.no_grad():
        assert relative_error(net.forward(x).output, doing(ALLOWED[what]).double()(given).numpy()) < 1e-5


ANY = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=2, max=64)},)}


def saved(function, folder, **options):
    height, width, channels = SHAPE
    with torch.no_grad():
        example = (torch.zeros(13, channels, height, width),)
        torch.export.save(torch.export.export(doing(function), example, strict=False, **options), folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.parametrize("what", ["a factor", "a divisor", "a summand", "in place"])
def test_programs_of_any_batch(what, tmp_path):
    with pytest.raises(CheckpointError, match=DEPENDS):
        pt2.load(saved(COMPUTED[what], tmp_path, **ANY))


@pytest.mark.parametrize("what", ["rows", "all images"])
@pytest.mark.parametrize("options", [{}, ANY])
def test_programs_for_which_it_does_not_matter(what, options, tmp_path):
    net = pt2.load(saved(ALLOWED[what], tmp_path, **options))
    expected = interop.from_module(doing(ALLOWED[what]), SHAPE)
    assert net.architecture == expected.architecture


def test_a_program_of_one_batch_has_a_number_like_any_other(tmp_path):
    net = pt2.load(saved(COMPUTED["a factor"], tmp_path))
    x, given = images()
    with torch.no_grad():
        expected = doing(lambda x, y: y * 13).double()(given).numpy()
    assert relative_error(net.forward(x).output, expected) < 1e-5


# ---- Files of ONNX -----------------------------------------------------------------------------------------------

COUNTED = "s = Shape (x)\nn = Gather <axis=0> (s, zero)\nk = Cast <to=1> (n)\nc = Conv (x, w)\n"
WEIGHTS = {"zero": np.int64(0), "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)}


@pytest.fixture(scope="module")
def files():
    pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, the reference")
    from tests.interop import onnx_models

    return onnx_models


@pytest.mark.parametrize("last", ["y = Mul (c, k)", "y = Div (c, k)", "y = Add (k, c)", "y = Sub (k, c)"])
def test_models_that_compute_with_it(last, files, tmp_path):
    with pytest.raises(CheckpointError, match=rf"model.onnx: \w+ {DEPENDS} .*: 1 or 13 of them"):
        files.read(files.model(COUNTED + last, WEIGHTS), tmp_path)
    proto = files.model(COUNTED + last, WEIGHTS, (2, 3, 12, 10))  # which says two images, and a number like any other
    x = files.images(proto)
    expected = files.nhwc(files.run(proto, x))
    assert relative_error(files.read(proto, tmp_path).forward(files.nhwc(x)).output, expected) < 1e-5


def test_a_model_for_single_images_that_says_any_number(files, tmp_path):
    nodes = COUNTED + "f = Reshape (c, one)\ny = Gemm <transB=1> (f, fc)"
    weights = WEIGHTS | {"one": files.ints(1, -1), "fc": files.w(5, 320)}
    proto = files.model(nodes, weights)
    x = files.images(proto, 1)
    assert relative_error(files.read(proto, tmp_path).forward(files.nhwc(x)).output, files.run(proto, x)) < 1e-5


def test_a_number_for_each_image_of_a_model(files, tmp_path):
    constants = np.ones((2, 4, 1, 1), np.float32)
    proto = files.model("c = Conv (x, w)\ny = Mul (c, k)", {"w": WEIGHTS["w"], "k": constants}, (2, 3, 12, 10))
    assert files.read(proto, tmp_path).num_classes == 320
    constants[1, 2] = 3
    proto = files.model("c = Conv (x, w)\ny = Mul (c, k)", {"w": WEIGHTS["w"], "k": constants}, (2, 3, 12, 10))
    with pytest.raises(CheckpointError, match="the same for all images of a batch; these differ from image to image"):
        files.read(proto, tmp_path)
