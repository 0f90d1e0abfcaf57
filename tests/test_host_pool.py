"""The memory of results on the host: used again, never shared by two arrays, bounded, given back on request."""

import gc
import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest

from zfcuda import backends

MEGABYTE = 1 << 20


@pytest.fixture(params=backends.HOST_BACKENDS)
def backend(request):
    reason = backends.status()[request.param]
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    backend = backends.get(request.param)
    gc.collect()
    backend.module.release_host_memory()
    yield backend
    backend.module.release_host_memory()


def _address(array):
    return array.ctypes.data


def _floats(megabytes):
    return (megabytes * MEGABYTE // 4,)


@pytest.mark.parametrize("size", [17_000, 1 << 18, (1 << 19) - 300, 1 << 19, 5_000_000])
def test_dead_array_serves_the_next_of_its_size(backend, size):
    first = backend.empty((size,))
    address = _address(first)
    del first
    assert _address(backend.empty((size,))) == address


def test_slightly_smaller_array_is_served_by_a_kept_block_and_a_much_smaller_one_is_not(backend):
    large = backend.empty(_floats(32))
    address = _address(large)
    del large
    assert _address(backend.empty(_floats(28))) == address
    assert _address(backend.empty(_floats(8))) != address


def test_larger_array_is_not_served_by_a_smaller_block(backend):
    living = backend.empty(_floats(64))  # leaves room to keep the small block
    small = backend.empty(_floats(8))
    address = _address(small)
    del small
    large = backend.empty(_floats(12))
    large[:] = 1
    living[:] = 0
    assert _address(large) != address
    assert (large == 1).all()


def test_arrays_are_aligned_writeable_and_contiguous(backend):
    arrays = [backend.empty((n,)) for n in (16_384, 16_385, 100_001, 1 << 20, (1 << 20) + 1)]
    for array in arrays:
        assert _address(array) % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_large_arrays_start_at_different_places_of_a_page(backend):
    arrays = [backend.empty(_floats(4)) for _ in range(4)]
    assert len({_address(array) % 4096 for array in arrays}) == 4


def test_living_arrays_never_overlap(backend):
    rng = np.random.default_rng(0)
    living = []
    for number in range(400):
        array = backend.empty((int(rng.integers(16_384, 600_000)),))
        array[:] = number
        living.append((number, array))
        while len(living) > 8:
            expected, dying = living.pop(int(rng.integers(len(living))))
            assert (dying == expected).all()
    spans = sorted((_address(array), array.nbytes) for _, array in living)
    for (start, size), (following, _) in itertools.pairwise(spans):
        assert start + size <= following


def test_view_keeps_its_block_alive(backend):
    array = backend.empty((512, 1024))
    array[:] = 7
    view = array[100:200, ::2].T
    address = _address(array)
    del array
    gc.collect()
    others = [backend.empty((512, 1024)) for _ in range(4)]
    for other in others:
        other[:] = 0
        assert _address(other) != address
    assert (view == 7).all()
    del view
    assert _address(backend.empty((512, 1024))) == address


def test_memory_is_counted_and_given_back_on_request(backend):
    in_use, kept = backend.module.host_memory()
    array = backend.empty(_floats(16))
    assert backend.module.host_memory()[0] >= in_use + 16 * MEGABYTE
    del array
    assert backend.module.host_memory()[0] == in_use
    assert backend.module.host_memory()[1] >= kept + 16 * MEGABYTE
    backend.module.release_host_memory()
    assert backend.module.host_memory() == [in_use, 0]


@pytest.mark.parametrize("scale", [1, 20])
def test_kept_memory_stays_near_what_was_once_in_use(backend, scale):
    """Many sizes, one after the other: no block fits the next request, and the old ones must go."""
    in_use = backend.module.host_memory()[0]
    most = 0
    for megabytes in (40, 30, 22, 16, 12, 9, 6, 4, 3, 50, 37, 28, 21):
        array = backend.empty(_floats(scale * megabytes))
        most = max(most, array.nbytes)
        del array
        assert sum(backend.module.host_memory()) - in_use <= most + max(0.07 * most, 33 * MEGABYTE)


def test_scratch_of_many_sizes_is_kept(backend):
    """As the operations of a small network ask for it: in the second pass no block is new."""
    sizes = [3_700_000, 560_000, 860_000, 2_400_000, 1_300_000, 5_100_000, 260_000]
    passes = [[_address(backend.empty((size,), np.uint8)) for size in sizes] for _ in range(3)]
    assert passes[1] == passes[2]
    assert backend.module.host_memory()[1] >= sum(sizes)


def test_sizes_that_come_again_and_again_cost_no_page_faults(backend):
    """As a network's maps and scratch memory: more sizes than may be kept, of which a few live at a time."""
    resource = pytest.importorskip("resource")

    def faults_of_a_pass():
        before, living = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
        for megabytes in (40, 7, 30, 12, 9, 22, 16, 5, 37, 28, 21, 11):
            living = [*living[-2:], backend.empty(_floats(megabytes))]
            living[-1][:] = 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults = [faults_of_a_pass() for _ in range(8)]
    assert max(faults[-2:]) < 100, faults
    assert sum(backend.module.host_memory()) <= 2 * (37 + 28 + 21) * MEGABYTE


def test_releasing_does_not_touch_living_arrays(backend):
    array = backend.empty(_floats(8))
    array[:] = 3
    backend.module.release_host_memory()
    assert (array == 3).all()


def test_threads_do_not_share_blocks(backend):
    errors = []

    def work(number):
        for _ in range(200):
            array = backend.empty((50_000,))
            array[:] = number
            if not (array == number).all():
                errors.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("shape", [(1 << 50,), (1 << 40, 1 << 40), (1 << 62, 2, 2)])
def test_impossible_request_is_a_memory_error(backend, shape):
    with pytest.raises(MemoryError):
        backend.empty(shape, np.uint8)
    backend.empty(_floats(1))[:] = 0  # still works


def test_array_may_outlive_everything_else(backend):
    code = (
        "import atexit, sys\n"
        "from zfcuda import backends\n"
        f"array = backends.get({backend.name!r}).empty((1 << 20,))\n"
        "array[:] = 1\n"
        "sys.keep_array = array\n"
        "atexit.register(lambda: print(int(array.sum())))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1048576\n", "")
