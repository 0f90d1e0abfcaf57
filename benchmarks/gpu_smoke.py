"""Every operation of zfcuda.ops once, small, in every precision that it has: on the GPU against the CPU's kernels,
which the tests hold to float64. What fails here says where to look before anything is timed.

    python benchmarks/gpu_smoke.py              all in this one process, as for compute-sanitizer
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from zfcuda import backends, ops

FP32, WEIGHT_GRAD, TF32, BF16 = 1e-5, 1e-4, 2e-3, 2.0**-8  # as setting.py has them, without PyTorch
PRECISIONS = ("fp32", "tf32", "bf16")
CHANNELS = (5, 64)  # which no vector divides, and whole ones

CONV: dict[str, Any] = {"stride": 2, "padding": 1}
POOL: dict[str, Any] = {"window": 3, "stride": 2, "padding": 1}
BLOCK: dict[str, Any] = {**CONV, "window": 3, "pool_stride": 2, "pool_padding": 1}
SIZE, OUTPUT, POOLED = (12, 11), (6, 6), (3, 3)


class Arrays:
    """Draws the arguments of a call: the same numbers for each place (which makes its array of NumPy's)."""

    def __init__(self, precision: str, channels: int, place: Callable[[np.ndarray], Any]):
        self.rng, self.c, self._place = np.random.default_rng(0), channels, place
        self.dtype: Any = backends.BFLOAT16 if precision == "bf16" else np.float32
        self.options: dict[str, Any] = {"precision": "tf32"} if precision == "tf32" else {}

    def __call__(self, *shape: int) -> Any:
        """In the dtype of the precision."""
        return self._place(self.rng.standard_normal(shape, np.float32).astype(self.dtype))

    def float32(self, *shape: int) -> Any:
        return self._place(np.abs(self.rng.standard_normal(shape, np.float32)))

    def of(self, array: np.ndarray) -> Any:
        return self._place(array)

    def x(self) -> Any:
        return self(2, *SIZE, self.c)

    def switches(self, *shape: int) -> Any:
        """Of windows of 3 x 3 none of whose cells lie in the padding but those of the first row and column."""
        found = self.rng.integers(0, 2, shape) * 3 + self.rng.integers(0, 2, shape) + 4
        return self._place(found.astype(np.uint8))

    def labels(self, n: int) -> Any:
        return self._place(self.rng.integers(0, self.c, n).astype(np.int32))


def _sgd(a: Arrays) -> Any:
    w, g, v = a(9, a.c), a(9, a.c), a(9, a.c)
    ops.sgd_step(w, g, v, lr=0.1, momentum=0.9, weight_decay=0.01)
    return w, v


def _renormalized(a: Arrays) -> Any:
    w = a(4, 3, 3, a.c)
    ops.renormalize_filters(w, max_rms=0.5)
    return w


def _filters(a: Arrays) -> Any:
    return a(6, 3, 3, a.c)


def _flags(a: Arrays, n: int) -> Any:
    return a.of(a.rng.integers(0, 2, n).astype(np.uint8))


def _corners(a: Arrays, n: int) -> Any:
    return a.of(a.rng.integers(-3, 4, (n, 2)).astype(np.int32))


def _pixels(a: Arrays) -> Any:
    return a.of(a.rng.integers(0, 256, (2, *SIZE, a.c), np.uint8))


# Results are an array or several; of a block the maxima alone, since rounding may order two neighbours otherwise.
# Operations with products, in every precision; then those in float32 and bfloat16, then in float32 alone.
PRODUCTS: dict[str, Callable[[Arrays], Any]] = {
    "conv2d": lambda a: ops.conv2d(a.x(), _filters(a), a.float32(6), relu=True, **CONV, **a.options),
    "conv_transpose2d": lambda a: ops.conv_transpose2d(
        a(2, *OUTPUT, 6), _filters(a), output_size=SIZE, **CONV, **a.options
    ),
    "conv2d_weight_grad": lambda a: ops.conv2d_weight_grad(a.x(), a(2, *OUTPUT, 6), kernel_size=3, **CONV, **a.options),
    "conv2d_relu_pool": lambda a: ops.conv2d_relu_pool(a.x(), _filters(a), a.float32(6), **BLOCK, **a.options)[0],
    "unpool_conv_transpose2d": lambda a: ops.unpool_conv_transpose2d(
        a(2, *POOLED, 6), a.switches(2, *POOLED, 6), _filters(a), output_size=SIZE, rectify=True, **BLOCK, **a.options
    ),
    "unpool_conv2d_weight_grad": lambda a: ops.unpool_conv2d_weight_grad(
        a.x(), a(2, *POOLED, 6), a.switches(2, *POOLED, 6), kernel_size=3, **BLOCK, **a.options
    ),
}
WIDE: dict[str, Callable[[Arrays], Any]] = {
    "add": lambda a: ops.add(a.x(), a.x(), relu=True),
    "avg_pool2d": lambda a: ops.avg_pool2d(a.x(), **POOL),
    "avg_pool2d_grad": lambda a: ops.avg_pool2d_grad(a(2, *OUTPUT, a.c), output_size=SIZE, **POOL),
    "batch_norm": lambda a: ops.batch_norm(a.x(), *(a.float32(a.c) for _ in range(4))),
    "batch_norm_grad": lambda a: ops.batch_norm_grad(a.x(), a.x(), *(a.float32(a.c) for _ in range(3))),
    "batch_norm_statistics": lambda a: ops.batch_norm_statistics(a.x()),
    "cast": lambda a: ops.cast(a.x(), backends.BFLOAT16 if a.dtype == np.float32 else np.float32),
    "clip": lambda a: ops.clip(a.x(), 0.0, 1.0),
    "clip_grad": lambda a: ops.clip_grad(a.x(), a.x(), 0.0, 1.0),
    "conv2d_bias_grad": lambda a: ops.conv2d_bias_grad(a.x()),
    "copy_channels": lambda a: ops.copy_channels(a.x(), a.x(), source=1, target=2, channels=3),
    "depthwise_conv2d": lambda a: ops.depthwise_conv2d(a.x(), a(a.c, 3, 3, 1), a.float32(a.c), **CONV),
    "depthwise_conv2d_data_grad": lambda a: ops.depthwise_conv2d_data_grad(
        a.x(), a(a.c, 3, 3, 1), padding=1, output_size=SIZE
    ),
    "depthwise_conv2d_weight_grad": lambda a: ops.depthwise_conv2d_weight_grad(a.x(), a.x(), kernel_size=3, padding=1),
    "dropout": lambda a: ops.dropout(a.x(), probability=0.5, seed=1),
    "leaky_relu": lambda a: ops.leaky_relu(a.x(), a.float32(a.c)),
    "leaky_relu_grad": lambda a: ops.leaky_relu_grad(a.x(), a.x(), 0.1),
    "local_response_norm": lambda a: ops.local_response_norm(a.x(), alpha=1.0),
    "local_response_norm_grad": lambda a: ops.local_response_norm_grad(a.x(), a.x(), alpha=1.0),
    "max_pool2d": lambda a: ops.max_pool2d(a.x(), **POOL),
    "max_unpool2d": lambda a: ops.max_unpool2d(
        a(2, *OUTPUT, a.c), a.switches(2, *OUTPUT, a.c), output_size=SIZE, **POOL
    ),
    "permute_channels": lambda a: ops.permute_channels(a.x(), a.rng.permutation(a.c).tolist()),
    "prelu_weight_grad": lambda a: ops.prelu_weight_grad(a.x(), a.x(), channels=a.c),
    "relu": lambda a: ops.relu(a.x()),
    "relu_grad": lambda a: ops.relu_grad(a.x(), a.x()),
    "spatial_max": lambda a: ops.spatial_max(a.x()),
}
NARROW: dict[str, Callable[[Arrays], Any]] = {
    "crop_images": lambda a: ops.crop_images(_pixels(a), None, _corners(a, 2), _flags(a, 2), size=7),
    "cut_windows": lambda a: ops.cut_windows(a.x(), _corners(a, 2), size=5, images=a.of(np.array([1, 0], np.int32))),
    "renormalize_filters": _renormalized,
    "sgd_step": _sgd,
    "softmax": lambda a: ops.softmax(a(7, a.c)),
    "softmax_cross_entropy": lambda a: ops.softmax_cross_entropy(a(7, a.c), a.labels(7)),
    "softmax_cross_entropy_grad": lambda a: ops.softmax_cross_entropy_grad(a(7, a.c), a.labels(7)),
}
OPERATIONS = PRODUCTS | WIDE | NARROW


def checks() -> list[tuple[str, str]]:
    """(operation, precision), the simplest kernels first."""
    return [
        *((name, "fp32") for name in (*WIDE, *NARROW, *PRODUCTS)),
        *((name, "tf32") for name in PRODUCTS),
        *((name, "bf16") for name in (*WIDE, *PRODUCTS)),
    ]


def tolerance(name: str, precision: str) -> float:
    """Of a bfloat16 result: of an element."""
    exact = TF32 if precision == "tf32" else WEIGHT_GRAD if "weight_grad" in name else FP32
    return BF16 if precision == "bf16" and "weight_grad" not in name else exact


def call_of(name: str, precision: str, place: Callable[[np.ndarray], Any]) -> Callable[[], list[Any]]:
    """The results for each number of channels."""
    return lambda: [OPERATIONS[name](Arrays(precision, channels, place)) for channels in CHANNELS]


def error(name: str, precision: str, results: list[Any]) -> float:
    """The greatest, relative to what the CPU computes in float32; NaN where a result has one."""
    with backends.use("cpu"):
        expected = call_of(name, precision, _widened)()
    pairs = zip(_arrays(results), _arrays(expected), strict=True)
    return float(np.max([_distance(backends.to_host(a), b) for a, b in pairs]))


def _arrays(results: list[Any]) -> list[Any]:
    return [array for one in results for array in (one if isinstance(one, tuple) else (one,))]


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == backends.BFLOAT16 else array


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        raise ValueError(f"a result of shape {actual.shape}, not {expected.shape}")
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    if actual.dtype == backends.BFLOAT16:
        rms = np.sqrt(np.square(b).mean())
        return float((np.abs(a - b) / np.maximum(np.abs(b) + rms / 4, 1e-300)).max())
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))


def tried(place: Callable[[np.ndarray], Any]) -> Iterator[bool]:
    """Whether it was right, of one operation after the other. A line for each says so, before the next begins."""
    for name, precision in checks():
        print(f"{name} {precision}: ", end="", flush=True)
        found = error(name, precision, call_of(name, precision, place)())
        right = found <= tolerance(name, precision)
        print(f"error {found:.1e}{'' if right else ', wrong'}", flush=True)
        yield right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="with the emulated kernels")
    import gpu_device
    import gpu_rehearsal

    device: Any = gpu_rehearsal if parser.parse_args().rehearse else gpu_device
    with device.active() as place:
        right = list(tried(place))
    print(f"{sum(right)} of {len(right)} right")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
