"""Structure and forward pass of networks."""

import numpy as np
import pytest

from tests.accuracy import assert_close, relative_error
from tests.nn.networks import TINY, Reference, randomise
from zfcuda import backends, ops
from zfcuda.nn import Architecture, FullyConnectedSpec, Network, load


@pytest.fixture
def network():
    return randomise(Network(TINY, seed=2), np.random.default_rng(1))


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(0, 2, (3, 21, 18, 3)).astype(np.float32)


def test_every_activation_equals_the_float64_reference(device, network, images):
    reference = Reference(network)
    reference.forward(images)
    trace = device.place(network).forward(device.array(images))
    assert len(trace) == 3
    for name, layer in network.layers.items():
        assert trace[name].shape == (3, *layer.output_shape)
        assert_close(trace[name], reference.activations[name], what=name)
    np.testing.assert_array_equal(device.numpy(trace.output), device.numpy(trace["fc6"]))
    np.testing.assert_array_equal(device.numpy(trace.input), images)


def test_a_trace_knows_its_layers_by_name_and_is_no_sequence(network, images):
    trace = network.forward(images)
    assert all(name in trace for name in network.layers)
    assert "conv9" not in trace
    assert 0 not in trace
    with pytest.raises(TypeError, match="not iterable"):
        iter(trace)
    with pytest.raises(ValueError, match="layer must be one of"):
        trace[0]


def test_recomputed_activations_are_those_of_the_unfused_operations(network, images):
    trace = network.forward(images)
    x = images
    for name, layer in network.layers.items():
        x = layer.forward(x)
        assert_close(trace[name], x, what=name)


def test_predict_is_the_softmax_in_any_batch(network, images):
    np.testing.assert_array_equal(network.predict(images), ops.softmax(network.forward(images).output))
    many = np.tile(images, (50, 1, 1, 1))
    assert_close(network.predict(many), np.tile(network.predict(images), (50, 1)))


def test_a_head_that_says_something(network, tmp_path):
    for head in ("sigmoid", "none", "softmax"):
        network.head = head
        assert network.head == head
    with pytest.raises(ValueError, match="head must be one of softmax, sigmoid, none; got 'tanh'"):
        network.head = "tanh"
    single = Network(Architecture((2, 2, 1), (FullyConnectedSpec("fc", 1),)))
    assert single.head == "sigmoid"
    assert 0.5 < single.predict(np.full((1, 2, 2, 1), 1e3 * np.sign(single.layers["fc"].weight.sum()), np.float32)) <= 1
    single._head = "softmax"
    single.save(tmp_path / "as it was.safetensors")
    single = load(tmp_path / "as it was.safetensors")
    assert single.head == "softmax"  # however little that says, as nets of one output were once: it can be mended
    single.head = "sigmoid"
    with pytest.raises(ValueError, match=r"head must be 'sigmoid' .* or 'none' .* of which a softmax is always 1"):
        single.head = "softmax"


def test_writing_to_weights_takes_effect_at_the_next_call(network, images):
    before = network.forward(images).output.copy()
    network.layers["conv1"].weight[:] *= -1
    written = network.forward(images).output
    assert relative_error(written, before) > 1e-2
    network.layers["conv1"].weight = -network.layers["conv1"].weight
    np.testing.assert_array_equal(network.forward(images).output, before)


def test_structure(network):
    assert list(network.layers) == [spec.name for spec in TINY.layers]
    assert network.blocks == {1: "pool1", 2: "relu2", 3: "relu3", 4: "pool4", 5: "relu5", 6: "fc6"}
    assert network.num_classes == 4
    conv, fc = network.layers["conv3"], network.layers["fc5"]
    assert conv.weight.shape == (7, 3, 2, 8)
    assert conv.bias.shape == (7,)
    assert (conv.stride, conv.padding) == (1, (1, 0))
    assert fc.weight.shape == (12, np.prod(network.layers["pool4"].output_shape))
    assert (network.layers["pool1"].window, network.layers["pool1"].stride) == (3, 2)
    assert network.parameters()["conv3.weight"] is conv.weight


def test_images_of_wrong_kinds(network, images):
    with pytest.raises(
        ValueError, match=r"x must have shape \(N, 21, 18, 3\), the input of conv1.*got \(3, 20, 18, 3\)"
    ):
        network.forward(images[:, :20])
    with pytest.raises(ValueError, match=r"x must have shape"):
        network.forward(images[0])
    with pytest.raises(ValueError, match="N at least 1"):
        network.predict(images[:0])
    with pytest.raises(TypeError, match="x must be float32, got uint8"):
        network.predict(images.astype(np.uint8))
    with pytest.raises(TypeError, match="x must be a NumPy or CuPy array"):
        network.forward([[1.0]])


def test_images_that_are_not_contiguous(network, images):
    mirrored = images[:, :, ::-1]
    np.testing.assert_array_equal(network.predict(mirrored), network.predict(mirrored.copy()))


def test_parameters_that_do_not_fit(network):
    parameters = network.parameters()
    with pytest.raises(ValueError, match=r"missing or unknown: conv1.weight"):
        network.set_parameters({name: array for name, array in parameters.items() if name != "conv1.weight"})
    with pytest.raises(ValueError, match=r"parameter fc6.bias must have shape \(4,\), got \(5,\)"):
        network.set_parameters({**parameters, "fc6.bias": np.zeros(5, np.float32)})
    with pytest.raises(TypeError, match=r"parameter fc6.bias must be float32, got float64"):
        network.set_parameters({**parameters, "fc6.bias": np.zeros(4)})


def test_moving(network, images):
    before = network.predict(images)
    assert network.to("cpu") is network
    np.testing.assert_array_equal(network.predict(images), before)
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda', got 'tpu'"):
        network.to("tpu")


@pytest.mark.gpu
def test_on_the_gpu(network, images):
    expected = network.predict(images)
    cupy = backends.get("cuda").xp
    network.to("cuda")
    assert_close(network.predict(cupy.asarray(images)), expected)
    with pytest.raises(TypeError, match="one device"):
        network.predict(images)
    network.to("cpu")
    np.testing.assert_array_equal(network.predict(images), expected)
