"""Local response normalisation that a model writes out: read where it is what PyTorch's module computes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from zfcuda.interop.torch import from_module  # noqa: E402

SHAPE = (8, 6, 3)
REFUSED = r"is read where it is what torch.nn.LocalResponseNorm computes"


class Normalised(nn.Module):
    def __init__(self, function, channels=5):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x)).relu()


def made(function, channels=5):
    torch.manual_seed(0)
    return Normalised(function, channels).eval()


def images():
    x = np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)
    return x, torch.from_numpy(x).double().permute(0, 3, 1, 2)


def written(pooled, square=lambda y: y * y):
    """x / (1.5 + 0.5 p) ** 0.75, p being what `pooled` makes of the square."""
    return lambda y: y / (pooled(square(y)) * 0.5 + 1.5).pow(0.75)


def mean(square, pad=(1, 1), window=(3, 1, 1), value=0.0, **pool):
    """Along the channels, these being the first of three axes of one map."""
    padded = F.pad(square.unsqueeze(1), (0, 0, 0, 0, *pad), value=value)
    return F.avg_pool3d(padded, window, 1, **pool).squeeze(1)


def of_rows(square):
    """Maps as signals."""
    rows = F.avg_pool2d(square.flatten(2).unsqueeze(1), (3, 1), 1, (1, 0))
    return rows.view(square.shape)


READ = {
    "three": nn.LocalResponseNorm(3, 0.5, 0.6, 1.5),
    "four": nn.LocalResponseNorm(4, 0.5, 0.6, 1.5),
    "two": nn.LocalResponseNorm(2, 0.5),
    "one": nn.LocalResponseNorm(1, 0.5),
    "more than there are": nn.LocalResponseNorm(12, 0.5),
    "written out": written(mean),
    "a power": written(mean, lambda y: y**2),
    "the pool's padding": written(lambda q: F.avg_pool3d(q.unsqueeze(1), (3, 1, 1), 1, (1, 0, 0)).squeeze(1)),
    "both paddings": written(lambda q: mean(q, (1, 0), (4, 1, 1), padding=(1, 0, 0))),
    "padding that is none": written(lambda q: mean(q, count_include_pad=False)),
    "pixels as rows": written(of_rows),
    "channels last": written(lambda q: F.avg_pool2d(q.permute(0, 2, 3, 1), (1, 3), 1, (0, 1)).permute(0, 3, 1, 2)),
}


@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("what", READ)
def test_what_is_read(what, channels):
    net = from_module(made(READ[what], channels), SHAPE)
    assert [layer.kind for layer in net.layers.values()] == ["conv", "norm", "relu"]
    x, given = images()
    with torch.no_grad():
        expected = made(READ[what], channels).double()(given).permute(0, 2, 3, 1)
    assert relative_error(net.forward(x).output, expected.numpy()) < 1e-5


def test_of_signals():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(3, 5, 3), nn.LocalResponseNorm(4, 0.5), nn.ReLU(), nn.Flatten()).eval()
    net = from_module(module, (1, 9, 3))
    x = np.random.default_rng(1).standard_normal((2, 1, 9, 3)).astype(np.float32)
    with torch.no_grad():
        expected = module.double()(torch.from_numpy(x[:, 0]).double().permute(0, 2, 1))
    assert relative_error(net.forward(x).output, expected.numpy()) < 1e-5


OTHERS = {
    "along the height": lambda q: F.avg_pool2d(q, (3, 1), 1, (1, 0)),
    "along the height, of one map": lambda q: mean(q, (0, 0), (1, 3, 1), padding=(0, 1, 0)),
    "of channels and height": lambda q: mean(q, (1, 1), (3, 3, 1), padding=(0, 1, 0)),
    "behind alone": lambda q: mean(q, (2, 0)),
    "the other side of an even size": lambda q: mean(q, (1, 2), (4, 1, 1)),
    "padded with threes": lambda q: mean(q, value=3.0),
    "padding that does not count": lambda q: mean(q, (0, 0), padding=(1, 0, 0), count_include_pad=False),
    "a divisor": lambda q: mean(q, divisor_override=2),
    "a stride": lambda q: F.avg_pool3d(F.pad(q.unsqueeze(1), (0, 0, 0, 0, 2, 7)), (5, 1, 1), (2, 1, 1)).squeeze(1),
    "padding that is moved": lambda q: F.avg_pool2d(
        F.pad(q, (0, 0, 1, 1)).view(-1, 1, 5, 60)[..., :60], (1, 1), 1
    ).view(-1, 5, 10, 6)[:, :, :8],
    "channels of an axis that is split": lambda q: F.avg_pool2d(q.reshape(-1, 1, 10, 24), (3, 1), 1, (1, 0)).view(
        q.shape
    ),
    "other places": lambda q: mean(q).reshape(-1, 6, 8, 5).reshape(-1, 5, 6, 8).reshape(q.shape).flip(1),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_means(what):
    with pytest.raises(ValueError, match=r"(?s)nodes? cannot be read"):
        from_module(made(written(OTHERS[what])), SHAPE)


@pytest.mark.parametrize("what", list(OTHERS)[:8])
def test_why_other_means_are_refused(what):
    with pytest.raises(ValueError, match=REFUSED):
        from_module(made(written(OTHERS[what])), SHAPE)


FORMS = {
    "a fourth power": written(mean, lambda y: y**4),
    "a power of two": lambda y: y / 2.0 ** (0.5 * mean(y * y) + 1),
    "a factor of the sum": lambda y: y / torch.add(torch.tensor(1.0), mean(y * y) * 0.5, alpha=3).pow(0.75),
    "of another tensor": lambda y: y.relu() / (0.5 * mean(y * y) + 1).pow(0.75),
}


@pytest.mark.parametrize("what", FORMS)
def test_other_forms(what):
    with pytest.raises(ValueError, match="cannot be read"):
        from_module(made(FORMS[what]), SHAPE)


WRITTEN = """
c = Conv (x, w)
q = Mul (c, c)
{mean}
s = Mul (m, alpha)
t = Add (k, s)
u = Pow (t, beta)
y = Div (c, u)
"""
ALONG_CHANNELS = "v = Unsqueeze (q, one)\na = AveragePool <{}> (v)\nm = Squeeze (a, one)"


@pytest.mark.parametrize(
    ("mean", "is_read"),
    [
        (ALONG_CHANNELS.format("kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0], count_include_pad=1"), True),
        (ALONG_CHANNELS.format("kernel_shape=[4, 1, 1], pads=[2, 0, 0, 1, 0, 0], count_include_pad=1"), True),
        (ALONG_CHANNELS.format("kernel_shape=[4, 1, 1], pads=[1, 0, 0, 2, 0, 0], count_include_pad=1"), False),
        (ALONG_CHANNELS.format("kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0]"), False),
        (ALONG_CHANNELS.format('kernel_shape=[3, 1, 1], auto_pad="SAME_UPPER"'), False),
        ("m = AveragePool <kernel_shape=[3, 1], pads=[1, 0, 1, 0]> (q)", False),
        ("m = AveragePool <kernel_shape=[3, 1], pads=[1, 0, 1, 0], count_include_pad=1> (q)", False),
    ],
)
def test_onnx(mean, is_read, tmp_path):
    models = pytest.importorskip("tests.interop.onnx_models", reason="needs onnx and onnxruntime")
    numbers = {"alpha": np.float32(0.5), "beta": np.float32(0.75), "k": np.float32(1.5), "one": models.ints(1)}
    proto = models.model(WRITTEN.format(mean=mean), {"w": models.w(5, 3, 3, 3)} | numbers)
    if not is_read:
        with pytest.raises(ValueError, match=REFUSED):
            models.read(proto, tmp_path)
        return
    x = models.images(proto)
    net = models.read(proto, tmp_path)
    assert relative_error(net.forward(models.nhwc(x)).output, models.nhwc(models.run(proto, x))) < 1e-5
