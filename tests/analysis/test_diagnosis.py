import json

import numpy as np
import pytest

from zfcuda.analysis.diagnosis import diagnosis
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture, ConvSpec, FullyConnectedSpec, ReLUSpec

from .nets import deep_net, noise

SIZE = 33


def one_layer(weight, stride, bias=None):
    """A net of one convolution with these filters (K,R,S) over grey images of 33 x 33."""
    weight = np.asarray(weight, np.float32)[..., None]
    net = Network(
        Architecture(
            (SIZE, SIZE, 1),
            (
                ConvSpec("conv1", len(weight), weight.shape[1:3], stride),
                ReLUSpec("relu1"),
                FullyConnectedSpec("fc2", 2),
            ),
        )
    )
    net.layers["conv1"].weight = weight
    if bias is not None:
        net.layers["conv1"].bias = np.asarray(bias, np.float32)
    return net


def diagnose(weight, stride=1, bias=None, images=None):
    images = noise((6, SIZE, SIZE, 1)) if images is None else images
    return diagnosis(one_layer(weight, stride, bias), images, batch_size=4).layers[0]


BELL = np.exp(-(np.arange(-5, 6) ** 2) / 12.5)
BLUR = np.outer(BELL, BELL) / BELL.sum() ** 2
BOARD = np.where(np.add.outer(np.arange(11), np.arange(11)) % 2 == 0, 1.0, -1.0) / 50


def test_a_filter_made_to_alias_is_diagnosed():
    """P7's meaning: a checkerboard sampled at stride 2 is all false pattern, a blur none."""
    found = diagnose([BOARD, BOARD, BLUR], stride=2)
    assert found.aliased[0] > 0.9
    assert found.aliased[2] < 0.05
    assert any("aliasing" in problem and "stride 2" in problem for problem in found.problems)


def test_the_same_filter_at_stride_1_does_not_alias():
    found = diagnose([BOARD, BLUR])
    assert not found.aliased.any()
    assert "aliasing" not in found.verdict


def test_a_coarser_stride_aliases_more():
    """The paper's case: stride 4 against stride 2 on the same images and filters."""
    wave = np.cos(2 * np.pi * 0.17 * np.arange(11))
    band = np.outer(np.hanning(13)[1:-1], wave * np.hanning(13)[1:-1])
    assert diagnose([band], stride=4).aliased[0] > 0.6
    assert diagnose([band], stride=2).aliased[0] < 0.2


def test_spectra_tell_smooth_from_rough():
    found = diagnose([BLUR, BOARD, np.zeros((11, 11))])
    assert found.spectrum[0, 0] > 0.9
    assert found.spectrum[1, 2] > 0.9
    np.testing.assert_allclose(found.spectrum.sum(axis=1), [1, 1, 0])


def test_signals_have_frequencies_along_them_only():
    bell, board = BELL / BELL.sum(), np.where(np.arange(11) % 2 == 0, 1.0, -1.0) / 11
    layers = ConvSpec("conv1", 3, (1, 11), (1, 2)), ReLUSpec("relu1"), FullyConnectedSpec("fc2", 2)
    net = Network(Architecture((1, 99, 1), layers))
    net.layers["conv1"].weight = np.stack([bell, board, board])[:, None, :, None].astype(np.float32)
    found = diagnosis(net, noise((6, 1, 99, 1))).layers[0]
    assert found.spectrum[0, 0] > 0.9
    assert found.spectrum[1, 2] > 0.9
    assert found.aliased[0] < 0.05
    assert found.aliased[1] > 0.9
    assert any("stride 1 x 2" in problem for problem in found.problems)


def test_many_rough_filters_are_a_problem():
    found = diagnose([BOARD, -BOARD, BLUR])
    assert "2 of 3 filters are extreme high frequencies" in found.problems
    assert "little coverage of the middle frequencies" in found.problems  # the paper's finding in layer 1


def test_filters_of_middle_frequencies_are_no_problem():
    edge = np.diff(BLUR, axis=1, append=0)
    assert diagnose([edge, edge.T, np.diff(edge, axis=0, append=0)]).verdict == "nothing unusual"


def test_dead_maps_are_counted():
    found = diagnose([BLUR, BLUR, BLUR], bias=[0, -1e6, 0])
    assert found.dead.tolist() == [False, True, False]
    assert found.firing[1] == 0
    assert 0.2 < found.firing[0] < 0.8
    assert "1 of 3 maps never fire" in found.verdict


def test_firing_is_the_share_of_positions_over_all_images():
    images = noise((5, SIZE, SIZE, 1))
    net = one_layer([BLUR, BOARD], 2)
    found = diagnosis(net, images, batch_size=2).layers[0]
    expected = (net.forward(images)["relu1"] > 0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found.firing, expected)
    np.testing.assert_allclose(found.best, net.forward(images)["relu1"].max(axis=(0, 1, 2)), rtol=1e-5)


def test_a_filter_that_dominates_is_an_outlier():
    found = diagnose([BLUR, 10 * BLUR, BLUR, BLUR])
    assert found.outliers.tolist() == [False, True, False, False]
    assert "1 filters are more than 3 times as strong" in found.verdict


def test_every_convolution_of_a_deep_net():
    net = deep_net()
    result = diagnosis(net, noise((9, *net.input_shape)))
    assert [layer.layer for layer in result.layers] == ["conv1", "conv2", "conv3"]
    assert result.layers[0].stride == (2, 2)
    assert result.layers[1].kernel == (3, 2)
    assert result.images == 9
    assert diagnosis(net, noise((9, *net.input_shape)), layers=["conv2"]).layers[0].layer == "conv2"
    assert len(result.plot().axes) == 2


def test_results_are_saved_with_their_verdicts(tmp_path):
    net = one_layer([BLUR, BOARD], 2)
    diagnosis(net, noise((2, SIZE, SIZE, 1))).save(tmp_path / "d.json")
    layer = json.loads((tmp_path / "d.json").read_text())["layers"][0]
    assert layer["verdict"]
    assert len(layer["spectrum"]) == 2


def test_arguments():
    net = deep_net()
    with pytest.raises(ValueError, match=r"layers must be convolutions: conv1, conv2, conv3; got 'pool1'"):
        diagnosis(net, noise((1, *net.input_shape)), layers=["pool1"])
    flat = Network(Architecture((4, 4, 1), (FullyConnectedSpec("fc1", 2),)))
    with pytest.raises(ValueError, match="no convolution"):
        diagnosis(flat, noise((1, 4, 4, 1)))
