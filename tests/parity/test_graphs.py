"""Graphs of layers against float64 PyTorch: activations, projections by each rule, gradients, running averages."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")

from tests.accuracy import relative_error  # noqa: E402
from tests.parity.graphs import NETS  # noqa: E402
from tests.parity.reference import Reference  # noqa: E402
from zfcuda import Network, analysis, backends, load, training  # noqa: E402
from zfcuda.analysis.geometry import field_of  # noqa: E402
from zfcuda.nn import window  # noqa: E402
from zfcuda.nn.layers import RULES, stage  # noqa: E402


@pytest.fixture(params=["cpu", "emulated"])
def backend(request):
    with backends.use(request.param):
        yield request.param


def make(name, seed=0):
    """The net with parameters and running averages that are not what they start as, and images."""
    net = Network(NETS[name], seed=seed)
    rng = np.random.default_rng(seed)
    for key, array in (net.parameters() | net.state()).items():
        noise = rng.standard_normal(array.shape).astype(np.float32)
        if key.endswith("running_var"):
            array[...] = 0.5 + np.abs(noise)
        elif not key.endswith("weight") or array.ndim == 1:
            array += np.float32(0.3) * noise
    return net, rng.standard_normal((3, *net.input_shape)).astype(np.float32)


def seeds(trace, layer, rng, single):
    """Activations to look at: dense, or one of each image."""
    shape = trace[layer].shape
    if not single:
        return rng.standard_normal(shape).astype(np.float32)
    signal = np.zeros(shape, np.float32)
    for image in signal:
        image.reshape(-1)[rng.integers(image.size)] = rng.uniform(0.5, 2)
    return signal


@pytest.mark.parametrize("name", NETS)
def test_every_activation(name, backend):
    net, images = make(name)
    trace, reference = net.forward(images), Reference(net)
    reference.forward(images)
    for layer in net.layers:
        assert relative_error(trace[layer], reference.of(layer)) < 1e-5, layer
    expected = torch.softmax(torch.tensor(reference.of(layer)).reshape(3, -1), 1).numpy()
    assert relative_error(net.predict(images), expected) < 1e-4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETS)
def test_projection_of_every_layer(name, rule, backend, monkeypatch):
    monkeypatch.setattr(stage, "_LARGEST_SHARE", 4)  # windows as far as they can go
    net, images = make(name)
    trace, reference, rng = net.forward(images), Reference(net), np.random.default_rng(1)
    for layer in net.layers:
        for single in (False, True):
            signal = seeds(trace, layer, rng, single)
            expected = reference.project(images, layer, signal, rule)
            found = net.project(trace, layer, signal, rule)
            if not expected.any():
                assert not found.any()
            else:
                assert relative_error(found, expected) < 1e-4, (layer, single)


@pytest.mark.parametrize("name", NETS)
def test_windows_are_used_where_they_can_be(name, monkeypatch):
    monkeypatch.setattr(stage, "_LARGEST_SHARE", 4)
    net, images = make(name)
    trace = net.forward(images)
    pasted = []
    monkeypatch.setattr(
        window.Windows, "paste", lambda self, paste=window.Windows.paste: pasted.append(1) or paste(self)
    )
    last = [name for name, layer in net.layers.items() if len(layer.output_shape) == 3 and layer.on_windows][-1]
    net.project(trace, last, seeds(trace, last, np.random.default_rng(2), True))
    assert len(pasted) <= 2  # at the image, and where a layer takes whole maps only


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_running_averages(name, backend):
    net, images = make(name)
    for layer in net.layers.values():
        if layer.kind == "dropout":
            layer.probability = 0.0
    labels = np.array([0, 2, 1], np.int32)
    reference = Reference(net)
    expected_loss, expected = reference.gradients(images, labels)
    loss, _, gradients = net.loss_and_gradients(images, labels)
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    assert set(gradients) == set(expected)
    scale = max(float(np.abs(gradient).max()) for gradient in expected.values())
    for key, gradient in expected.items():
        # A bias before a batch normalisation changes nothing: its gradient is rounding.
        error = np.linalg.norm(gradients[key] - gradient)
        assert error < 1e-4 * max(np.linalg.norm(gradient), 0.1 * scale), key
    before = {key: array.copy() for key, array in net.state().items()}
    net.update_state()
    fixed = {layer.name for layer in net.layers.values() if getattr(layer, "frozen", False)}
    for key, array in net.state().items():
        if key.rpartition(".")[0] in fixed:
            np.testing.assert_array_equal(array, before[key])
            continue
        assert relative_error(array, reference.statistics[key]) < 1e-5, key
        assert (array != before[key]).any()


@pytest.mark.parametrize("name", NETS)
def test_training_and_files(name, tmp_path):
    net, images = make(name)
    trainer = training.Trainer(net, lr=1e-2)
    labels = np.array([0, 2, 1], np.int32)
    losses = [trainer.step(images, labels) for _ in range(15)]
    assert losses[-1] < losses[0]
    net.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.architecture == net.architecture
    np.testing.assert_array_equal(again.predict(images), net.predict(images))


def test_a_step_that_diverges_leaves_the_running_averages():
    net, images = make("residual")
    before = {key: array.copy() for key, array in net.state().items()}
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(FloatingPointError):
        training.Trainer(net).step(images, np.array([0, 2, 1], np.int32))
    for key, array in net.state().items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions(name, precision):
    net, images = make(name)
    exact = net.predict(images)
    net.precision = precision
    np.testing.assert_allclose(net.predict(images), exact, atol=0.05)
    trace = net.forward(images)
    layer = list(net.layers)[-2]
    signal = seeds(trace, layer, np.random.default_rng(3), False)
    assert np.isfinite(net.project(trace, layer, signal)).all()
    loss, _, gradients = net.loss_and_gradients(images, np.array([0, 2, 1], np.int32))
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("name", NETS)
def test_occlusion_is_that_of_whole_passes(name):
    net, images = make(name)
    size, stride = (min(5, net.input_shape[0]), 5), (3, 4)
    for layer in [name for name, one in net.layers.items() if len(one.output_shape) == 3]:
        found = analysis.occlusion(net, images[0], 1, size=size, stride=stride, layer=layer, fill=0.5)
        rows, columns = found.probability.shape
        covered = np.repeat(images[:1], rows * columns, axis=0)
        for number, image in enumerate(covered):
            top, left = stride[0] * (number // columns), stride[1] * (number % columns)
            image[top : top + size[0], left : left + size[1]] = 0.5
        trace = net.forward(covered)
        np.testing.assert_allclose(found.probability.reshape(-1), net.predict(covered)[:, 1], rtol=1e-4)
        sums = trace[layer][..., found.feature_map].sum(axis=(1, 2))
        np.testing.assert_allclose(found.activation.reshape(-1), sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_receptive_fields_are_what_changes(name):
    net, images = make(name)
    image = images[:1]
    for layer, one in net.layers.items():
        if len(one.output_shape) != 3:
            continue
        row, column = one.output_shape[0] // 2, one.output_shape[1] // 2
        top, left, height, width = field_of(net, layer).window(row, column)
        other = np.random.default_rng(5).standard_normal(image.shape).astype(np.float32)
        other[:, top : top + height, left : left + width] = image[:, top : top + height, left : left + width]
        before, after = net.forward(image)[layer], net.forward(other)[layer]
        np.testing.assert_allclose(after[:, row, column], before[:, row, column], rtol=1e-4, atol=1e-5)
