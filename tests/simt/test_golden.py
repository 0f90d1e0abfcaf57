"""Each wrapper of the dialect on random inputs: the emulator against a model in NumPy, and a GPU against the emulator.

The kernels are in golden.cu; they exist in builds with ``ZFCUDA_CHECKED=ON``. Words are 32 bits; unless a case says
more, they come in rows of one word for each lane.
"""

import numpy as np
import pytest

from tests.simt import golden_tensor
from tests.simt.golden_tensor import to_tf32

LANES = np.arange(32)
GROUP, QUAD = LANES // 4, LANES % 4
SEEDS = range(10)


def module(name):
    found = pytest.importorskip(f"zfcuda.{name}", reason="needs a build with ZFCUDA_CHECKED=ON and, for a GPU, nvcc")
    if reason := found.unavailable_reason():
        pytest.skip(f"cuda: {reason}")
    return found


def run(module, name, words):
    out = module.cases[name](np.ascontiguousarray(words, np.uint32).tobytes())
    return np.frombuffer(out, np.uint32)


def signed(words):
    return words.astype(np.uint32).view(np.int32)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return np.where(np.isnan(x), 0x7FFF, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_fp16(bits):
    return bits.astype(np.uint16).view(np.float16).astype(np.float32)


def to_fp16(x):
    with np.errstate(over="ignore"):
        return np.where(np.isnan(x), 0x7FFF, x.astype(np.float16).view(np.uint16)).astype(np.uint16)


# ---- Products of warpgroups, in the PTX manual's words: CuTe layouts of the operands ----------------


WGMMA = [
    "wgmma_bf16_64_k_k",
    "wgmma_bf16_96_k_mn",
    "wgmma_bf16_128_mn_k",
    "wgmma_bf16_192_k_k",
    "wgmma_bf16_128_mn_mn",
    "wgmma_bf16_192_mn_mn",
    "wgmma_bf16_256_mn_mn",
    "wgmma_bf16_64_r_k",
    "wgmma_bf16_96_r_mn",
    "wgmma_tf32_64_k_k",
    "wgmma_tf32_128_k_k",
    "wgmma_tf32_192_k_k",
    "wgmma_tf32_256_k_k",
    "wgmma_tf32_256_r_k",
]
OPERAND_BYTES = 4 * 4096


def cute(shape, stride):
    """The offsets of a CuTe layout, its first mode fastest."""
    offsets = np.zeros(1, int)
    for size, step in zip(shape, stride, strict=True):
        offsets = (np.arange(size)[:, None] * step + offsets[None, :]).ravel()
    return offsets


def operand_offsets(major, rows, element, words):
    """Bytes at which (rows, depth) lie, by the manual's table of canonical layouts, in units of elements."""
    swizzle, leading, stride, start = (int(w) for w in words)
    t, lbo, sbo, depth = 16 // element, leading // element, stride // element, 32 // element
    atom = 2**swizzle  # in units of 16 bytes
    if major == "k":
        mn = cute((8, rows // 8), (t * atom, sbo))
        k = cute((t, depth // t), (1, t if swizzle else lbo))
    elif swizzle:
        mn = cute((t, atom, -(-rows // (t * atom))), (1, t, lbo))
        k = cute((8, depth // 8), (atom * t, sbo))
    else:
        mn = cute((t, 1, rows // t), (1, t, sbo))
        k = cute((8, depth // 8), (t, lbo))
    at = start + element * (mn[:rows, None] + k[None, :])
    return at ^ (at >> 3 & (atom - 1) << 4)  # Swizzle<swizzle, 4, 3>


def wgmma_parts(name, words):
    """The operands and the sum of a product, and whether the sum counts."""
    kind, n, a_kind, b_kind = name.split("_")[1:]
    n, element = int(n), 2 if kind == "bf16" else 4
    depth = 32 // element
    memory = words[-4096:].view(np.uint8)
    registers, sums = np.split(words[8:-4097].reshape(-1, 128), [4])

    def decode(bits):
        return from_bf16(bits) if element == 2 else (bits & 0xFFFFE000).view(np.float32)

    def read(major, rows, descriptor):
        at = operand_offsets(major, rows, element, descriptor)
        raw = memory[at[..., None] + np.arange(element)]
        return decode(np.ascontiguousarray(raw).view(f"u{element}")[..., 0].astype(np.uint32))

    thread = np.arange(128)
    row, quad = thread // 32 * 16 + thread % 32 // 4, thread % 4
    if a_kind == "r":
        a = np.zeros((64, depth), np.float32)
        each = 4 // element
        for i in range(4):
            for e in range(each):
                bits = registers[i] >> np.uint32(16 * e) & 0xFFFF if each == 2 else registers[i]
                a[row + 8 * (i % 2), each * quad + e + 4 * each * (i // 2)] = decode(bits)
    else:
        a = read(a_kind, 64, words[:4])
    d = np.zeros((64, n), np.float32)
    places = [(row + 8 * (i // 2 % 2), i // 4 * 8 + 2 * quad + i % 2) for i in range(n // 2)]
    for place, values in zip(places, sums, strict=True):
        d[place] = values.view(np.float32)
    return a, read(b_kind, n, words[4:8]), d * (words[-4097] != 0), places


def wgmma(name, words):
    a, b, d, places = wgmma_parts(name, words)
    d = d + a.astype(np.float64) @ b.T.astype(np.float64)
    return np.concatenate([d[place] for place in places])


def wgmma_inputs(name, count, rng):
    kind, n, *majors = name.split("_")[1:]
    floats = rng.standard_normal(count).astype(np.float32)
    words = (to_bf16(rng.standard_normal(2 * count)).view(np.uint32) if kind == "bf16" else to_tf32(floats)).copy()
    element = 2 if kind == "bf16" else 4
    words[8 + 4 * 128 : -4097] = floats[8 + 4 * 128 : -4097].view(np.uint32)
    words[-4097] = rng.integers(2)
    for first, rows, major in (0, 64, majors[0]), (4, int(n), majors[1]):
        while True:  # any offsets, as long as the operand stays within shared memory
            descriptor = rng.integers(4), *16 * rng.integers(0, 129, 2), 16 * rng.integers(0, 256)
            if major == "r" or operand_offsets(major, rows, element, descriptor).max() < OPERAND_BYTES - 4:
                break
        words[first : first + 4] = descriptor
    return words


def test_layouts_are_those_of_the_manual():
    """Its examples, whose exact layouts it writes out, in elements."""
    for major, words, element, shape, stride in [
        ("k", (0, 64 * 4, 32 * 4, 0), 4, ((8, 2), (4, 2)), ((4, 32), (1, 64))),
        ("k", (1, 0, 64 * 4, 0), 4, ((8, 2), (4, 2)), ((8, 64), (1, 4))),
        ("mn", (0, 128 * 2, 64 * 2, 0), 2, ((8, 1, 2), (8, 2)), ((1, 8, 64), (8, 128))),
        ("mn", (1, 128 * 2, 256 * 2, 0), 2, ((8, 2, 2), (8, 2)), ((1, 8, 128), (16, 256))),
        ("mn", (2, 256 * 2, 512 * 2, 0), 2, ((8, 4, 2), (8, 2)), ((1, 8, 256), (32, 512))),
    ]:
        at = element * (cute(shape[0], stride[0])[:, None] + cute(shape[1], stride[1])[None, :])
        expected = at ^ (at >> 3 & (2 ** words[0] - 1) << 4)
        np.testing.assert_array_equal(operand_offsets(major, len(at), element, words), expected)


# ---- Inputs -----------------------------------------------------------------------------------------


def random_floats(rng, n):
    """Every exponent, and a few that are special."""
    bits = rng.integers(0, 2**32, n, dtype=np.uint32)
    special = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, 65504, 65520, 2**-24, 2**-25, 2**31, -(2**31)], np.float32)
    return np.where(rng.random(n) < 0.2, rng.choice(special).view(np.uint32), bits)


def inputs(name, count, rng):
    if name in WGMMA:
        return wgmma_inputs(name, count, rng)
    words = rng.integers(0, 2**32, count, dtype=np.uint32)
    if name == "mma_tf32":
        words[: 6 * 32] = to_tf32(rng.standard_normal(6 * 32, np.float32))
    elif name in ("mma_bf16", "mma_fp16"):
        halves = (to_bf16 if name == "mma_bf16" else to_fp16)(rng.standard_normal(12 * 32, np.float32))
        words[: 6 * 32] = halves.view(np.uint32)
    elif name == "floats":
        words = random_floats(rng, 64)
        words[:32] = np.where(rng.random(32) < 0.2, words[32:] ^ (rng.random(32) < 0.5) * np.uint32(2**31), words[:32])
    elif name in ("to_tf32", "fp16", "bf16", "integers"):
        words[:32] = random_floats(rng, 32)
    elif name == "tensor_load_tf32_128":  # not the smallest numbers, which the copy might take for zero
        special = rng.choice([np.inf, -np.inf, np.nan, 0], count)
        values = np.where(rng.random(count) < 0.1, special, rng.standard_normal(count)).astype(np.float32)
        words[golden_tensor.PLACE :] = values.view(np.uint32)[golden_tensor.PLACE :]
    if "tf32" in name:
        words = np.where(words & 0x1FFF == 0x1000, words + 1, words)
    if name.startswith("mma"):
        words[6 * 32 :] = rng.standard_normal(4 * 32, np.float32).view(np.uint32)
    return words


# ---- Models -----------------------------------------------------------------------------------------


def fragments(name, words):
    """a (16, k) and b (k, 8) as the PTX manual lays them out over the lanes, and the sum d (16, 8)."""
    rows = words.reshape(10, 32)
    each = 1 if name == "mma_tf32" else 2
    a, b, d = np.zeros((16, 8 * each)), np.zeros((8 * each, 8)), np.zeros((16, 8))
    for e in range(each):
        decode = {
            "mma_tf32": lambda w: w.view(np.float32),
            "mma_bf16": lambda w, e=e: from_bf16(w >> 16 * e & 0xFFFF),
            "mma_fp16": lambda w, e=e: from_fp16(w >> 16 * e & 0xFFFF),
        }[name]
        for i in range(4):
            a[GROUP + 8 * (i % 2), each * QUAD + e + 4 * each * (i // 2)] = decode(rows[i])
        for i in range(2):
            b[each * QUAD + e + 4 * each * i, GROUP] = decode(rows[4 + i])
    for i in range(4):
        d[GROUP + 8 * (i // 2), 2 * QUAD + i % 2] = rows[6 + i].view(np.float32)
    return a, b, d


def mma(name, words):
    a, b, d = fragments(name, words)
    d = d + a @ b
    return np.concatenate([d[GROUP + 8 * (i // 2), 2 * QUAD + i % 2] for i in range(4)])


def ldmatrix(name, words):
    rows, chosen = words[:128].reshape(32, 4), words[128:] % 32
    matrices = rows[chosen].view(np.uint16).reshape(4, 8, 8).astype(np.uint32)
    if name == "ldmatrix_trans":
        matrices = matrices.transpose(0, 2, 1)
    return np.concatenate([m[GROUP, 2 * QUAD] | m[GROUP, 2 * QUAD + 1] << 16 for m in matrices])


def shuffle(name, words):
    value, other = words[:32], words[32:]
    near = (other % 32).astype(int)

    def up(width):
        return np.where(LANES - near < LANES // width * width, LANES, LANES - near)

    def bounded(source, width):
        return np.where(source >= LANES // width * width + width, LANES, source)

    anywhere = near
    sources = [
        anywhere,
        LANES // 8 * 8 + other % 8,
        up(32),
        up(16),
        bounded(LANES + near, 32),
        bounded(LANES + near, 16),
        LANES ^ near,
        bounded(LANES ^ near, 8),
    ]
    out = [value[source.astype(int)] for source in sources]
    return np.concatenate([*out, value[anywhere], ~value[anywhere], value[(LANES & 16) | near % 16]])


def vote(name, value):
    few, number = value & 3, signed(value)
    total = np.add.reduce(value, dtype=np.uint32)
    everywhere = [
        np.bitwise_or.reduce((value & 1) << LANES.astype(np.uint32)),
        (few == 3).any(),
        (few != 3).all(),
        None,
        (few == 0).sum(),
        (few != 2).all(),
        (few == 2).any(),
        total,
        total,
        number.min().view(np.uint32),
        value.min(),
        number.max().view(np.uint32),
        value.max(),
        np.bitwise_and.reduce(value | 0xFF00),
        np.bitwise_or.reduce(value & 0xFF00),
        np.bitwise_xor.reduce(value),
    ]
    match = [np.bitwise_or.reduce((few == f).astype(np.uint32) << LANES.astype(np.uint32)) for f in few]
    return np.concatenate([match if e is None else np.full(32, e) for e in everywhere]).astype(np.uint32)


def copy_async(name, words):
    data, flags = words[:128], words[128:]
    parts = [(4, 1), (2, 2), (1, 4)]
    return np.concatenate([np.where(np.repeat(flags & flag, n) != 0, data[: 32 * n], 0) for n, flag in parts])


def atomics(name, words):
    value, before = words[:32], words[32:]
    number = signed(value)
    at = before[:11].copy()
    total = value.sum(keepdims=True, dtype=np.uint32)
    at[0:1] += total
    at[1:2] -= total
    at[2] = min(signed(at)[2], number.min()).view(np.uint32)
    at[3] = max(signed(at)[3], number.max()).view(np.uint32)
    at[4] = min(at[4], value.min())
    at[5] = max(at[5], value.max())
    at[6] &= np.bitwise_and.reduce(value | 0xFFFF)
    at[7] |= np.bitwise_or.reduce(value & 0xFFFF)
    at[8] ^= np.bitwise_xor.reduce(value)
    for _ in LANES:
        at[9] = 0 if at[9] >= 20 else at[9] + 1
    at[10] = np.fmod(number, 1000).astype(np.float32).sum(dtype=np.float32).view(np.uint32)
    odd = LANES % 2 == 1
    decreased = np.where(value == 0, 0xFFFFFFFF, value - 1)
    decreased = np.where(odd, decreased, np.where((value == 0) | (value > 7), 7, value - 1))
    return np.concatenate([at, value + 1, np.where(odd, value, before), decreased, value, before, value])


def halves(name, words):
    to, back = (to_bf16, from_bf16) if name == "bf16" else (to_fp16, from_fp16)
    x, a, b = words[:32].view(np.float32), back(words[32:] & 0xFFFF), back(words[32:] >> 16)
    with np.errstate(all="ignore"):
        return np.concatenate([to(x), a.view(np.uint32), to(a + b), to(a - b), to(a * b), to(a / b)])


def floats(name, words):
    x, y = words.view(np.float32).reshape(2, 32)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(np.where(np.abs(x) < 2**-126, 0 * x, x))
    larger = np.where(x == y, np.where(np.signbit(x), y, x), np.maximum(x, y))
    pairs = words.view(np.uint16)
    with np.errstate(all="ignore"):
        sums = to_bf16(from_bf16(pairs[:64]) + from_bf16(pairs[64:])).view(np.uint32)
    halves = np.where(words[:32].view(np.int8).reshape(32, 4) < 0, 0xFFFF, 0).astype(np.uint16)
    spread = [np.ascontiguousarray(halves[:, i : i + 2]).view(np.uint32).ravel() for i in range(3)]
    return np.concatenate([larger.view(np.uint32), root.view(np.uint32), sums, *spread])


def integers(name, words):
    a, b = words[:32], words[32:]
    with np.errstate(invalid="ignore"):
        x = a.view(np.float32).astype(np.float64)
    wide = a.astype(np.uint64), b.astype(np.uint64)
    low_high = wide[1] << np.uint64(32) | wide[0]
    text = [f"{v:032b}" for v in a]
    eight = np.stack([a, b], 1).view(np.uint8)
    bytes_of = np.stack(
        [np.take_along_axis(eight, (a >> 4 * i & 7)[:, None].astype(int), 1)[:, 0] for i in range(4)], 1
    )

    def to_int(rounded):
        return np.where(np.isnan(x), 0, np.clip(np.nan_to_num(rounded), -(2**31), 2**31 - 1)).astype(np.int64)

    results = [
        [t.count("1") for t in text],
        [len(t) - len(t.lstrip("0")) for t in text],
        [len(t) - t.rfind("1") if "1" in t else 0 for t in text],
        [int(t[::-1], 2) for t in text],
        wide[0] * wide[1] >> np.uint64(32),
        signed(a).astype(np.int64) * signed(b).astype(np.int64) >> 32,
        (low_high << (wide[0] & np.uint64(31))) >> np.uint64(32),
        low_high >> (wide[1] & np.uint64(31)),
        np.ascontiguousarray(bytes_of).view(np.uint32)[:, 0],
        *(to_int(rounding(x)) for rounding in (np.rint, np.trunc, np.floor, np.ceil)),
        signed(a).astype(np.float32).view(np.uint32),
        a.astype(np.float32).view(np.uint32),
    ]
    return np.concatenate([np.asarray(r).astype(np.int64).astype(np.uint32) for r in results])


MODELS = (
    golden_tensor.MODELS
    | {
        "mma_tf32": mma,
        "mma_bf16": mma,
        "mma_fp16": mma,
        "ldmatrix": ldmatrix,
        "ldmatrix_trans": ldmatrix,
        "shuffle": shuffle,
        "vote": vote,
        "copy_async": copy_async,
        "atomics_shared": atomics,
        "atomics_global": atomics,
        "fp16": halves,
        "bf16": halves,
        "to_tf32": lambda name, words: to_tf32(words.view(np.float32)),
        "floats": floats,
        "integers": integers,
    }
    | dict.fromkeys(WGMMA, wgmma)
)


def check(name, words, actual, expected):
    """The same bits; of matrix products, whose sums a GPU rounds in its own way, the same number; any NaN is one."""
    if name.startswith("mma"):
        a, b, d = fragments(name, words)
        scale = (np.abs(d) + np.abs(a) @ np.abs(b)).max()
        expected = expected.view(np.float32) if expected.dtype == np.uint32 else expected
        np.testing.assert_allclose(actual.view(np.float32), expected, rtol=0, atol=4e-6 * scale)
    elif name in WGMMA:
        a, b, d, _ = wgmma_parts(name, words)
        scale = (np.abs(d) + np.abs(a) @ np.abs(b).T).max()
        expected = expected.view(np.float32) if expected.dtype == np.uint32 else expected
        np.testing.assert_allclose(actual.view(np.float32), expected, rtol=0, atol=4e-6 * scale)
    elif name in ("fp16", "bf16"):
        back = from_bf16 if name == "bf16" else from_fp16
        for i in range(6):
            got, want = (
                w[32 * i : 32 * i + 32].astype(np.uint32).view(np.float32) if i == 1 else back(w[32 * i : 32 * i + 32])
                for w in (actual, expected)
            )
            np.testing.assert_array_equal(got, want, f"result {i}")
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers], f"sign of result {i}")
    elif name == "floats":
        (got, got_root), (want, want_root) = (w[:64].view(np.float32).reshape(2, 32) for w in (actual, expected))
        np.testing.assert_array_equal(actual[64:], expected[64:])
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got)[got == 0], np.signbit(want)[got == 0])
        np.testing.assert_allclose(got_root, want_root, rtol=2**-22)
    elif name in ("to_tf32", "tensor_load_tf32_128"):  # 13 bits count for nothing
        got, want = (np.where(np.isnan(w.view(np.float32)), 0x7FFFFFFF, w) & 0xFFFFE000 for w in (actual, expected))
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_the_emulator_is_the_model(name, seed):
    emulator = module("_golden")
    words = inputs(name, emulator.words[name][0], np.random.default_rng(seed))
    check(name, words, run(emulator, name, words), MODELS[name](name, words))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_is_the_emulator(name):
    gpu, emulator = module("_golden_cuda"), module("_golden")
    for seed in SEEDS:
        words = inputs(name, emulator.words[name][0], np.random.default_rng(seed))
        check(name, words, run(gpu, name, words), run(emulator, name, words))


def test_every_case_has_a_model():
    assert set(module("_golden").cases) == set(MODELS)
