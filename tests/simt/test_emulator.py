"""csrc/simt: every class of bug in a broken kernel is caught and says where; correct kernels are not reported.

The kernels are in broken_kernels.cpp, correct_kernels.cpp and correct_products.cpp; they and these tests exist in
builds with ``ZFCUDA_CHECKED=ON``.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCHEDULES = [(schedule, seed) for schedule in ("depth_first", "random") for seed in (1, 2)]

# What the emulator says in every build, since it needs to know only who waits where and what is launched.
ALWAYS = {
    "missing_arrival": "^divergence: no thread can go on; .*mbarrier_wait with parity",
    "too_many_arrivals": r"^too many arrivals at the mbarrier at byte 0 of shared array `full` \(phase 0, 0 of 32 ",
    "named_barrier_16": "^named barriers are 1 to 15",
    "named_barrier_of_100": "^a named barrier takes whole warps of the block, got 100 threads",
    "named_barrier_of_two_sizes": "^named barrier 1 is of (64|128) threads here and of (64|128) at ",
    "named_barrier_waits_for_ever": "^divergence: no thread can go on; .* waits in named barrier 1 at ",
    "named_barrier_of_half_warps": "^divergence: a warp comes to a named barrier with 16 of its lanes",
    "mbarrier_not_initialised": "^an mbarrier that is not initialised is used",
    "mbarrier_of_nobody": "^an mbarrier expects from 1 to 1048575 arrivals, got 0",
    "mbarrier_initialised_twice": "is initialised a second time",
    "mbarrier_overwritten": "^the mbarrier at byte 0 of .* has been overwritten by an ordinary store|^race: ",
    "mbarrier_of_too_many_bytes": "^too many arrivals|^more than 1048575 bytes pending",
    "mbarrier_of_parity_2": "^the parity of a phase is 0 or 1, got 2",
    "mbarrier_waits_for_ever": r"mbarrier_wait with parity 1 for .*\(phase 1, 1 of 1 arrivals and 0 bytes pending\)",
    "too_many_registers": "^setmaxnreg: the warpgroups ask for 66560 registers together; a multiprocessor has 65536",
    "load_of_too_few_bytes": "^too few bytes expected: |^divergence: .* and -?[1-9][0-9]* bytes pending",
    "load_of_too_many_bytes": "^divergence: no thread can go on; .*arrivals and 16 bytes pending",
    "load_without_init_fence": "^missing fence: the mbarrier at byte 0 of .* no mbarrier_init_fence",
    "load_misaligned": "^misaligned address: a tensor copy needs a multiple of 128 bytes",
    "load_of_other_kind": "^this copy needs a map that is im2col",
    "load_of_other_rank": "^the tensor map has 2 dimensions, the copy 1",
    "load_not_waited_for": "^the block ends",
    "store_not_waited_for": "^a thread exits and has not waited for its tensor stores",
    "store_without_commit": "^a thread exits and has not waited for its tensor stores|^race: ",
    "divergent_barrier": r"^barrier divergence: .*broken_kernels.cpp:\d+, while thread .*broken_kernels.cpp:\d+",
    "barrier_against_shuffle": "divergence",
    "exited_lane": "names lane 8, which has exited",
    "mask_without_caller": r"mask 0x0000ffff does not name the lane that calls it",
    "static_overrun": r"^out of bounds: .* at byte 256( of shared array `tile`|$)",
    "dynamic_overrun": r"^out of bounds: .*dynamic shared memory.* at byte -1$|at byte -4 of shared array `dynamic",
    "local_overrun": r"^out of bounds: index 4 of 'float \[4\]'",
    "null": "^null pointer",
    "misaligned_vector": "^misaligned address: .*needs a multiple of 16 bytes",
    "misaligned_copy": "^misaligned address: the target of cp.async",
    "throwing": "^the kernel threw an exception: nine",
    "too_many_threads": "block.x must be from 1 to 1024, got 1025",
    "too_many_threads_in_a_cube": "threads per block must be from 1 to 1024, got 2048",
    "too_deep_block": "block.z must be from 1 to 64, got 65",
    "empty_grid": "grid.x must be from 1 to 2147483647, got 0",
    "too_high_grid": "grid.y must be from 1 to 65535, got 65536",
    "too_much_dynamic": "at most 232448 bytes of shared memory are allowed, got 232449",
    "too_much_static": "49156 bytes of static shared memory with `tile`; at most 49152",
    "too_much_together": "232576 bytes of static and dynamic shared memory",
    "dynamic_without_launch": "its launch gave it none",
    "product_without_arrive": "^missing warpgroup_arrive",
    "product_without_arrive_after_wait": "^missing warpgroup_arrive",
    "product_without_commit": "^this thread (exits, and a product|reads a register of the product)",
    "accumulators_written_too_early": "^accumulators were written to|^this thread writes to a register of the product",
    "operand_register_written_too_early": "^registers were written to|^this thread writes to a register of the product",
    "product_without_a_warp": "^warpgroup divergence: this thread calls (wgmma|warpgroup_commit), while another",
    "product_after_exit": "^divergence: no thread can go on; .* waits in a call of its warpgroup",
    "product_of_three_warps": "^warpgroup_arrive needs the four warps of a warpgroup, from warp 0 on; .* 96 threads",
    "product_of_other_descriptors": "^wgmma with other operands than another thread",
    "product_of_another_shape": "^a product of another shape has these accumulators",
    "product_not_waited_for": "^this thread exits, and a product",
    "misaligned_descriptor": "^misaligned address: a matrix descriptor needs a multiple of 16",
    "descriptor_of_global_memory": "^a matrix descriptor of an address that is not in shared memory",
    "descriptor_with_base_offset": "base offset is not modelled",
}

# What needs every access examined.
CHECKED = {
    "no_wait_for_full": "^(race|uninitialised read): .* of shared array `stages`",
    "no_wait_for_empty": "^race: .* of shared array `stages`|^divergence: .* mbarrier_wait",
    "wrong_parity": "^(race|uninitialised read): .* of shared array `stages`",
    "one_lane_arrives": "^race: .* of shared array `stages`",
    "no_wait_for_copies": "^(race|uninitialised read): .* of shared array `stages`",
    "reader_that_does_not_arrive": "^race: this thread writes byte .* of shared array `tile`",
    "other_named_barrier": "^race: .* of shared array `tile`",
    "mbarrier_without_barrier": "^race: .* of shared array `barrier`|^an mbarrier that is not initialised",
    "load_without_wait": "^(race|uninitialised read): .* of shared array `stages`",
    "load_over_readers": "^race: .* of shared array `stages`|^too many arrivals",
    "load_over_a_store": "^missing fence: the asynchronous proxy accesses byte 0 of shared array `stages`",
    "load_out_of_bounds": "^out of bounds: this thread reads 16 bytes at byte 8064 of x, which has 8064",
    "store_without_fence": "^missing fence: .* of shared array `dynamic shared memory`.*no fence_proxy_async",
    "store_with_fence_of_one_thread": "^missing fence: .* of shared array `dynamic shared memory`",
    "store_reused_too_early": "^race: .* writes byte .*, which the asynchronous copy begun at .* read",
    "missing_barrier": r"^race: .* of shared array `tile`.*no barrier is between them",
    "reused_too_early": "^race: .*no barrier is between them",
    "missing_warp_barrier": "^race: .*no barrier is between them",
    "half_a_warp_barrier": "^race: .*no barrier is between them",
    "missing_wait": "^race: .*asynchronous copy .*has not been waited for",
    "wait_for_too_few": r"^race: .*asynchronous copy .*has not been waited for",
    "missing_barrier_after_wait": "^race: ",
    "copy_over_readers": "^race: .*no barrier is between them",
    "global_overrun": "^out of bounds: this thread writes 4 bytes at byte 472 of y, which has 472",
    "global_read_overrun": "^out of bounds: this thread reads 4 bytes at byte -4 of x, which has 1024",
    "copy_overrun": "^out of bounds: this thread reads 16 bytes at byte 1024 of x, which has 1024",
    "uninitialised_shared": "^uninitialised read: .*byte 68 of shared array `tile`",
    "uninitialised_global": "^uninitialised read: .* of y",
    "race_between_blocks": "^race: .*of another block.*nothing orders the two blocks",
    "halo_of_next_block": "^(race|uninitialised read): .* of y",  # as the order of the blocks falls
    "race_in_global_memory": "^race: .* of y",
    "update_without_atomic": "^race: .* of count",
    "product_without_fence": r"^missing fence: .* of shared array `[ab]`.*no fence_proxy_async of that thread",
    "product_with_half_a_fence": r"^missing fence: .* of shared array `[ab]`",
    "product_with_fence_after_barrier": r"^missing fence: .* of shared array `[ab]`",
    "product_without_barrier": "^race: .*no barrier is between them",
    "accumulators_read_too_early": "^this thread reads a register of the product begun at .*not been waited for",
    "wait_for_too_few_products": "^this thread reads a register of the product begun at .*not been waited for",
    "operand_overwritten": "^race: this thread writes byte .* of shared array `a`, which the product begun at .* reads",
    "operand_overwritten_without_barrier": "^race: .* of shared array `b`.*no barrier is between them",
    "product_of_copies_under_way": "^race: .*asynchronous copy .*has not been waited for",
    "descriptor_beyond": "^(out of bounds|uninitialised read): ",
}


def selftest(name):
    module = pytest.importorskip(f"zfcuda.{name}", reason="needs a build with ZFCUDA_CHECKED=ON")
    assert module.debug.checks_accesses() == (name == "_selftest_checked")
    return module


@pytest.fixture(params=["_selftest", "_selftest_checked"])
def module(request):
    module = selftest(request.param)
    before = module.debug.configuration()
    yield module
    module.debug.configure(**before)


def failure(module, name, **configuration):
    module.debug.configure(**configuration)
    with pytest.raises(RuntimeError) as caught:
        module.broken[name]()
    return str(caught.value)


@pytest.mark.parametrize(("schedule", "seed"), SCHEDULES)
def test_correct_kernels_pass(module, schedule, seed):
    module.debug.configure(schedule=schedule, seed=seed)
    for name, run in (module.correct | module.products).items():
        try:
            run()
        except RuntimeError as error:
            pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize(("schedule", "seed"), SCHEDULES)
@pytest.mark.parametrize("name", ALWAYS)
def test_always_caught(module, name, schedule, seed):
    assert re.search(ALWAYS[name], failure(module, name, schedule=schedule, seed=seed), re.MULTILINE)


@pytest.mark.parametrize(("schedule", "seed"), SCHEDULES)
@pytest.mark.parametrize("name", CHECKED)
def test_caught_where_accesses_are_examined(name, schedule, seed):
    message = failure(selftest("_selftest_checked"), name, schedule=schedule, seed=seed)
    assert re.search(CHECKED[name], message)
    assert re.search(
        r"thread \(\d+, 0, 0\), at tests/simt/(barrier|broken|tensor|warpgroup)_kernels.cpp:\d+\n", message
    )


def test_every_broken_kernel_is_listed(module):
    assert set(module.broken) == ALWAYS.keys() | CHECKED.keys()


@pytest.mark.parametrize(
    "name",
    [
        "missing_barrier",
        "missing_wait",
        "missing_barrier_after_wait",
        "product_without_fence",
        "wait_for_too_few_products",
    ],
)
def test_schedules_and_poison_alone_find_a_missing_wait(name):
    module = selftest("_selftest")
    survived = 0
    for schedule, seed in SCHEDULES:
        module.debug.configure(schedule=schedule, seed=seed)
        with contextlib.suppress(RuntimeError):
            module.broken[name]()
            survived += 1
    assert survived <= 1


def test_a_report_names_the_kernel_the_place_and_the_seed():
    message = failure(selftest("_selftest_checked"), "reused_too_early", schedule="random", seed=7)
    lines = message.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("race: this thread ")
    assert re.search(r"thread \(\d+, 0, 0\) (read|wrote) it at tests/simt/broken_kernels.cpp:\d+", lines[0])
    assert re.fullmatch(
        r"  kernel selftest::\{anonymous\}::reused_too_early_kernel, block \(0, 0, 0\), thread \(\d+, 0, 0\), "
        r"at tests/simt/broken_kernels.cpp:\d+",
        lines[1],
    )
    assert lines[2] == "  to see it again: ZFCUDA_EMULATOR_SEED=7 ZFCUDA_EMULATOR_SCHEDULE=random"


def test_the_same_seed_gives_the_same_report_and_another_a_different_one(module):
    def reports(**configuration):
        return [failure(module, "divergent_barrier", schedule="random", seed=s, **configuration) for s in range(5)]

    first = reports()
    assert first == reports()
    assert first == reports(threads=3)
    assert len(set(first)) > 1


def test_variants_are_counted(module):
    module.debug.reset_launch_counts()
    module.correct["pipeline of 4"]()
    launches = {name: count for name, count in module.debug.variants().items() if count}
    assert launches == {"selftest::{anonymous}::pipeline_kernel<4>": 1}
    assert "selftest::{anonymous}::nothing_kernel" in module.debug.variants()


def test_configuration(module):
    module.debug.configure(seed=2**64 - 1, schedule="random", threads=2)
    threads = 1 if module.debug.checks_accesses() else 2  # what is found must not depend on timing
    device = {"multiprocessors": 132, "shared_bytes": 228 << 10}
    assert module.debug.configuration() == {"seed": 2**64 - 1, "schedule": "random", "threads": threads, **device}
    with pytest.raises(ValueError, match="schedule must be depth_first, random or mixed, got breadth_first"):
        module.debug.configure(schedule="breadth_first")


def test_settings_come_from_the_environment():
    selftest("_selftest")
    program = "from zfcuda import _selftest; print(_selftest.debug.configuration())"
    settings = {"SEED": "5", "SCHEDULE": "random", "THREADS": "3"}
    environment = os.environ | {f"ZFCUDA_EMULATOR_{key}": value for key, value in settings.items()}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("{'seed': 5, 'schedule': 'random', 'threads': 3, ")


def test_a_device_with_less_shared_memory(module):
    """A block may have all of a multiprocessor's but 1 KB."""
    message = failure(module, "too_much_dynamic", shared_bytes=100 << 10)
    assert "at most 101376 bytes of shared memory are allowed, got 232449" in message


def test_arrays_that_overlap_are_refused():
    debug = selftest("_selftest_checked").debug
    try:
        debug.register_array(4096, 64, True, "first")
        debug.register_array(4096, 64, True, "first again")
        debug.register_array(4128, 32, True, "a view of it")
        with pytest.raises(ValueError, match="array second overlaps array first and leaves it"):
            debug.register_array(4128, 64, True, "second")
    finally:
        debug.forget_arrays()


@pytest.fixture
def bank_use():
    """What `banks_kernel` does to the banks on each of its lines: (instructions, conflicts)."""
    module = selftest("_selftest_checked")

    def count(**configuration):
        module.debug.configure(**configuration)
        module.debug.count_bank_conflicts(True)
        module.correct["banks"]()
        return {
            int(re.search(r"correct_kernels.cpp:(\d+)", use.where)[1]): (use.instructions, use.conflicts)
            for use in module.debug.bank_use()
            if use.kernel.endswith("banks_kernel")
        }

    yield count
    module.debug.count_bank_conflicts(False)


@pytest.mark.parametrize(("schedule", "seed"), SCHEDULES)
def test_bank_conflicts_are_counted_by_line(bank_use, schedule, seed):
    lines = (Path(__file__).parent / "correct_kernels.cpp").read_text().splitlines()
    expected = {i: int(line.split("// conflicts: ")[1]) for i, line in enumerate(lines, 1) if "// conflicts: " in line}
    found = bank_use(schedule=schedule, seed=seed)
    assert {line: conflicts for line, (_, conflicts) in found.items()} == expected
    loops = sorted(instructions for instructions, _ in found.values() if instructions > 1)
    assert loops == [31, 36]  # of no lane, and of all


def test_bank_conflicts_are_counted_where_accesses_are_checked():
    debug = selftest("_selftest").debug
    with pytest.raises(RuntimeError, match="bank conflicts are counted where every access is checked"):
        debug.count_bank_conflicts(True)
    debug.count_bank_conflicts(False)
    assert debug.bank_use() == []
