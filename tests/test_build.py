"""What the build says of processors and of CUDA: which nvcc was tried, what it answered, what to do.

Configured, never compiled.
"""

import os
import platform
import runpy
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

SOURCE = Path(__file__).parents[1]
CMAKE, NINJA = shutil.which("cmake"), shutil.which("ninja")
PYBIND = Path(pybind11.__file__).parent

pytestmark = pytest.mark.skipif(not (CMAKE and NINJA), reason="needs cmake and ninja: pip install 'zfcuda[test]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("build")


@pytest.fixture
def configure(folder, tmp_path):
    """Configures a build -> (exit status, what CMake printed, in one line); nvcc: a shell script on the PATH."""

    def run(setting="AUTO", nvcc=None, *, isa="AUTO", source=SOURCE, build=folder, pybind=PYBIND, **environment):
        path = [str(tmp_path), *(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "nvcc").exists())]
        environment = {**os.environ, "CUDACXX": "", "PATH": os.pathsep.join(path), **environment}
        if nvcc:
            script(tmp_path / "nvcc", nvcc)
        command = [
            CMAKE,
            "-G",
            "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={NINJA}",
            "-S",
            source,
            "-B",
            build,
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        command += [f"-Dpybind11_DIR={pybind}/share/cmake/pybind11"]
        command += [f"-DZFCUDA_CUDA={setting}", f"-DZFCUDA_CPU_ISA={isa}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def info(folder):
    return runpy.run_path(str(folder / "_build_info.py"))


def built(folder):
    """What `zfcuda info` would say."""
    return info(folder)["BUILT"]["cuda"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one instruction set")
def test_instruction_sets_are_those_of_this_machine_or_all(configure, folder):
    needed = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    has_avx512 = needed <= set(Path("/proc/cpuinfo").read_text().split())
    for isa in ("AUTO", "all", "auto"):  # what an earlier answer was does not matter
        assert configure("OFF", isa=isa)[0] == 0
        built_for = info(folder)["BUILT"]["cpu"]
        if isa == "all" or has_avx512:
            assert built_for == "yes (baseline, avx2, avx512)"
        else:
            assert built_for.startswith("yes (baseline, avx2; not avx512, which this machine has not: ZFCUDA_CPU_ISA")
    status, said = configure("OFF", isa="mmx")
    assert status != 0
    assert 'ZFCUDA_CPU_ISA must be AUTO or ALL, got "mmx"' in said


_RELEASE = "echo 'Cuda compilation tools, release {}, V1'"


@pytest.mark.parametrize("setting", ["OFF", "off", "no", "0", "false", "N", ""])
def test_off(configure, folder, setting):
    status, _ = configure(setting, nvcc="exit 1")
    assert status == 0
    assert built(folder) == "no (ZFCUDA_CUDA=OFF)"


@pytest.mark.parametrize("setting", ["ON", "on", "yes", "1", "True"])
def test_on_stops_where_it_cannot_be(configure, setting):
    status, said = configure(setting)
    assert status != 0
    assert f"ZFCUDA_CUDA is {setting}, but the CUDA backend cannot be built: no nvcc on the PATH: install" in said


def test_another_word(configure):
    status, said = configure("maybe")
    assert status != 0
    assert 'ZFCUDA_CUDA must be ON, OFF or AUTO, got "maybe"' in said


@pytest.mark.parametrize(
    ("nvcc", "says"),
    [
        (None, "no nvcc on the PATH: install the CUDA toolkit, put its nvcc on the PATH or set CUDACXX to it"),
        (
            r"""printf '%s\n' 'nvcc: error while loading "libm.so\1"' >&2; exit 3""",
            "/nvcc, which the PATH names, does not run: --version failed (3) and said: nvcc: error while loading "
            r'"libm.so\1". Repair it',
        ),
        ("exit 1", "does not run: --version failed (1) and said: nothing."),
        ("echo 'clang version 16'", "is no nvcc: --version says: clang version 16. Have the PATH name an nvcc"),
        (
            _RELEASE.format("11.8"),
            "is of CUDA 11.8, and 12.0 is the oldest that can build zfcuda: install a newer CUDA toolkit, have the "
            "PATH name its nvcc, then install again",
        ),
        (
            f"test $1 = --version && {_RELEASE.format('12.4')} && exit\n"
            "echo 'In file included from a.cu:1:'; echo 'config.h:143: error: unsupported GNU version! gcc 15'; exit 1",
            "cannot compile a kernel: it failed (1) and said: config.h:143: error: unsupported GNU version! gcc 15. "
            "Repair it (CUDAHOSTCXX names the host compiler that it uses)",
        ),
        (_RELEASE.format("12.4"), "nvcc works, but CMake "),
    ],
    ids=["none", "broken", "silent", "another compiler", "old", "host compiler", "only seems to work"],
)
def test_what_nvcc_answers(configure, folder, nvcc, says):
    status, said = configure(nvcc=nvcc)
    assert status == 0
    assert says in built(folder)
    assert f"cuda: {built(folder)}" in said


def test_cudacxx(configure, folder, tmp_path):
    other = tmp_path / "no nvcc"
    assert configure(nvcc="exit 1", CUDACXX=f"'{other}' -O1")[0] == 0
    assert built(folder) == f"no ({other}, which CUDACXX names, is not there: correct CUDACXX, then install again)"
    script(other, "echo nvcc: fatal $1; exit 1")
    assert configure(nvcc="exit 1", CUDACXX=f"'{other}' -O1")[0] == 0
    assert f"({other}, which CUDACXX names, does not run: --version failed (1) and said: nvcc: fatal" in built(folder)


@pytest.mark.parametrize(
    ("nvidia_smi", "architectures"),
    [
        (None, "80-real;90a-real;120-real;90-virtual"),
        ("echo 'Failed to initialize NVML'; exit 9", "80-real;90a-real;120-real;90-virtual"),
        ("echo '[N/A]'", "80-real;90a-real;120-real;90-virtual"),
        ("echo 7.5; echo 8.0", "80-real;90a-real;120-real;90-virtual"),
        ("echo 8.6; echo 8.6", "86-real"),
        ("echo 9.0; echo 8.9", "90a-real;89-real"),
        ("echo 10.0", "90-virtual"),
        ("echo 12.0; echo 12.1", "120-real"),
        ("echo 13.0", "90-virtual"),
    ],
    ids=["none", "no driver", "unknown", "too old", "two of a kind", "two kinds", "no code", "newest", "newer"],
)
def test_architectures_are_those_of_the_gpus_here(tmp_path, nvidia_smi, architectures):
    assert (
        architectures_for(tmp_path, nvidia_smi, "echo compute_80; echo compute_90; echo compute_120") == architectures
    )


@pytest.mark.parametrize("nvcc", ["echo compute_80; echo compute_90", "exit 1"], ids=["12.0", "failing"])
@pytest.mark.parametrize(
    ("nvidia_smi", "architectures"), [(None, "80-real;90a-real;90-virtual"), ("echo 12.0", "90-virtual")]
)
def test_architectures_are_those_that_nvcc_knows(tmp_path, nvcc, nvidia_smi, architectures):
    assert architectures_for(tmp_path, nvidia_smi, nvcc) == architectures


def architectures_for(tmp_path, nvidia_smi, nvcc):
    (tmp_path / "ask.cmake").write_text(
        f"include({SOURCE}/csrc/nvcc.cmake)\nzfcuda_cuda_architectures(found {tmp_path}/nvcc)\n"
        "message(STATUS [${found}])\n"
    )
    script(tmp_path / "nvidia-smi", nvidia_smi or "exit 127")
    script(tmp_path / "nvcc", nvcc)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([CMAKE, "-P", tmp_path / "ask.cmake"], env=environment, capture_output=True, text=True)
    return done.stdout.strip().removeprefix("-- [").removesuffix("]")


def git(folder, *arguments):
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_and_the_compilers(configure, folder, tmp_path):
    """Of a repository: of sources that it does not track, of a clean checkout and of a changed one."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(SOURCE / "CMakeLists.txt", source)
    for name in ("csrc", "tests", "benchmarks"):
        (source / name).symlink_to(SOURCE / name)
    git(tmp_path, "init", "-q")
    assert commit_of(configure, source, folder).startswith("unknown: not built from a git checkout")
    git(tmp_path, "add", "source/CMakeLists.txt")
    git(tmp_path, "commit", "-q", "-m", "One")
    found = commit_of(configure, source, folder)
    assert len(found) == 40
    (source / "CMakeLists.txt").open("a").write("# changed\n")
    assert commit_of(configure, source, folder) == f"{found} with uncommitted changes"
    build = info(folder / "of-commits")["BUILD"]
    assert build["C++ compiler"].endswith(", Release")
    assert build["CUDA compiler, architectures, flags"] == ""


def commit_of(configure, source, folder):
    status, said = configure("OFF", source=source, build=folder / "of-commits")
    assert status == 0, said
    return info(folder / "of-commits")["BUILD"]["commit"]


# Makes nothing of the project's sources, but says which, and that they include pybind11.
_COMPILER = """#!/bin/sh
case " $* " in
*" -c "*/csrc/*) ;;
*" -shared "*) while [ "$1" != -o ]; do shift; done; exec touch "$2" ;;
*) exec c++ "$@" ;;
esac
while [ $# -gt 0 ]; do
    case "$1" in
    -isystem) [ ! -e "$2/pybind11/pybind11.h" ] || header="$2/pybind11/pybind11.h" ;;
    -MF) depends=$2 ;;
    -o) object=$2 ;;
    -c) source=$2 ;;
    esac
    shift
done
echo "$source" >> "$COMPILED"
echo "$object: $source $header" > "$depends"
touch "$object"
"""


def test_what_pip_builds_again_is_not_compiled_again(configure, tmp_path, monkeypatch):
    """Each time in another isolated environment: pybind11 lies in another folder, and scikit-build-core takes away what
    CMake remembers."""
    compiler, log, build = tmp_path / "compiler", tmp_path / "compiled", tmp_path / "build"
    compiler.write_text(_COMPILER)
    compiler.chmod(0o755)
    monkeypatch.setenv("COMPILED", str(log))

    def compiled(environment):
        """How many sources a build in a new environment compiles."""
        shutil.copytree(PYBIND, tmp_path / environment, copy_function=shutil.copyfile)
        status, said = configure("OFF", build=build, pybind=tmp_path / environment, CXX=str(compiler))
        assert status == 0, said
        log.write_text("")
        subprocess.run([NINJA, "-C", build, "_cpu_baseline"], check=True, capture_output=True)
        (build / "CMakeCache.txt").unlink()
        shutil.rmtree(build / "CMakeFiles")
        shutil.rmtree(tmp_path / environment)
        return len(log.read_text().splitlines())

    assert compiled("first") > 20
    assert compiled("second") == 0
    header = build / "csrc/include/pybind11/pybind11.h"
    header.write_text("// another version's")
    assert compiled("third") > 0
