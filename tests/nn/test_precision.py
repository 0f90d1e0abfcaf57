"""Networks in tf32 and bfloat16 (zfcuda.nn.Network.precision): against float64, and what is stored in what."""

import ml_dtypes
import numpy as np
import pytest

from tests import oracles
from tests.accuracy import NETWORK, assert_close, relative_error
from tests.nn.networks import TINY, Reference, randomise
from zfcuda import Network, load, ops
from zfcuda.analysis import occlusion
from zfcuda.nn import Architecture
from zfcuda.nn.architecture import ConvSpec, MaxPoolSpec, ReLUSpec

BF16 = ml_dtypes.bfloat16
LABELS = np.array([3, 0, 1], np.int32)


def images():
    return np.random.default_rng(2).normal(0, 2, (3, 21, 18, 3)).astype(np.float32)


def network(precision):
    """With weights of few bits: what is compared is the arithmetic, not the rounding of what goes in."""
    net = randomise(Network(TINY, seed=2), np.random.default_rng(1))
    for array in net.parameters().values():
        array[...] = array.astype(BF16).astype(np.float32)
    net.precision = precision
    return net


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_every_activation(device, precision):
    net, reference = device.place(network(precision)), Reference(network("fp32"))
    x = images().astype(BF16).astype(np.float32)
    reference.forward(x)
    trace = net.forward(device.array(x))
    for name in net.layers:
        assert trace[name].dtype == np.float32
        assert_close(trace[name], reference.activations[name], NETWORK[precision], name)
    assert trace.output.dtype == trace.input.dtype == np.float32
    np.testing.assert_array_equal(device.numpy(trace.input), x)
    assert_close(net.predict(device.array(x)), oracles.softmax(device.numpy(trace.output)))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
@pytest.mark.parametrize("layer", ["pool1", "relu2", "pool4", "relu5", "fc6"])
def test_projections(device, precision, rule, layer):
    """Through the trace's own switches and masks: rounding may order two neighbours otherwise, which is no error."""
    net, reference = device.place(network(precision)), Reference(network("fp32"))
    trace = net.forward(device.array(images()))
    signal = np.random.default_rng(3).normal(size=trace[layer].shape).astype(np.float32)
    reference.forward(device.numpy(trace.input))
    _follow(reference, trace, device)
    pixels = net.project(trace, layer, device.array(signal), rule)
    assert pixels.dtype == np.float32
    assert_close(pixels, reference.project(layer, signal, rule), 2 * NETWORK[precision])


def _follow(reference, trace, device):
    """Gives a reference the switches and the activations of a trace."""
    inputs = trace.input
    for stage, record in zip(trace.network.stages, trace.records, strict=True):
        for layer in stage.layers:
            reference.inputs[layer.name] = device.numpy(inputs).astype(np.float64)
            if layer.name in reference.switches:
                reference.switches[layer.name] = device.numpy(record["switches"])
            inputs = trace[layer.name]


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_one_activation_projected_on_windows(device, precision):
    """One value an image goes down on windows, many go down on whole maps: the pixels are the same."""
    net = device.place(network(precision))
    trace = net.forward(device.array(images()))
    signal = np.zeros(trace["relu2"].shape, np.float32)
    signal[:, 2, 2, 4] = [1.0, 0.5, 2.0]
    everywhere = signal.copy()
    everywhere[signal == 0] = 2.0**-60
    for rule in ("deconvnet", "gradient"):
        windows, whole = (
            device.numpy(net.project(trace, "relu2", device.array(seed), rule)) for seed in (signal, everywhere)
        )
        assert np.abs(windows).max() > 0
        assert_close(windows, whole, NETWORK[precision])


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_gradients(device, precision):
    """Against those in float32, a few of whose switches and masks are others where rounding reorders neighbours."""
    x, labels = device.array(images()), device.array(LABELS)
    exact = device.place(network("fp32")).loss_and_gradients(x, labels, dropout_seed=5)
    loss, probabilities, gradients = device.place(network(precision)).loss_and_gradients(x, labels, dropout_seed=5)
    assert float(loss) == pytest.approx(float(exact[0]), rel=NETWORK[precision])
    assert_close(probabilities, device.numpy(exact[1]), NETWORK[precision])
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        assert_close(gradient, device.numpy(exact[2][name]), 4 * NETWORK[precision], name)


def test_records_are_half_the_size_and_logits_are_float32():
    sizes = {}
    for precision in ("fp32", "bf16"):
        records = network(precision).forward(images()).records
        assert {record["y"].dtype for record in records[:-1]} == {np.dtype(BF16 if precision == "bf16" else np.float32)}
        assert records[-1]["y"].dtype == np.float32
        sizes[precision] = sum(record["y"].nbytes for record in records[:-1])
    assert 2 * sizes["bf16"] == sizes["fp32"]


def test_logits_are_finer_than_bfloat16():
    logits = network("bf16").forward(images()).output
    assert (logits != logits.astype(BF16).astype(np.float32)).any()


def test_weights_are_rounded_once_a_step(monkeypatch):
    net = network("bf16")
    rounded = []
    cast = ops.cast

    def counted(x, dtype, **options):
        rounded.extend(name for name, array in net.parameters().items() if array is x and dtype != x.dtype)
        return cast(x, dtype, **options)

    monkeypatch.setattr(ops, "cast", counted)
    net.loss_and_gradients(images(), LABELS)
    # The last layer, which makes the logits, is float32.
    assert rounded == [f"{name}.weight" for name in ("conv1", "conv2", "conv3", "conv4", "fc5")]


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_writing_to_weights_takes_effect_at_the_next_call(precision):
    net = network(precision)
    with pytest.raises(ValueError, match="labels"):
        net.loss_and_gradients(images(), LABELS + 2)
    before = net.predict(images())
    for name, array in net.parameters().items():
        if name.endswith("weight"):
            array *= -1
    assert relative_error(net.predict(images()), before) > 1e-2


def test_a_trace_of_another_precision_is_refused():
    net = network("bf16")
    trace = net.forward(images())
    signal = np.ones_like(trace["pool1"])
    net.precision = "fp32"
    for use in (lambda: trace["pool1"], lambda: net.project(trace, "pool1", signal), lambda: trace.select([0])):
        with pytest.raises(ValueError, match="trace was made in bf16, but the network's precision is fp32 now"):
            use()


def test_precision_is_checked_and_not_saved(tmp_path):
    net = network("tf32")
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16; got 'fp16'"):
        net.precision = "fp16"
    assert net.precision == "tf32"
    net.save(tmp_path / "net.safetensors")
    assert load(tmp_path / "net.safetensors").precision == "fp32"


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_occlusion_is_that_of_whole_forward_passes(precision):
    net = network(precision)
    image = images()[0]
    result = occlusion(net, image, 1, size=6, stride=5)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        covered = image.copy()
        covered[5 * row : 5 * row + 6, 5 * column : 5 * column + 6] = 0
        expected = net.predict(covered[None])[0, 1]
        assert result.probability[row, column] == pytest.approx(expected, rel=2 * NETWORK[precision])


@pytest.mark.parametrize("last", [(), (ReLUSpec("relu2"),), (ReLUSpec("relu2"), MaxPoolSpec("pool2", 2, 2))])
def test_a_net_that_ends_with_maps(last):
    """The stage that makes the output is float32, whatever it is made of."""
    layers = (ConvSpec("conv1", 4, 3), ReLUSpec("relu1"), ConvSpec("conv2", 3, 3), *last)
    net = Network(Architecture((12, 12, 2), layers, initial="lecun"), seed=1)
    x = np.random.default_rng(0).standard_normal((2, 12, 12, 2), np.float32)
    name = layers[-1].name
    exact = net.forward(x)[name]
    net.precision = "bf16"
    trace = net.forward(x)
    assert trace.records[-1]["y"].dtype == np.float32
    assert_close(trace[name], exact, NETWORK["bf16"])
    signal = np.zeros_like(exact)
    signal[:, 0, 0, 0] = 1
    assert net.project(trace, name, signal).dtype == np.float32
