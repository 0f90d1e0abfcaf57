import numpy as np
import pytest

from zfcuda.analysis.geometry import Field, Node, Span, field_of, receptive_frame, receptive_range

from .nets import deep_net, noise


def seen(spans, position):
    """Oracle: marks the position and spreads the mark down, cell by cell."""
    marks = {position}
    for span in reversed(spans):
        if span.whole:
            marks = set(range(span.size))
        else:
            cells = (o * span.stride - span.padding + k for o in marks for k in range(span.kernel))
            marks = {cell for cell in cells if 0 <= cell < span.size}
    return marks


def chain(spans):
    """As the nodes of layers each of which reads the one before."""
    names = ["input", *map(str, range(len(spans)))]
    return [Node(name, (before,), span) for before, name, span in zip(names, names[1:], spans, strict=False)]


def random_chain(rng):
    spans, size = [], int(rng.integers(8, 60))
    for _ in range(rng.integers(1, 6)):
        kernel = int(rng.integers(1, min(6, size + 1)))
        span = Span(size, kernel, int(rng.integers(1, kernel + 1)), int(rng.integers(0, kernel)))
        spans.append(span)
        size = span.outputs
    return spans


@pytest.mark.parametrize("seed", range(60))
def test_receptive_ranges_are_what_spreads(seed):
    spans = random_chain(np.random.default_rng(seed))
    for position in range(spans[-1].outputs):
        start, stop = receptive_range(chain(spans), position)
        marks = seen(spans, position)
        assert (start, stop) == ((min(marks), max(marks) + 1) if marks else (start, start))


@pytest.mark.parametrize("seed", range(60))
def test_frames_hold_the_range_and_have_one_size(seed):
    spans = random_chain(np.random.default_rng(seed))
    frames = [receptive_frame(chain(spans), position) for position in range(spans[-1].outputs)]
    assert len({size for _, size in frames}) == 1
    for position, (start, size) in enumerate(frames):
        first, stop = receptive_range(chain(spans), position)
        if stop > first:
            assert start <= first
            assert stop <= start + size
        assert size <= spans[0].size


@pytest.mark.parametrize("seed", range(60))
def test_outputs_of_inverts_inputs_of(seed):
    rng = np.random.default_rng(seed)
    kernel = int(rng.integers(1, 6))
    span = Span(int(rng.integers(kernel, 30)), kernel, int(rng.integers(1, 8)), int(rng.integers(0, kernel)))
    for start in range(span.size):
        for stop in range(start + 1, span.size + 1):
            first, last = span.outputs_of(start, stop)
            touched = [
                output
                for output in range(span.outputs)
                if max(start, output * span.stride - span.padding)
                < min(stop, output * span.stride - span.padding + span.kernel)
            ]
            assert list(range(first, last)) == touched


def test_fully_connected_layers_see_everything():
    spans = [Span(10, 3, 2), Span(4, whole=True), Span(1)]
    assert receptive_range(chain(spans), 0) == (0, 9)  # the last pixel is left over by the stride
    assert receptive_frame(chain(spans), 0) == (0, 9)


def test_a_net_is_blind_outside_the_window_and_not_inside():
    net = deep_net()
    x = noise((1, *net.input_shape))
    for layer in ("conv1", "pool1", "norm1", "relu2", "pool3"):
        field = field_of(net, layer)
        before = net.forward(x)[layer]
        _, height, width, _ = before.shape
        for row, column in ((0, 0), (height // 2, width // 2), (height - 1, width - 1)):
            top, left, tall, wide = field.window(row, column)
            outside = noise(x.shape, seed=1)
            outside[:, top : top + tall, left : left + wide] = x[:, top : top + tall, left : left + wide]
            after = net.forward(outside)[layer]
            np.testing.assert_allclose(after[:, row, column], before[:, row, column], rtol=1e-5, atol=1e-6)
            for edge in (np.s_[:, top], np.s_[:, top + tall - 1], np.s_[:, :, left], np.s_[:, :, left + wide - 1]):
                changed = x.copy()
                inside = np.zeros(x.shape, bool)
                inside[edge] = True
                window = np.zeros(x.shape, bool)
                window[:, top : top + tall, left : left + wide] = True
                changed[inside & window] += 100.0
                assert (net.forward(changed)[layer][:, row, column] != before[:, row, column]).any(), (layer, edge)


def test_fields_of_fully_connected_layers_are_the_image():
    net = deep_net()
    for layer in ("fc4", "drop4", "fc5"):
        field = field_of(net, layer)
        assert isinstance(field, Field)
        top, left, height, width = field.window(0, 0)
        assert (top, left) == (0, 0)
        assert height >= net.input_shape[0] - 4
        assert width >= net.input_shape[1] - 6
        assert field.frame(0, 0)[:2] == (0, 0)
