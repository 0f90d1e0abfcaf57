"""Which operation of a backend serves a call, and what it is passed: zfcuda/ops/call.py."""

import types

import numpy as np
import pytest

from zfcuda import backends
from zfcuda.backends import BFLOAT16, HostBackend
from zfcuda.ops.call import call, kernels_for

FLOAT32 = np.dtype(np.float32)


def backend_with(*precisions):
    return HostBackend("fake", types.SimpleNamespace(**dict.fromkeys(precisions), empty=np.empty))


@pytest.mark.parametrize(
    ("dtype", "precision", "among_all", "on_the_cpu"),
    [
        (FLOAT32, "fp32", "fp32", "fp32"),
        (FLOAT32, "tf32", "tf32", "fp32"),
        (BFLOAT16, "fp32", "bf16", "fp32"),
    ],
)
def test_kernels_for(dtype, precision, among_all, on_the_cpu):
    backend = HostBackend("fake", types.SimpleNamespace(fp32="fp32", tf32="tf32", bf16="bf16"))
    assert kernels_for(backend, dtype, precision) == among_all
    backend = HostBackend("fake", types.SimpleNamespace(fp32="fp32"))
    assert kernels_for(backend, dtype, precision) == on_the_cpu


@pytest.mark.parametrize("name", backends.HOST_BACKENDS)
def test_the_precisions_of_a_backend(name):
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    backend = backends.get(name)
    found = [precision for precision in ("fp32", "tf32", "bf16") if hasattr(backend.module, precision)]
    assert found == (["fp32"] if name == "cpu" else ["fp32", "tf32", "bf16"])
    assert backend.has_bfloat16 == (name != "cpu")


@pytest.mark.parametrize("size", [0, 48])
def test_what_is_passed(size):
    x, y = np.zeros(3, np.float32), np.empty(3, np.float32)
    passed, asked = [], []

    def workspace(*shapes):
        asked.append(shapes)
        return size

    call(backend_with(), lambda *a: passed.extend(a), "shape", x, None, True, results=(y,), workspace=(workspace, 1, 2))
    assert asked == [(1, 2)]
    *arguments, scratch, stream = passed
    assert all(a is b for a, b in zip(arguments, ["shape", x, None, True, y], strict=True))
    assert (0 if scratch is None else scratch.nbytes) == size
    assert stream is None


def test_a_backend_without_bfloat16_computes_in_float32():
    x = np.array([1.0, 1.0 + 2**-7], BFLOAT16)
    y, plain = np.zeros(2, BFLOAT16), np.zeros(2, np.float32)

    def add(size, x, bias, y, plain, stream):
        assert {array.dtype for array in (x, bias, y, plain)} == {FLOAT32}
        y[:] = plain[:] = x + bias

    bias = np.array([2.0**-8, 2.0**-8], np.float32)
    call(backend_with("fp32"), add, 2, x, bias, results=(y, plain))
    np.testing.assert_array_equal(y.astype(np.float32), [1.0, 1.0 + 2**-6])  # to nearest even
    np.testing.assert_array_equal(plain, [1.0 + 2**-8, 1.0 + 2**-7 + 2**-8])
