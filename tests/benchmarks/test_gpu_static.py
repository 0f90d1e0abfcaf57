"""benchmarks/gpu_static.py: what it says where something is missing, how kernels are bounded, and the recorded main
loops, which no build may outgrow."""

import json
import os

import gpu_memory
import gpu_model
import gpu_sass
import gpu_static
import pytest

from tests.benchmarks.test_gpu_sass import disassembly

H200, _, A100, _ = gpu_model.GPUS


# ---- What is missing -------------------------------------------------------------------------------------------------


@pytest.fixture
def cuobjdump(tmp_path, monkeypatch):
    """Puts a program of this name, which runs the given shell lines, alone on PATH."""

    def install(*lines):
        program = tmp_path / "cuobjdump"
        program.write_text("\n".join(["#!/bin/sh", *lines]))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        module = tmp_path / "module.so"
        module.touch()
        return module

    return install


def fails(capsys, *arguments):
    assert gpu_static.main([str(argument) for argument in arguments]) == 3
    return capsys.readouterr().err


def test_without_the_backend_it_says_how_to_build_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fails(capsys) == (
        "Nothing was analysed: the CUDA backend is not built here: put nvcc on PATH, then "
        "pip install -C cmake.define.ZFCUDA_CUDA=ON .\n"
    )


def test_without_cuobjdump_it_says_where_to_get_it(tmp_path, monkeypatch, capsys):
    module = tmp_path / "module.so"
    module.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fails(capsys, module) == (
        "Nothing was analysed: cuobjdump is not on PATH: install the CUDA toolkit's, or "
        "pip install nvidia-cuda-cuobjdump\n"
    )


def test_without_cxxfilt(cuobjdump, capsys):
    cuobjdump()
    with pytest.raises(gpu_sass.NoToolError, match=r"c\+\+filt is not on PATH: install binutils"):
        gpu_sass.demangle(["_Z1fv"])


def test_a_missing_file(tmp_path, capsys):
    path = tmp_path / "none.so"
    assert fails(capsys, path) == f"Nothing was analysed: no such file: {path}\n"


@pytest.mark.parametrize(
    ("lists", "has"), [("ELF file    1: pool.sm_75.cubin", "sm_75"), ("", "no machine code")], ids=["other", "none"]
)
def test_code_for_another_architecture(cuobjdump, capsys, lists, has):
    module = cuobjdump(f"test $1 = -lelf && echo '{lists}'", "exit 0")
    assert fails(capsys, module) == f"Nothing was analysed: no kernel for sm_90a in {module}: it has {has}\n"


def test_a_failing_cuobjdump(cuobjdump, capsys):
    module = cuobjdump("echo 'cuobjdump fatal: not an ELF' >&2", "exit 255")
    assert fails(capsys, module) == "Nothing was analysed: cuobjdump fails: cuobjdump fatal: not an ELF\n"


def test_no_batch(capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu_static.main(["--batch", "0"])
    assert "--batch must be at least 1, got 0" in capsys.readouterr().err


# ---- Kernels ---------------------------------------------------------------------------------------------------------

_HMMA = 64 * 64 * 32 // (16 * 8 * 16)
FPROP = "void fprop_kernel<MmaTile<Bf16, 2, 2, 64, 64, 4, 2>, 8, true>(ConvShape)"
WGRAD = "wgrad_kernel<FfmaTile<3, 5, 4, 8, 8, 4, 3, 1>, UnpooledPixels<FfmaTile<3, 5, 4, 8, 8, 4, 3, 1>, 4>, 1>(int)"


def code(once, repeated=(), registers=128):
    """With a loop of these opcodes."""
    counts = [gpu_sass.Counts.of(gpu_sass.Instruction(0, one, "", False) for one in part) for part in (once, repeated)]
    return gpu_sass.Code("mangled", registers, 0, 0, 0, gpu_sass.MainLoop(*counts), counts[0])


def test_a_kernel_of_tensor_cores():
    kernel = gpu_model.Kernel.parse(code(["HMMA.16816.F32.BF16"] * _HMMA + ["LOP3.LUT"] * 36, registers=214), FPROP)
    assert kernel.name == "fprop bf16 mma 128x128, 16/16 B"
    assert kernel.dynamic_shared == 66 * 1024
    assert (kernel.resident(H200), kernel.resident(A100)) == (2, 2)
    assert {term: round(cycles) for term, cycles in kernel.cycles(H200).items() if cycles} == {
        "tensor": 406,
        "alu": 72,
        "issue": 100,
        "L2": 585,
    }
    assert kernel.bound(H200)[0] == "L2"
    assert kernel.share(H200) == pytest.approx(256 / 585, rel=1e-3)
    assert kernel.bound(H200, rows=12, cols=128)[0] == "tensor"
    assert kernel.cycles(H200, rows=12, cols=128)["L2"] == 140 * 64 / 28


def test_kernels_fed_by_the_tensor_memory_accelerator():
    """Their loop has the products alone, and what comes from L2 comes while a tile is stored, too."""
    template = "void conv_tma_kernel<TmaTile<Bf16, 3, 1, 2, 128, 4, 192>, {}, FpropFilters>(TensorMap)"
    names = [template.format(line) for line in (64, 128)]
    long, short = gpu_model.kernels([code(["HGMMA.64x128x16.F32.BF16"] * 8 + ["LOP3.LUT"] * 60)] * 2, names)
    assert long.name == "fprop bf16 tma 192x256, lines of 128 B"
    assert long.dynamic_shared == 4 * (448 * 128 + 16)
    assert long.resident(H200) == 1
    assert [round(found) for found in long.cycles(H200).values() if found] == [1536, 360, 1152, 204, 2048]
    assert long.work(H200, 3, 10, 2500, (192, 256)) == 3 * 10 * 2048 + 2500
    assert long.work(H200, 3, 1, 2500, (192, 256)) == 3 * (1536 + 2500)
    for channels, expected in ((8, (9, 5)), (64, (9, 9)), (96, (18, 14)), (128, (18, 18))):
        assert tuple(one.k_tiles(9 * channels, channels) for one in (long, short)) == expected
        assert long.serves(9 * channels, channels) == (expected[0] <= expected[1])


def test_a_tile_of_fewer_rows_than_are_multiplied():
    """Tensor cores take as long as for 192."""
    name = "void conv_tma_kernel<TmaTile<Bf16, 3, 1, 2, 128, 4, 168>, 128, FpropFilters>(TensorMap)"
    (kernel,) = gpu_model.kernels([code(["HGMMA.64x128x16.F32.BF16"] * 8)], [name])
    assert kernel.name == "fprop bf16 tma 168x256, lines of 128 B"
    assert kernel.dynamic_shared == 4 * (424 * 128 + 16)
    cycles = kernel.cycles(H200)
    assert (cycles["tensor"], round(cycles["L2"])) == (1536, 1938)
    assert kernel.share(H200) == pytest.approx(168 * 256 * 64 / 2048 / (424 * 128 / 28))


def test_a_kernel_of_both_directions():
    """In tf32: of the data gradient filters are turned first."""
    name = "void conv_tma_kernel<TmaTile<Tf32, 2, 1, 1, 256, 4, 128>, 128, FpropFilters>(TensorMap)"
    backward, forward = gpu_model.kernels([code(["HGMMA.64x256x8.F32.TF32"] * 4)], [name])
    assert backward.name == "dgrad tf32 tma 128x256, lines of 128 B"
    assert forward.name == "fprop tf32 tma 128x256, lines of 128 B"
    assert (forward.width_a, forward.width_b, forward.tile.depth) == (4, 4, 32)
    assert (backward.turns_filters, forward.turns_filters) == (True, False)
    assert forward.dynamic_shared == 4 * (384 * 128 + 16)
    for one in (backward, forward):
        cycles = one.cycles(H200)
        assert (cycles["tensor"], round(cycles["L2"])) == (1024, 1755)


def test_a_weight_gradient_fed_by_the_tensor_memory_accelerator():
    """Its columns are lines of one tap each, its depth pixels."""
    names = [f"void wgrad_tma_kernel<TmaTile<Bf16, 3, 1, 2, 128, 4, 192>, {line}>(TensorMap)" for line in (64, 128)]
    long, short = gpu_model.kernels([code(["HGMMA.64x128x16.F32.BF16"] * 8)] * 2, names)
    assert (long.name, long.operation) == ("wgrad bf16 tma 192x256, lines of 128 B", "wgrad")
    assert long.dynamic_shared == 4 * (448 * 128 + 16)
    for channels, expected in ((8, (3, 2)), (64, (3, 3)), (96, (5, 4)), (128, (5, 5))):
        assert tuple(one.tiles_across(9 * channels, channels) for one in (long, short)) == expected
        assert tuple(one.k_tiles(1000, channels) for one in (long, short)) == (16, 16)
        assert long.serves(9 * channels, channels) == (channels % 64 == 0)
        assert short.serves(9 * channels, channels) == (channels % 64 > 0)


def test_a_block_fed_by_the_tensor_memory_accelerator():
    """Beside the ring lies the map of a tile, 128 bytes of channels, on a pitch of 8 elements more."""
    names = ["void block_tma_kernel<TmaTile<Bf16, 3, 2, 1, 64, 3, 384>, 128>(TensorMap)"]
    names += ["void block_tma_kernel<TmaTile<Tf32, 2, 1, 1, 128, 6, 128>, 64>(TensorMap)"]
    codes = [code(["HGMMA.64x64x16.F32.BF16"] * 8), code(["HGMMA.64x128x8.F32.TF32"] * 4)]
    narrow, small = gpu_model.kernels(codes, names)
    assert (narrow.name, narrow.operation) == ("block bf16 tma 384x64, lines of 128 B", "block")
    assert small.name == "block tf32 tma 128x128, lines of 64 B"
    assert narrow.dynamic_shared == 3 * (448 * 128 + 16) + 384 * 144
    assert small.dynamic_shared == 6 * (256 * 128 + 16) + 128 * 160
    cycles = narrow.cycles(H200)
    assert (cycles["tensor"], round(cycles["L2"])) == (768, 2048)
    assert narrow.k_tiles(9 * 64, 64) == 9
    assert narrow.transposed is None


def test_a_kernel_of_fmas():
    """A fourth of the depth in the loop that repeats."""
    kernel = gpu_model.Kernel.parse(code(["IMAD.WIDE"] * 20, ["FFMA"] * 128 + ["LDS.128"] * 12), WGRAD)
    assert kernel.name == "unpool wgrad fp32 ffma 96x160, 16/4 B"
    assert kernel.counts.pipes["fma"] == 512
    assert kernel.counts.instructions == 20 + 4 * 140
    assert kernel.cycles(H200)["fma"] == 15 * 532 / 4
    assert kernel.cycles(A100)["fma"] == 15 * 532 / 2
    assert kernel.cycles(H200)["L2"] == 0  # nothing of it by copies of 16 bytes


def test_a_kernel_of_patches():
    """Copies of the patch and of the filters repeat as often as its window needs, and so does the loop over taps."""
    counts = [
        gpu_sass.Counts.of(gpu_sass.Instruction(0, one, "", False) for one in part)
        for part in (["BAR.SYNC"] * 10, ["HMMA.16816.F32.BF16"] * 64 + ["LDSM.16.M88.4"] * 11 + ["LDS.128"] * 4)
    ]
    copies = [gpu_sass.Counts.of([gpu_sass.Instruction(0, "LDGSTS.E.BYPASS.128", "", False)] * n) for n in (4, 1)]
    compiled = gpu_sass.Code("mangled", 138, 0, 0, 0, gpu_sass.MainLoop(*counts, tuple(copies)), counts[0])
    name = "void dgrad_patch_kernel<PatchTile<Bf16, 16, 4> >(ConvShape)"
    (square,) = gpu_model.kernels([compiled], [name])
    assert square.name == "patch dgrad bf16 mma 512x16, 4 tap rows"
    kernel = square.with_taps(3, 5)  # of 4 x 5
    assert kernel.dynamic_shared == 4 * 792 + 2 * (796 * 32 + 20 * 512)
    assert kernel.resident(H200) == 3
    assert kernel.multiply_adds == 512 * 16 * 16 * 20
    assert kernel.counts.instructions == 10 + 5 * 79 + 4 * 4 + 5 * 1
    cycles = kernel.cycles(H200)
    assert cycles["shared"] == 4 * (5 * (11 * 4 + 4 * 4) + (4 * 4 + 5) * 4)
    assert cycles["L2"] == (10 * 68 * 32 + 20 * 512) / 28
    assert gpu_model.kernels([gpu_sass.Code("mangled", 138, 0, 0, 9, None, counts[0])], [name]) == []


def test_kernels_that_read_patches_of_the_image():
    """A k-tile is four chunks of a window, whose filters come from L2; of the weight gradient 32 pixels of dy."""
    fprop = code(["HMMA.16816.F32.BF16"] * 48 + ["LDSM.16.M88.4"] * 8 + ["LDS.128"] * 6, registers=160)
    wgrad = code(["HMMA.16816.F32.BF16"] * 42 + ["LDSM.16.MT88.4"] * 13, registers=160)
    names = [
        "void block_patch_kernel<ImageTile<Bf16, 2, 2, 64, 48, 3, 3> >(ConvShape)",
        "void fprop_patch_kernel<ImageTile<Bf16, 2, 2, 64, 48, 3, 3> >(ConvShape)",
        "void wgrad_patch_kernel<WgradImageTile<Bf16, 2, 2, 48, 56, 3, 3> >(ConvShape)",
        "void fprop_patch_kernel<Other<1> >(int)",
    ]
    block, forward, backward = gpu_model.kernels([fprop, fprop, wgrad, fprop], names)
    assert block.name == "patch block bf16 patch 128x96"
    assert forward.name == "patch fprop bf16 patch 128x96"
    assert backward.name == "patch wgrad bf16 patch 96x112"
    assert forward.dynamic_shared == 4 * 128 + 7 * 16 + 532 * 16 + 3 * 96 * 64
    assert block.dynamic_shared == 4 * 128 + 128 * 112 * 2
    assert backward.dynamic_shared == 4096 + 1520 * 16 + 3 * 64 * 104
    cycles = forward.cycles(H200)
    assert cycles["shared"] == 4 * (8 * 4 + 6 * 4)
    assert cycles["L2"] == 96 * 64 / 28
    assert forward.share(H200) == pytest.approx(0.63)
    assert backward.cycles(H200)["L2"] == 96 * 64 / 28
    assert forward.with_patch(900, 66).k_tiles == 17


def test_kernels_that_read_patches_of_the_image_in_float32():
    """Of three channels, three elements of a chunk are multiplied: a k-tile is 12 deep."""
    ffma = code([], ["FFMA"] * 192 + ["LDS.128"] * 14)
    (kernel,) = gpu_model.kernels([ffma], ["void fprop_patch_kernel<FfmaImageTile<2, 3, 3, 3, 2> >(ConvShape)"])
    assert kernel.name == "patch fprop fp32 patch 128x96, 3 channels"
    assert kernel.tile.depth == 12
    assert kernel.counts.instructions == 4 * 206
    assert kernel.share(H200) == pytest.approx(192 / 206)
    assert kernel.dynamic_shared == 4 * 128 + 7 * 16 + 532 * 16 + 3 * 96 * 48
    (kernel,) = gpu_model.kernels([code(["FFMA"] * 1024)], ["fprop_patch_kernel<FfmaImageTile<2, 2, 4, 3, 3>>(int)"])
    assert (kernel.name, kernel.tile.depth) == ("patch fprop fp32 patch 128x64", 16)


def test_weight_gradients_that_read_patches_of_the_image_in_float32():
    """A k-tile is 16 pixels of dy, four a turn, of whose filters 16 lanes read 256 bytes at once."""
    ffma = code(["BAR.SYNC"] * 4, ["FFMA"] * 504 + ["LDS.128"] * 32 + ["LDS.64"] * 4)
    (kernel,) = gpu_model.kernels([ffma], ["void wgrad_patch_kernel<FfmaWgradImageTile<4, 6, 7, 3, 3, 2> >(ConvShape)"])
    assert kernel.name == "patch wgrad fp32 patch 96x168, 3 channels"
    assert kernel.counts.instructions == 4 + 4 * 540
    assert kernel.dynamic_shared == 4 * (256 + 64) + 1824 * 16 + 3 * 64 * 96
    cycles = kernel.cycles(H200)
    assert cycles["shared"] == 4 * (4 * 36 + 16)
    assert cycles["L2"] == 96 * 64 / 28
    assert kernel.share(H200) == pytest.approx(4 * 504 / 2164)
    (kernel,) = gpu_model.kernels(
        [code(["FFMA"] * 1792)], ["wgrad_patch_kernel<FfmaWgradImageTile<4, 4, 7, 4, 3, 2>>(i)"]
    )
    assert (kernel.name, kernel.tile.depth) == ("patch wgrad fp32 patch 64x224", 16)


def test_a_main_loop_that_is_not_one_k_tile_is_an_error():
    kernel = gpu_model.Kernel.parse(code(["HMMA.16816.F32.BF16"] * 2 * _HMMA), FPROP)
    with pytest.raises(
        ValueError, match=r"fprop bf16 mma 128x128, 16/16 B: 262144 multiply-adds .* 131072 are a k-tile's"
    ):
        _ = kernel.counts


def test_other_kernels_are_no_products():
    names = ["void pool_kernel<8>(int)", "void fprop_kernel<Other<1>, 8, true>(int)", FPROP]
    codes = [code(["FFMA"]), code(["FFMA"]), gpu_sass.Code("mangled", 32, 0, 0, 9, None, code([]).way)]
    assert gpu_model.kernels(codes, names) == []


def test_a_kernel_that_memory_bounds():
    """16 bytes of a thread to and fro, and too many instructions."""
    few = code(["LDG.E.128", "STG.E.128", *["MUFU.RSQ"] * 4])
    many = code(["LDG.E.128", "STG.E.128", *["MUFU.RSQ"] * 4, *["LOP3.LUT"] * 230])
    names = [f"void norm_of_five_kernel<{element}, true>(int)" for element in ("float", "__nv_bfloat16")]
    bf16, fp32 = gpu_memory.kernels([(names[0], few), (names[1], many), ("void fill_kernel<1>(int)", few)])
    assert (fp32.name, fp32.elements, fp32.bytes) == ("norm fp32", 4, 32)
    assert (bf16.name, bf16.elements, bf16.bytes) == ("norm bf16", 8, 32)
    memory = 32 * 32 / (4.3e12 / 132 / 1.83e9)
    assert {term: cycles for term, cycles in fp32.cycles(H200).items() if cycles} == {
        "xu": 8,
        "shared": 8,
        "issue": 1.5,
        "memory": pytest.approx(memory),
    }
    assert (fp32.bound(H200), fp32.share(H200)) == ("memory", 1)
    assert (bf16.bound(H200), bf16.share(H200)) == ("alu", pytest.approx(memory / 115))


# ---- The record ------------------------------------------------------------------------------------------------------


def test_what_has_changed(record, recorded):
    assert gpu_static.changes(record["kernels"], recorded) == []
    first, second, third, *others = record["kernels"]
    grown = [
        first | {"instructions": int(first["instructions"] / 1.09)},
        second | {"instructions": second["instructions"] // 2},
        *others,
        first | {"name": "old"},
    ]
    more = f"{second['instructions'] // 2} -> {second['instructions']} instructions, 100% more"
    expected = [f"{second['name']}: {more}", f"{third['name']} is new", "old is gone"]
    assert gpu_static.changes(grown, recorded) == sorted(expected)


def test_the_tables_say_what_they_are(tmp_path, record):
    contents = {**record, "kernels": record["kernels"][:1], "layers": record["layers"][:3]}
    gpu_static.write(tmp_path / "found", "sm_90a", contents)
    assert json.loads((tmp_path / "found.json").read_text()) == contents
    for path in (tmp_path / "found.md", gpu_static.RESULTS / "gpu-static-sm_90a.md"):
        assert path.read_text().startswith(
            "# What the machine code for sm_90a allows: a bound from the machine code, not a measurement\n"
        )
    assert record["what"] == gpu_static.NOTICE


def test_an_object_file(cuobjdump, tmp_path, monkeypatch, capsys):
    """With a product, a kernel that moves data, and another."""
    path = os.environ["PATH"]
    name = "_ZN6zfcuda4conv12fprop_kernelINS0_7MmaTileINS_4Bf16ELi2ELi2ELi64ELi64ELi4ELi2EEELi8ELb1EEEvi"
    products = ["HMMA.16816.F32.BF16 R12, R8, R10, R12"] * _HMMA
    loop = ["head: BAR.SYNC.DEFER_BLOCKING 0x0", *products, "@P0 BRA <head>", "EXIT"]
    relu = disassembly("EXIT", name="_ZN6zfcuda11relu_kernelIfLb1EEEvl")
    every = zip(disassembly(*loop, name=name), disassembly("EXIT", name="_ZN6zfcuda4poolEv"), relu, strict=True)
    for part, texts in zip(("sass", "usage"), every, strict=True):
        (tmp_path / part).write_text("".join(texts))
    module = cuobjdump(
        "case $* in *-sass*) cat ${0%/*}/sass;; *-res-usage*) cat ${0%/*}/usage;;",
        "-lelf*) echo 'ELF file    1: fprop.sm_90a.cubin';;",
        "-elf*) echo 'Tool Version: Cuda compilation tools, release 13.0, V13.0.88';; esac",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    assert gpu_static.main([str(module), "--out", str(tmp_path / "results")]) == 0
    assert "1 products, 2 other kernels; a bound from the machine code, not a measurement\n" in capsys.readouterr().out
    found = json.loads((tmp_path / "results" / "gpu-static-sm_90a.json").read_text())
    assert found["facts"] == {"compiler": "CUDA 13.0, V13.0.88", "files": "module.so", "batch": 128}
    text = (tmp_path / "results" / "gpu-static-sm_90a.md").read_text()
    assert "longer. files: module.so; compiler: CUDA 13.0, V13.0.88.\n" in text
    assert [(one["name"], one["instructions"]) for one in found["kernels"]] == [("fprop bf16 mma 128x128, 16/16 B", 66)]
    assert [one["name"] for one in found["others"]] == ["pool", "relu_kernel<float, true>"]
    assert [(one["name"], one["instructions"], one["share"]["H200"]) for one in found["memory"]] == [
        ("relu fp32", 1, 1)
    ]
    assert {*map(tuple, (one["kernels"] for one in found["layers"]))} == {("fprop bf16 mma 128x128, 16/16 B",)}
    text = (tmp_path / "results" / "gpu-static-sm_90a.md").read_text()
    # Four blocks on the busiest SM, each 72 k-tiles of 256 * 64 / 28 cycles and a third of 2,500 more, at 1.83 GHz.
    assert "| zfnet conv3 | fprop | no kernel | no kernel | 0.0939 / 0.0939 (L2, 41 %) |\n" in text
    assert "zfnet conv1" not in text
    assert "| relu fp32 | 96 | 0.2 | 8.0 | memory | 100 | 100 |\n" in text


def test_an_unknown_compiler(cuobjdump):
    assert gpu_sass.compiler(cuobjdump("exit 0")) == "unknown"


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_the_record_is_of_these_kernels(architecture):
    """Those of the installed CUDA backend: they have not grown, and layers are served as it says."""
    path = gpu_static.RESULTS / f"gpu-static-{architecture}.json"
    try:
        kernels, others = gpu_static.analyse([gpu_static.installed_module()], architecture)
    except (FileNotFoundError, gpu_sass.NoCodeError) as missing:
        pytest.skip(str(missing))
    recorded = json.loads(path.read_text())
    gpus = [gpu for gpu in gpu_model.GPUS if gpu.architecture == architecture]
    served = ("layer", "direction", "precision", "kernels", "splits")
    predicted = json.loads(json.dumps(gpu_static._layer_records(kernels, gpus, recorded["facts"]["batch"])))
    before, now = ([{what: one[what] for what in served} for one in every] for every in (recorded["layers"], predicted))
    assert before == now
    changes = gpu_static.changes(recorded["kernels"], kernels)
    changes += gpu_static.changes(recorded["memory"], gpu_memory.kernels(others))
    assert changes == [], "python benchmarks/gpu_static.py writes a new record, and the commit says why"
