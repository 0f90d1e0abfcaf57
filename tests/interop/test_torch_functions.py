"""What modules do with maps besides layers, one function at a time, against the module itself in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop.rules import Rule  # noqa: E402
from zfcuda.interop import pt2  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402
from zfcuda.nn.layers import RULES  # noqa: E402

SHAPE = (7, 6, 3)


class Doing(nn.Module):
    """The function of (maps (N, 5, 7, 6), others like them, a fully connected layer of one unit)."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv, self.other = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, 1)

    def forward(self, x):
        return self.function(F.relu(self.conv(x)), self.other(x), self.fc)


def in_place(function):
    """The mean of maps that a function has changed."""

    def changed(x, y, fc):
        function(x)
        return x.mean((2, 3))

    return changed


READ = {
    "mean of rows, then of columns": lambda x, y, fc: x.mean(3).mean(2),
    "mean of columns, then of rows": lambda x, y, fc: x.mean(-2, keepdim=True).mean(-1, keepdim=True).flatten(1),
    "mean of rows alone": lambda x, y, fc: x.mean(3).flatten(1),
    "mean of some channels": lambda x, y, fc: y.flip(1)[:, 1:4].mean(2).flatten(1),
    "all images": lambda x, y, fc: y[: x.size(0)].relu().mean((2, 3)),
    "sum of maps": lambda x, y, fc: x.sum((2, 3)),
    "sum of rows, then of columns": lambda x, y, fc: x.sum(3, keepdim=True).sum(2).flatten(1),
    "sum of rows alone": lambda x, y, fc: x.sum(-1).flatten(1),
    "largest of maps": lambda x, y, fc: y.amax((2, 3)),
    "largest of columns, then of rows": lambda x, y, fc: y.amax(2, keepdim=True).amax(3).flatten(1),
    "largest of rows alone": lambda x, y, fc: y.amax(3).flatten(1),
    "every second pixel": lambda x, y, fc: y[:, :, ::2, ::2].relu().mean((2, 3)),
    "every third row of some channels": lambda x, y, fc: y.flip(1)[:, 1:4, ::3].relu().mean((2, 3)),
    "mean of every second pixel": lambda x, y, fc: y[:, :, ::2, ::2].mean((2, 3)),
    "mean of every second row of some channels": lambda x, y, fc: y.flip(1)[:, 1:4, ::2].mean((-1, -2), keepdim=True),
    "mean of every second pixel, channels last": lambda x, y, fc: (
        y.flip(1).permute(0, 2, 3, 1)[:, ::2, ::3].mean((1, 2))
    ),
    "mean of every second pixel, in rows": lambda x, y, fc: y[:, 1:4, ::2, ::2].flatten(2).mean(-1),
    "largest of some channels, in columns": lambda x, y, fc: y[:, :2].transpose(1, 2).amax((1, 3)),
    "largest of every third pixel": lambda x, y, fc: y[..., ::3, ::3].amax((2, 3)),
    "sum of every second column": lambda x, y, fc: y[..., ::2].sum(3).flatten(1),
    "pools of every second pixel": lambda x, y, fc: torch.cat(
        [F.avg_pool2d(y[:, :, ::2, ::2], 2), F.max_pool2d(y[:, :, ::2, ::2], 2)], 1
    ).mean((2, 3)),
    "a global pool of every second pixel": lambda x, y, fc: F.adaptive_avg_pool2d(y[:, :, ::2, ::3], 1).flatten(1),
    "the first column": lambda x, y, fc: y[..., ::6].relu().mean((2, 3)),
    "a shortcut with channels of zeros": lambda x, y, fc: (
        (F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3)) + F.avg_pool2d(torch.cat([x, y], 1), 2, ceil_mode=True))
        .relu()
        .mean((2, 3))
    ),
    "channels of zeros behind": lambda x, y, fc: F.pad(y, (0, 0, 0, 0, 0, 5)).relu().mean((2, 3)),
    "sum with a factor": lambda x, y, fc: torch.add(x, y, alpha=0.5).mean((2, 3)),
    "sum in place with a factor": lambda x, y, fc: x.add_(y, alpha=-2).relu().mean((2, 3)),
    "difference with a factor": lambda x, y, fc: torch.sub(x, y, alpha=3).relu().mean((2, 3)),
    "difference the other way round": lambda x, y, fc: torch.rsub(x, y, alpha=2).relu().mean((2, 3)),
    "constant with a factor": lambda x, y, fc: torch.add(y, torch.tensor(0.5), alpha=-3).relu().mean((2, 3)),
    "both signs": lambda x, y, fc: torch.relu(torch.cat([y, -y], 1)).mean((2, 3)),
    "one number, squeezed": lambda x, y, fc: fc(x.mean((2, 3))).squeeze(1),
    "one number of all axes": lambda x, y, fc: fc(x.mean((2, 3))).squeeze(),
    "one number, as a view": lambda x, y, fc: fc(x.mean((2, 3))).view(-1),
    "one number, flat": lambda x, y, fc: fc(x.mean((2, 3))).flatten(),
    "one number of several": lambda x, y, fc: y.mean((2, 3))[:, 2],
    "one number, and on": lambda x, y, fc: 2 * fc(x.mean((2, 3))).squeeze(-1).relu() - 1,
    "one number and back": lambda x, y, fc: fc(x.mean((2, 3))).squeeze(1).unsqueeze(1),
    "sum of single numbers": lambda x, y, fc: fc(x.mean((2, 3))).squeeze(1) + fc(y.mean((2, 3))).squeeze(1),
    "constants of integers": lambda x, y, fc: (
        y * torch.tensor([1, 2, 3, 4, -5]).to(torch.float32)[:, None, None]
    ).mean((2, 3)),
    "padding before a maximum whose windows overhang": lambda x, y, fc: F.max_pool2d(
        F.pad(y, (1, 0, 0, 1), value=-torch.inf), 3, 2, ceil_mode=True
    ).mean((2, 3)),
    "padding before a padded maximum whose windows overhang": lambda x, y, fc: F.max_pool2d(
        F.pad(y, (0, 1, 0, 1), value=-torch.inf), (3, 4), (3, 2), (1, 0), ceil_mode=True
    ).mean((2, 3)),
    "padding before a maximum whose last windows are left out": lambda x, y, fc: F.max_pool2d(
        F.pad(y, (1, 0, 0, 1), value=-torch.inf), (2, 3), (5, 3), (1, 1), ceil_mode=True
    ).mean((2, 3)),
    "an average larger than the maps": lambda x, y, fc: F.avg_pool2d(y[..., ::3], 3, 3, ceil_mode=True).mean((2, 3)),
    "a padded average larger than the maps": lambda x, y, fc: F.avg_pool2d(
        y[..., ::5], (3, 5), 3, 1, ceil_mode=True
    ).mean((2, 3)),
    "an average larger than the maps that counts no padding": lambda x, y, fc: F.avg_pool2d(
        y[:, :, ::3, ::5], (6, 5), 3, (1, 1), ceil_mode=True, count_include_pad=False
    ).mean((2, 3)),
    "a maximum larger than the maps": lambda x, y, fc: F.max_pool2d(y[..., ::3], 3, 3, ceil_mode=True).mean((2, 3)),
    "feature alpha dropout": lambda x, y, fc: F.feature_alpha_dropout(x, training=False).mean((2, 3)),
    "bounds that are tensors": lambda x, y, fc: torch.clamp(y, torch.tensor(-0.25), torch.tensor([0.5])).mean((2, 3)),
    "in place": in_place(lambda x: x.mul_(-0.5)),
    "in place, in order": lambda x, y, fc: y.permute(0, 2, 3, 1).contiguous().relu_().mean((1, 2)),
    "sum of another type": lambda x, y, fc: x.sum((2, 3), dtype=torch.float64),
}


def made(function):
    torch.manual_seed(3)
    return Doing(function).eval()


def images():
    x = np.random.default_rng(4).standard_normal((3, *SHAPE)).astype(np.float32)
    return x, torch.from_numpy(x).double().permute(0, 3, 1, 2)


def as_file(module, folder):
    height, width, channels = SHAPE
    with torch.no_grad():
        program = torch.export.export(module, (torch.zeros(2, channels, height, width),), strict=False)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.parametrize("what", READ)
def test_outputs_and_projections(what):
    net = interop.from_module(made(READ[what]), SHAPE)
    x, given = images()
    trace = net.forward(x)
    module = made(READ[what]).double()
    with torch.no_grad():
        expected = module(given)
    assert relative_error(trace.output.reshape(expected.shape), expected.numpy()) < 1e-5
    seed = np.random.default_rng(5).standard_normal(trace.output.shape).astype(np.float32)
    for rule in RULES:
        pixels = net.project(trace, list(net.layers)[-1], seed, rule)
        leaf = given.clone().requires_grad_()
        with Rule(rule):
            made_of = made(READ[what]).double()(leaf)
        (pulled,) = torch.autograd.grad(made_of, leaf, torch.from_numpy(seed.reshape(expected.shape)).double())
        assert relative_error(pixels, pulled.permute(0, 2, 3, 1).numpy()) < 1e-4, rule


def test_what_is_done_without_gradients():
    def frozen(x, y, fc):
        with torch.no_grad():
            x = F.relu(y)
        return x.mean((2, 3))

    net = interop.from_module(made(frozen), SHAPE)
    x, given = images()
    with torch.no_grad():
        assert relative_error(net.forward(x).output, made(frozen).double()(given).numpy()) < 1e-5


def test_a_random_slope_is_its_mean():
    module = made(lambda x, y, fc: F.rrelu(y, 0.1, 0.5).mean((2, 3)))
    net = interop.from_module(module, SHAPE)
    x, given = images()
    with torch.no_grad():
        assert relative_error(net.forward(x).output, module.double()(given).numpy()) < 1e-5
    assert [layer.slope for layer in net.layers.values() if layer.kind == "leaky_relu"] == [pytest.approx(0.3)]


def set_to_zero(x):
    x[:, 0] = 0


WRITTEN = {
    "a channel": set_to_zero,
    "a part": lambda x: x[:, :1].fill_(0),
    "a copy": lambda x: x[:, 0].copy_(x[:, 1]),
    "a view that is not followed": lambda x: x.diagonal(dim1=2, dim2=3).fill_(1),
    "windows": lambda x: x.unfold(2, 3, 3).zero_(),
    "strides": lambda x: x.as_strided((2, 2), (1, 1)).zero_(),
    "axes swapped": lambda x: x.mT.mul_(2),
    "more axes": lambda x: x.unsqueeze(1).mul_(2),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_through_a_view_is_not_lost(what):
    """The value of such an operation is not used; the tensor whose memory it is has changed."""
    with pytest.raises(ValueError, match="changed in place through another view of it: copy one of them"):
        interop.from_module(made(in_place(WRITTEN[what])), SHAPE)


def output_of_maps(x, y, fc):
    y[:, :2].relu_()
    return y


def output_of_rows(x, y, fc):
    rows = y.mean((2, 3))
    rows.view(-1).relu_()
    return rows


@pytest.mark.parametrize("function", [output_of_maps, output_of_rows])
def test_outputs_that_are_written_through_a_view(function, tmp_path):
    message = r"\(output\): was changed in place through another view of it: copy one of them"
    module = made(function)
    with pytest.raises(ValueError, match=message):
        interop.from_module(module, SHAPE)
    with pytest.raises(ValueError, match=message):
        pt2.load(as_file(module, tmp_path))


def test_an_output_beside_one_that_is_written_through_a_view():
    def two(x, y, fc):
        mean = y.mean((2, 3))
        y[:, :2].relu_()
        return y, mean

    net = interop.from_module(made(two), SHAPE, output="mean")
    x, given = images()
    with torch.no_grad():
        assert relative_error(net.forward(x).output, made(two).double()(given)[1].numpy()) < 1e-5


def pixels(y):
    return y.mean((2, 3), keepdim=True)


MAYBE_VIEWS = {
    "one pixel, turned": lambda y: (pixels(y), lambda z: z.permute(0, 2, 3, 1).reshape(z.size(0), -1)),
    "one pixel, flattened": lambda y: (pixels(y), lambda z: z.transpose(1, 3).flatten(1)),
    "one pixel, in order": lambda y: (pixels(y), lambda z: z.transpose(2, 3).contiguous()),
    "one group": lambda y: (y, lambda z: z.view(-1, 5, 1, 7, 6).transpose(1, 2).reshape(-1, 5, 7, 6)),
    "one group, shuffled": lambda y: (y, nn.ChannelShuffle(1)),
    "channels last": lambda y: (y, lambda z: z.contiguous(memory_format=torch.channels_last)),
    "of another type": lambda y: (y, torch.Tensor.double),
    "dropped": lambda y: (y, lambda z: F.feature_alpha_dropout(z, training=False).flatten(1)),
}


@pytest.mark.parametrize("what", MAYBE_VIEWS)
def test_what_may_be_written_through_a_view(what):
    def written(x, y, fc):
        tensor, view = MAYBE_VIEWS[what](y)
        view(tensor).relu_()
        return tensor.flatten(1)

    with pytest.raises(ValueError, match="changed in place through another view of it: copy one of them"):
        interop.from_module(made(written), SHAPE)


@pytest.mark.parametrize(
    "function", [torch.Tensor.zero_, lambda x: x.masked_fill_(x > 1, 1), lambda x: F.hardswish(x, inplace=True)]
)
def test_what_is_written_by_unknown_operations_is_not_lost(function):
    with pytest.raises(ValueError, match=r"\(aten\.\w+_\..*: is no operation that is read"):
        interop.from_module(made(in_place(function)), SHAPE)


def test_results_that_are_written_into_a_given_tensor():
    def into(x, y, fc):
        torch.mul(x, 2.0, out=y)
        return y.mean((2, 3))

    with pytest.raises(ValueError, match="writes into a tensor that it is given"):
        interop.from_module(made(into), SHAPE)


ROUNDED = {
    "aten.to.dtype": lambda x, dtype: x.to(dtype),
    "aten.sum.dim_IntList": lambda x, dtype: x.sum((2, 3), True, dtype=dtype),
}


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
@pytest.mark.parametrize("kind", ROUNDED)
def test_numbers_that_would_be_rounded(kind, dtype, tmp_path):
    module = made(lambda x, y, fc: ROUNDED[kind](x, dtype).float().mean((2, 3)))
    message = rf"\({kind}\): a tensor must stay floating-point, not become {str(dtype)[6:]}"
    with pytest.raises(ValueError, match=message):
        interop.from_module(module, SHAPE)
    with pytest.raises(ValueError, match=message):
        pt2.load(as_file(module, tmp_path))


def test_windows_of_padding_alone():
    """Of zeros in PyTorch, which no window of the maps makes."""
    with pytest.raises(
        ValueError, match=r"padding, with that around the maps, must be smaller than its window \(3, 3\)"
    ):
        interop.from_module(
            made(lambda x, y, fc: F.max_pool2d(F.pad(x, (0, 0, 0, 2)), 3, 4, ceil_mode=True)), (8, 8, 3)
        )


class Transposing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(7, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2)).relu()


def test_an_image_that_is_transposed_has_the_shape_that_was_given(tmp_path):
    """A file does not say which of its sizes are which; `input_shape` does."""
    with pytest.raises(ValueError, match="must be maps"):
        interop.from_module(Transposing().eval(), (6, 7, 3))
    program = torch.export.export(Transposing().eval(), (torch.zeros(2, 3, 6, 7),), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    assert pt2.load(tmp_path / "model.pt2").input_shape == (3, 6, 7)
