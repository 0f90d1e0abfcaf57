"""Modules whose weights are computed of parameters, against the modules themselves in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop.modules import as_input, images  # noqa: E402
from zfcuda import CheckpointError  # noqa: E402
from zfcuda.interop import pt2  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402

SHAPE = (6, 5, 3)


class Standardised(nn.Module):
    """As of weight standardisation (Qiao et al. 2019)."""

    def forward(self, weight):
        flat = weight.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
        return flat.view_as(weight)


class Masked(nn.Module):
    """As of pruning; written in place."""

    def __init__(self, shape):
        super().__init__()
        self.register_buffer("mask", (torch.rand(shape) > 0.3).float())

    def forward(self, weight):
        return weight.clone().mul_(self.mask)


class Positive(nn.Module):
    def forward(self, weight):
        return F.softplus(weight)


def own(kind):
    return lambda module: parametrize.register_parametrization(module, "weight", kind(module))


# What is read of files too: without PyTorch.
NORMS = {
    "weight_norm of old": nn.utils.weight_norm,
    "weight_norm of old, of all": lambda module: nn.utils.weight_norm(module, dim=None),
    "spectral_norm of old": nn.utils.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of inputs": lambda module: parametrizations.weight_norm(module, dim=1),
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm of inputs": lambda module: parametrizations.spectral_norm(module, dim=1),
    "both": lambda module: parametrizations.spectral_norm(parametrizations.weight_norm(module)),
    "masked": own(lambda module: Masked(module.weight.shape)),
}
OTHERS = {
    "orthogonal": parametrizations.orthogonal,
    "orthogonal, by Cayley's map": lambda module: parametrizations.orthogonal(module, orthogonal_map="cayley"),
    "standardised": own(lambda module: Standardised()),
    "positive": own(lambda module: Positive()),
}


@pytest.fixture(params=[*NORMS, *OTHERS])
def kind(request):
    return request.param


def made(kind):
    """In eval mode, with weights that have moved since they were parametrised."""
    torch.manual_seed(0)
    wrap = {**NORMS, **OTHERS}[kind]
    module = nn.Sequential(
        wrap(nn.Conv2d(3, 4, 3)), nn.ReLU(), wrap(nn.Conv2d(4, 4, 1, bias=False)), nn.Flatten(), wrap(nn.Linear(48, 5))
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_modules(kind):
    module = made(kind)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    held = module[0].weight
    net = interop.from_module(module, SHAPE)
    assert list(net.layers) == ["0", "1", "2", "4"]
    assert list(net.parameters()) == ["0.weight", "0.bias", "2.weight", "4.weight", "4.bias"]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert module[0].weight is held or parametrize.is_parametrized(module[0])
    x = images(SHAPE)
    with torch.no_grad():
        expected = module.double()(as_input(x, module)).numpy()
    assert relative_error(net.forward(x).output, expected) < 1e-5


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_files(kind, tmp_path):
    module, x = made(kind), images(SHAPE)
    exported = torch.export.export(module, (as_input(x, module).float(),), strict=False)
    torch.export.save(exported, tmp_path / "model.pt2")
    if kind in OTHERS:
        message = "computes with parameters alone, and is not read: make its result a parameter before the export"
        with pytest.raises(CheckpointError, match=message):
            pt2.load(tmp_path / "model.pt2")
        return
    net = pt2.load(tmp_path / "model.pt2")
    assert list(net.layers) == ["0", "1", "2", "4"]
    with torch.no_grad():
        expected = module.double()(as_input(x, module)).numpy()
    assert relative_error(net.forward(x).output, expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folds", [True, False])
@pytest.mark.parametrize("kind", ["weight_norm of old", "weight_norm", "spectral_norm of old", "masked"])
def test_onnx_files(kind, folds, tmp_path):
    """From PyTorch's older exporter, which computes such weights itself, or not."""
    pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
    from zfcuda.interop import onnx

    module, x = made(kind), images(SHAPE)
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(module, (as_input(x, module).float(),), path, do_constant_folding=folds, dynamo=False)
    net = onnx.load(path)
    with torch.no_grad():
        expected = module.double()(as_input(x, module)).numpy()
    assert relative_error(net.forward(x).output, expected) < 1e-5


def test_weights_of_other_types():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        net = interop.from_module(made("weight_norm").to(dtype), SHAPE)
        for array in net.parameters().values():
            assert array.dtype == np.float32
            assert np.isfinite(array).all()


def test_what_is_drawn_is_no_weight():
    """It would be another at every call."""

    class Drawn(nn.Module):
        def forward(self, weight):
            return weight + torch.rand_like(weight)

    module = nn.Sequential(own(lambda _: Drawn())(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match=r"rand_like.*computes with parameters alone, and is not read"):
        interop.from_module(module, SHAPE)


def test_weights_that_cannot_be_computed():
    class Wrong(nn.Module):
        root = torch.eye(1)

        def forward(self, weight):
            return weight * torch.linalg.cholesky(self.root).view(())

    wrong = Wrong()
    module = nn.Sequential(own(lambda _: wrong)(nn.Conv2d(3, 4, 3)))
    wrong.root = -torch.eye(1)
    with pytest.raises(ValueError, match=r"cannot be computed of parameters alone: .*cholesky"):
        interop.from_module(module, SHAPE)
