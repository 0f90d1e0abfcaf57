"""The same input gives the same bits, run after run: on the emulator too, where every run has other orders of blocks,
warps and threads."""

import numpy as np
import pytest

from tests import oracles
from tests.shapes import BF16, ELEMENTS
from zfcuda import ops

RNG = np.random.default_rng(1)
X, W, DY = (RNG.standard_normal(shape, np.float32) for shape in ((1, 7, 6, 72), (72, 3, 3, 72), (1, 7, 6, 72)))
FEW = np.random.default_rng(2).standard_normal((72, 4, 4, 3), np.float32)
DEPTHWISE = RNG.standard_normal((72, 3, 3, 1), np.float32)
MAPS, PIXELS = RNG.standard_normal((2, 9, 8, 33), np.float32), RNG.standard_normal((1500, 8), np.float32)
IMAGES, CORNERS = RNG.integers(0, 256, (2, 9, 8, 3), np.uint8), np.array([(1, -2), (0, 3)], np.int32)
LOGITS, LABELS = RNG.standard_normal((70, 33), np.float32), RNG.integers(0, 33, 70, np.int32)
CONV, POOL = {"stride": 1, "padding": 1}, {"window": 3, "stride": 2, "padding": 1}
BLOCK = CONV | {"window": 3, "pool_stride": 2, "pool_padding": 1}
(POOLED, SWITCHES), (OWN, OWN_SWITCHES) = (
    oracles.max_pool2d(maps, window=(3, 3), stride=(2, 2), padding=(1, 1)) for maps in (MAPS, DY)
)


def parameters(to, channels):
    """Four float32 arrays for batch_norm."""
    return [ops.cast(to(LOGITS[i, :channels] ** 2), np.float32) for i in range(4)]


# With arrays of the dtype that `to` gives them. Small maps with a long depth: the sums of products are split.
PRODUCTS = {
    "conv2d": lambda to, **o: ops.conv2d(to(X), to(W), **CONV, **o),
    "conv_transpose2d": lambda to, **o: ops.conv_transpose2d(to(DY), to(W), output_size=(7, 6), **CONV, **o),
    "conv2d_weight_grad": lambda to, **o: ops.conv2d_weight_grad(to(X), to(DY), kernel_size=3, **CONV, **o),
    "conv2d_relu_pool": lambda to, **o: ops.conv2d_relu_pool(to(X), to(W), None, **BLOCK, **o),
    "unpool_conv_transpose2d": lambda to, **o: ops.unpool_conv_transpose2d(
        to(OWN), to(OWN_SWITCHES), to(W), output_size=(7, 6), **BLOCK, **o
    ),
    "unpool_conv2d_weight_grad": lambda to, **o: ops.unpool_conv2d_weight_grad(
        to(X), to(OWN), to(OWN_SWITCHES), kernel_size=3, **BLOCK, **o
    ),
}
OTHERS = {
    "add": lambda to: ops.add(to(MAPS), to(-MAPS), relu=True),
    "copy_channels": lambda to: ops.copy_channels(to(MAPS), to(MAPS), source=3, target=1, channels=29),
    "permute_channels": lambda to: ops.permute_channels(to(MAPS), range(32, -1, -1)),
    "conv2d_bias_grad": lambda to: ops.conv2d_bias_grad(to(PIXELS)),
    "avg_pool2d": lambda to: ops.avg_pool2d(to(PIXELS).reshape(1, 50, 30, 8), window=(50, 30), stride=1),
    "avg_pool2d_grad": lambda to: ops.avg_pool2d_grad(to(POOLED), output_size=(9, 8), **POOL),
    "batch_norm": lambda to: ops.batch_norm(to(MAPS), *parameters(to, 33)),
    "batch_norm_grad": lambda to: ops.batch_norm_grad(to(PIXELS), to(-PIXELS), *parameters(to, 8)[:3]),
    "batch_norm_statistics": lambda to: ops.batch_norm_statistics(to(PIXELS)),
    "cast": lambda to: ops.cast(to(MAPS), BF16 if to(MAPS).dtype == np.float32 else np.float32),
    "clip": lambda to: ops.clip(to(MAPS), 0.0, 1.0),
    "clip_grad": lambda to: ops.clip_grad(to(MAPS), to(-MAPS), 0.0, 1.0),
    "cut_windows": lambda to: ops.cut_windows(to(MAPS), to(CORNERS), size=5),
    "depthwise_conv2d": lambda to: ops.depthwise_conv2d(to(X), to(DEPTHWISE), **CONV),
    "depthwise_conv2d_data_grad": lambda to: ops.depthwise_conv2d_data_grad(
        to(DY), to(DEPTHWISE), output_size=(7, 6), **CONV
    ),
    "depthwise_conv2d_weight_grad": lambda to: ops.depthwise_conv2d_weight_grad(
        to(PIXELS).reshape(2, 50, 15, 8), to(-PIXELS[::-1]).reshape(2, 50, 15, 8), kernel_size=3, **CONV
    ),
    "dropout": lambda to: ops.dropout(to(MAPS), probability=0.5, seed=1),
    "leaky_relu": lambda to: ops.leaky_relu(to(MAPS), 0.1),
    "leaky_relu_grad": lambda to: ops.leaky_relu_grad(to(MAPS), to(-MAPS), 0.1),
    "local_response_norm": lambda to: ops.local_response_norm(to(MAPS)),
    "local_response_norm_grad": lambda to: ops.local_response_norm_grad(to(MAPS), to(-MAPS)),
    "max_pool2d": lambda to: ops.max_pool2d(to(MAPS), **POOL),
    "max_unpool2d": lambda to: ops.max_unpool2d(to(POOLED), to(SWITCHES), output_size=(9, 8), **POOL),
    "prelu_weight_grad": lambda to: ops.prelu_weight_grad(to(PIXELS), to(-PIXELS[::-1]), channels=1),
    "relu": lambda to: ops.relu(to(MAPS)),
    "relu_grad": lambda to: ops.relu_grad(to(MAPS), to(-MAPS)),
    "spatial_max": lambda to: ops.spatial_max(to(MAPS)),
}
FLOAT32 = {
    "crop_images": lambda to: ops.crop_images(to(IMAGES), None, to(CORNERS), to(np.array([0, 1], np.uint8)), size=6),
    "renormalize_filters": lambda to: in_place(to(W), lambda w: ops.renormalize_filters(w, max_rms=0.1)),
    "sgd_step": lambda to: in_place(to(W), lambda w: ops.sgd_step(w, to(W[::-1]), to(-W), lr=0.1, weight_decay=0.1)),
    "softmax": lambda to: ops.softmax(to(LOGITS)),
    "softmax_cross_entropy": lambda to: ops.softmax_cross_entropy(to(LOGITS), to(LABELS)),
    "softmax_cross_entropy_grad": lambda to: ops.softmax_cross_entropy_grad(to(LOGITS), to(LABELS)),
}


def in_place(array, change):
    change(array)
    return array


def check(device, run, dtype=np.float32, **options):
    def to(array):
        return device.array(array.astype(dtype if array.dtype == np.float32 else array.dtype))  # a copy

    def bits():
        results = run(to, **options)
        return [device.numpy(a).tobytes() for a in (results if isinstance(results, tuple) else (results,))]

    first = bits()
    for _ in device.orders():
        assert bits() == first


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(device, arithmetic, name):
    check(device, PRODUCTS[name], arithmetic.dtype, **arithmetic.options)


def test_a_product_with_few_columns(device, arithmetic):
    """Has a kernel of its own."""
    own = {"stride": 2, "padding": 1, "output_size": (14, 12), **arithmetic.options}
    check(device, lambda to: ops.conv_transpose2d(to(DY), to(FEW), **own), arithmetic.dtype)


def test_products_on_patches_of_the_image(device, arithmetic, force_plan):
    """Of few channels."""
    images = np.random.default_rng(3).standard_normal((3, 30, 40, 3), np.float32)
    maps = np.random.default_rng(4).standard_normal((3, 15, 20, 72), np.float32)
    force_plan(lambda found: next((one for one in found if one[0].startswith("patch")), None))
    own = {"stride": 2, "padding": 1, **arithmetic.options}
    pool = {"window": 3, "pool_stride": 2, "pool_padding": 1}
    for run in (
        lambda to: ops.conv2d(to(images), to(FEW), **own),
        lambda to: ops.conv2d_relu_pool(to(images), to(FEW), None, **own, **pool),
        lambda to: ops.conv2d_weight_grad(to(images), to(maps), kernel_size=4, **own),
    ):
        check(device, run, arithmetic.dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("name", OTHERS)
def test_others(device, dtype, name):
    check(device, OTHERS[name], dtype)


@pytest.mark.parametrize("name", FLOAT32)
def test_float32(device, name):
    check(device, FLOAT32[name])


def test_every_operation_is_here():
    assert {*PRODUCTS, *OTHERS, *FLOAT32} == set(ops.__all__)
