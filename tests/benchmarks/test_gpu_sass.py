"""benchmarks/gpu_sass.py: loops, pipes and resources in what cuobjdump prints, and where cuobjdump is found."""

import types

import gpu_sass
import pytest


def disassembly(*lines, name="kernel", architecture="sm_90a", shared=1024):
    """What cuobjdump prints, -sass and -res-usage, of a kernel whose lines may begin with a label and name labels."""
    split = [line.rpartition(": ") for line in lines]
    labels = {f"<{label}>": f"0x{16 * i:x}" for i, (label, _, _) in enumerate(split) if label}
    sass = f'\tcode for {architecture}\n\t\tFunction : {name}\n\t.headerflags\t@"EF_CUDA"\n'
    for i, (_, _, text) in enumerate(split):
        for label, address in labels.items():
            text = text.replace(label, address)
        sass += (
            f"        /*{16 * i:04x}*/    {text} ;    /* 0x0000000a00017a02 */\n{' ' * 40}/* 0x000fe40000000f00 */\n"
        )
    usage = f" Function {name}:\n  REG:96 STACK:8 SHARED:{shared} LOCAL:4 CONSTANT[0]:732 TEXTURE:0\n"
    return sass, usage


def parse(*lines, architecture="sm_90a", **options):
    (code,) = gpu_sass.parse(*disassembly(*lines, architecture=architecture, **options), architecture)
    return code


def counted(counts):
    return {pipe: count for pipe, count in counts.pipes.items() if count}


def test_resources():
    code = parse("LDC R1, c[0x0][0x28]", "EXIT", "NOP", shared=3072)
    assert (code.name, code.registers, code.stack, code.shared, code.instructions) == ("kernel", 96, 12, 2048, 2)
    assert code.loop is None
    assert parse("EXIT", architecture="sm_80", shared=2048).shared == 2048  # where nothing is the system's


def test_main_loop():
    """The loop over k-tiles, neither what stands in front of it nor the loop over the epilogue's rows behind it."""
    code = parse(
        "FFMA R0, R1, R2, R3",
        "head: DEPBAR.LE SB0, 0x2",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "@!P0 BRA <read>",
        "LDGSTS.E.BYPASS.LTC128B.128 [R4], desc[UR4][R6.64], P1",
        "read: LDSM.16.M88.4 R8, [R5]",
        "HMMA.16816.F32.BF16 R12, R8, R10, R12",
        "HMMA.16816.F32.BF16 R16, R8, R11, R16",
        "UIADD3 UR4, UR4, -0x1, URZ",
        "ISETP.NE.AND P0, PT, R20, RZ, PT",
        "@P0 BRA <head>",
        "rows: STG.E.128 desc[UR4][R2.64], R12",
        "@P2 BRA <rows>",
        "EXIT",
    )
    loop = code.loop
    assert loop.repeated.instructions == 0
    assert counted(loop.once) == {"tensor": 2, "alu": 1, "shared": 1, "copy": 1, "uniform": 1, "control": 4}
    assert loop.once.moved == 4 + 4  # 512 bytes copied, as many read
    assert loop.once.multiply_adds == 2 * 16 * 8 * 16


def test_loops_in_the_main_loop():
    """One with products repeats, one without memory is seldom entered, any other counts once."""
    code = parse(
        "head: BAR.SYNC.DEFER_BLOCKING 0x0",
        "copy: LDG.E.U16 R4, desc[UR4][R6.64]",
        "STS.U16 [R5], R4",
        "@P1 BRA <copy>",
        "next: IADD3 R7, R7, -0x20, RZ",
        "@P2 BRA <next>",
        "depth: LDS.128 R8, [R5]",
        "FFMA R12, R8, R10, R12",
        "FFMA R13, R9, R10, R13",
        "@P3 BRA <depth>",
        "@P4 BRA <head>",
        "EXIT",
    )
    assert counted(code.loop.once) == {"shared": 1, "global": 1, "control": 3}
    assert counted(code.loop.repeated) == {"fma": 2, "shared": 1, "control": 1}
    assert code.loop.repeated.multiply_adds == 64


def test_loops_that_only_copy_are_kept_apart():
    code = parse(
        "head: BAR.SYNC.DEFER_BLOCKING 0x0",
        "patch: LDS R7, [R40]",
        "LDGSTS.E.BYPASS.128 [R39], desc[UR6][R6.64], P2",
        "@!P0 BRA <patch>",
        "filters: LDGSTS.E.BYPASS.128 [R39], desc[UR6][R6.64]",
        "@!P1 BRA <filters>",
        "taps: HMMA.16816.F32.BF16 R12, R8, R10, R12",
        "@P2 BRA <taps>",
        "@P3 BRA <head>",
        "EXIT",
    )
    assert counted(code.loop.once) == {"control": 2}
    assert counted(code.loop.repeated) == {"tensor": 1, "control": 1}
    expected = [{"shared": 1, "copy": 1, "control": 1}, {"copy": 1, "control": 1}]
    assert [counted(one) for one in code.loop.copies] == expected


def test_a_loop_may_lie_apart():
    """A part of the main loop behind its end, and a loop with the kernel's exit in it."""
    code = parse(
        "head: BAR.SYNC.DEFER_BLOCKING 0x0",
        "@P0 BRA <apart>",
        "back: HMMA.1688.F32.TF32 R12, R8, R10, R12",
        "@!P1 EXIT",
        "BRA <head>",
        "F2F.F64.F32 R2, R2",
        "EXIT",
        "apart: MUFU.RCP R4, R4",
        "BRA <back>",
    )
    assert counted(code.loop.once) == {"tensor": 1, "xu": 1, "control": 5}


def test_a_loop_may_be_left_by_a_call():
    """As on sm_80: "@P0 CALL <behind>; BRA <head>" is a conditional branch."""
    code = parse(
        "head: BAR.SYNC.DEFER_BLOCKING 0x0",
        "depth: FFMA R12, R8, R10, R12",
        "@P0 CALL.REL.NOINC <behind>",
        "BRA <depth>",
        "behind: IADD3 R7, R7, -0x1, RZ",
        "@!P1 CALL.REL.NOINC <end>",
        "BRA <head>",
        "end: EXIT",
    )
    assert counted(code.loop.once) == {"alu": 1, "control": 3}
    assert counted(code.loop.repeated) == {"fma": 1, "control": 2}


def test_the_way_of_a_kernel_that_moves_data():
    """Whole vectors, not the tail of scalars, which moves as much; a border's load; no loop, nor its bytes."""
    code = parse(
        "S2R R0, SR_TID.X",
        "@P0 EXIT",
        "@P1 BRA <tail>",
        "LDG.E.128 R4, desc[UR4][R2.64]",
        "@P2 BRA <inside>",
        "LDG.E.U8 R8, desc[UR4][R2.64+0x10]",
        "inside: MUFU.RSQ R4, R4",
        "@P3 BRA <store>",
        "again: LDG.E.64 R4, desc[UR4][R2.64]",
        "@P4 BRA <again>",
        "store: STG.E.128 desc[UR6][R2.64], R4",
        "EXIT",
        *["tail: LDG.E R4, desc[UR4][R2.64]", *["LDG.E R4, desc[UR4][R2.64]"] * 3],
        *["STG.E desc[UR4][R2.64], R4"] * 4,
        "EXIT",
    )
    assert counted(code.way) == {"xu": 1, "global": 3, "control": 6}
    assert code.way.moved == 4 + 1 + 4


def test_the_same_kernel_in_two_objects_counts_once():
    sass, usage = disassembly("EXIT")
    other, _ = disassembly("EXIT", name="other", architecture="sm_80")
    (code,) = gpu_sass.parse(sass + other + sass, usage + usage, "sm_90a")
    assert code.instructions == 1


@pytest.mark.parametrize(
    ("opcode", "pipe", "moved"),
    [
        ("STS.64", "shared", 2),
        ("LDS.128", "shared", 1),
        ("LDSM.16.MT88.2", "shared", 2),
        ("LDGSTS.E", "copy", 1),
        ("STG.E.U8", "global", 1),
        ("IMAD.MOV.U32", "imad", 0),
        ("VIADD", "alu", 0),
        ("ULDC.64", "uniform", 0),
        ("HGMMA.64x256x16.F32.BF16", "tensor", 0),
    ],
)
def test_pipes(opcode, pipe, moved):
    one = gpu_sass.Instruction(0, opcode, "", False)
    assert (one.pipe, one.moved) == (pipe, moved)
    assert one.multiply_adds == (64 * 256 * 16 / 4 if pipe == "tensor" else 0)


def test_cuobjdump_beside_nvcc_or_from_a_wheel(tmp_path, monkeypatch):
    """Of which only nvcc is on PATH, as a link into the toolkit."""
    places = [tmp_path / "toolkit" / "bin" / "cuobjdump", tmp_path / "nvidia" / "cu13" / "bin" / "cuobjdump"]
    for program in (*places, tmp_path / "toolkit" / "bin" / "nvcc"):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        program.chmod(0o755)
    (tmp_path / "nvcc").symlink_to(tmp_path / "toolkit" / "bin" / "nvcc")
    monkeypatch.setenv("PATH", str(tmp_path))
    wheels = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: wheels if name == "nvidia" else None)
    assert gpu_sass.find_tool("cuobjdump") == str(places[0])
    places[0].unlink()
    assert gpu_sass.find_tool("cuobjdump") == str(places[1])
