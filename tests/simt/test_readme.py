"""The example in csrc/simt/README.md: its commands, run as they stand, print what the page says."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_example(tmp_path):
    pytest.importorskip("zfcuda._selftest_checked", reason="needs a build with ZFCUDA_CHECKED=ON")
    text = (ROOT / "csrc/simt/README.md").read_text()
    kernel, test, count = re.findall(r"```cpp\n(.*?)```", text, re.DOTALL)
    commands = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]
    report, counted = (
        re.search(rf"```\n({start}.*?)```", text, re.DOTALL)[1] for start in ("race: ", "reverse.cu:6: ")
    )
    (tmp_path / "reverse_test.cpp").write_text(test)

    def run(commands):
        script = f"ZFCUDA={ROOT}\n{commands}"
        return subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)

    (tmp_path / "reverse.cu").write_text(kernel)
    broken = run(commands)
    assert broken.stdout.replace(f"{tmp_path}/", "") == report, broken.stderr
    assert broken.returncode == 1

    before, load, after = kernel.partition("    if (i < n) tile[threadIdx.x] = x[i];\n")
    (tmp_path / "reverse.cu").write_text(before + load + "    __syncthreads();\n" + after)
    commands = commands.partition("\n")[2]  # the emulator is compiled already
    fixed = run(commands)
    assert (fixed.returncode, fixed.stdout) == (0, ""), fixed.stderr

    before, launch, after = test.partition("        reverse_each_256(n, x.data(), y.data(), nullptr);\n")
    include, begin = '#include "simt/bank_conflicts.h"\n', "        simt::count_bank_conflicts(true);\n"
    (tmp_path / "reverse_test.cpp").write_text(include + before + begin + launch + count + after)
    assert run(commands).stdout.replace(f"{tmp_path}/", "") == counted
