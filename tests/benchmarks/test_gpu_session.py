"""benchmarks/gpu_session.py: rehearsed as a whole, and what it says of stages that do not come to their end."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gpu_session
import gpu_smoke
import harness
import pytest
import record

from tests.benchmarks.test_gpu import REPOSITORY
from zfcuda import backends
from zfcuda._build_info import BUILD

SCRIPT = REPOSITORY / "benchmarks" / "gpu_session.py"
FIRST = ["smoke", "tests", "layers", "blocks and memory", "step and forward", "tuned plans", "counters"]
SECOND = ["memcheck", "racecheck", "analyses", "AlexNet"]


@pytest.fixture
def session(tmp_path):
    """A session of a minute, in tmp_path."""
    return gpu_session.Session(tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"}, 60)


def rehearse(out, *arguments):
    command = [sys.executable, SCRIPT, "--rehearse", "--out", out, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=out.parent)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    facts = json.loads((out / "facts.json").read_text())
    return {name.removeprefix("stage "): said for name, said in facts.items() if name.startswith("stage ")}, facts


def test_a_rehearsal(tmp_path):
    """Of all stages of both calls, with the emulated kernels."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    out = tmp_path / "results"
    said, facts = rehearse(out, "--seconds", "1000000")
    assert list(said) == FIRST
    assert said["tests"].startswith("6 passed, in ")
    assert all(outcome.startswith("done in ") for name, outcome in said.items() if name != "tests")
    assert facts["zfcuda"].endswith("/zfcuda")

    rows = record.Record(out).rows()
    smoke = [row for row in rows if row.direction == "smoke"]
    assert len(smoke) == len(gpu_smoke.checks())
    assert {row.note for row in smoke} == {""}
    assert [row for row in rows if row.ours_ms is None] == smoke
    assert {row.direction for row in rows} >= {"smoke", "fprop", "wgrad", "block", "unpool", "norm", "step", "tune"}
    assert {row.setting for row in rows} >= {"fp32", "tf32", "bf16", "bf16, tuned"}
    step = next(row for row in rows if row.direction == "step")
    assert {"ours", "channels_last"} == set(step.plain_ms) == set(step.host_us)
    assert "| zfnet net, batch 2 | step | fp32 |" in (out / "table.md").read_text()
    log = (out / "session.log").read_text()
    assert log.count("profiled: ") == 6
    assert log.startswith("zfcuda: ")

    said, _ = rehearse(out, "--second", "--seconds", "1000000")
    assert list(said) == FIRST + SECOND
    assert {"projection", "occlusion", "curves"} <= {row.direction for row in record.Record(out).rows()}


# ---- Stages that do not come to their end -------------------------------------------------------------------------


def shell(name, script, seconds=20.0, **options):
    return gpu_session.Stage(name, seconds, ("/bin/sh", "-c", script), **options)


def test_a_stage_that_takes_too_long_is_ended_and_the_next_one_begins(session, tmp_path):
    """The first has six seconds of an hour."""
    session._end = time.monotonic() + 3600
    slow = "echo begun; sleep 1000 & sleep 1000"
    assert session.run([shell("slow", slow, 6.0), shell("next", "echo next", 3594.0)])
    facts = session.record.facts()
    assert facts["stage slow"].startswith("not measured in full: out of time, after ")
    assert facts["stage next"].startswith("done in ")
    assert "begun" in (tmp_path / "session.log").read_text()


def test_a_stage_that_fails_is_not_right(session):
    assert not session.run([shell("bad", "exit 9"), shell("next", "true")])
    assert session.record.facts()["stage bad"].startswith("not right: it ended with 9, after ")
    assert session.record.facts()["stage next"].startswith("done in ")


def test_a_stage_without_its_tool_or_without_time_is_not_measured(session):
    assert session.run([gpu_session.Stage("counters", 9, ("no-such-ncu", "true"), "no-such-ncu")])
    assert session.record.facts()["stage counters"] == "not measured: no-such-ncu is not there"
    session._end = time.monotonic() + 3
    assert session.run([shell("late", "true")])
    assert session.record.facts()["stage late"] == "not measured: out of time"
    assert not session.whole


@pytest.mark.parametrize(
    ("measured", "whole", "said"),
    [("25 of 25", True, "done in 0 s: 25 of 25"), ("0 of 25", False, "not measured in full, in 0 s: 0 of 25")],
)
def test_how_many_problems_a_stage_measured(session, measured, whole, said):
    assert session.run([shell("blocks", f"echo 'measured: {measured} problems that could be'")])
    assert session.whole is whole
    assert session.record.facts()["stage blocks"] == f"{said} problems"


def test_a_session_that_measured_nothing_says_so_by_its_exit_status(tmp_path):
    command = [sys.executable, SCRIPT, "--rehearse", "--out", tmp_path / "results", "--seconds", "0.001"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 4, run.stderr
    assert run.stdout.count("not measured: out of time") == len(FIRST)


def test_a_session_that_measured_nothing_is_not_of_the_build_before(tmp_path):
    earlier = record.Record(tmp_path)
    earlier.note({"name": "a GPU", "commit": "abc", "stage memcheck": "done in 9 s"})
    earlier.add(harness.Row("zfnet", "conv1", "fprop", "fp32", ours_ms=2.0))
    command = [sys.executable, SCRIPT, "--rehearse", "--out", tmp_path, "--seconds", "0.001"]
    assert subprocess.run(command, capture_output=True, cwd=tmp_path).returncode == 4
    facts = record.Record(tmp_path).facts()
    assert facts.pop("commit") == BUILD["commit"]
    assert list(facts) == [f"stage {name}" for name in FIRST]
    assert json.loads((tmp_path / "facts.json.old").read_text())["commit"] == "abc"
    assert record.Record(tmp_path).rows() == []


@pytest.mark.parametrize(
    "printed",
    [
        "wrong: zfnet conv1, batch 128 fprop fp32",
        "conv2d fp32: error 1.0e+00, wrong",
        "========= Invalid __global__ read of size 4 bytes",
        "========= ERROR SUMMARY: 3 errors",
    ],
)
def test_what_was_wrong_before_the_time_was_over_is_not_right(session, printed, monkeypatch):
    monkeypatch.setattr(gpu_session, "_GRACE", 0.0)
    session._end = time.monotonic() + 3600
    assert not session.run([shell("slow", f"echo begun; echo '{printed}'; sleep 1000", 1.0), shell("", "true", 3599.0)])
    assert session.record.facts()["stage slow"].startswith("not right, and not measured in full: out of time, after ")


@pytest.mark.parametrize(
    "printed", ["| zfnet conv1 | eager is wrong: 1.0 from ours |", "========= COMPUTE-SANITIZER", "error 1e-7"]
)
def test_what_was_not_wrong_before_the_time_was_over(printed):
    assert not gpu_session._WRONG.search(f"begun\n{printed}\n========= ERROR SUMMARY: 0 errors\n")


def test_a_report_is_of_this_session_and_whole(session, tmp_path):
    """That of an earlier one goes, and a tool that may not read the counters writes none of theirs."""
    report = tmp_path / "counters.csv"
    report.write_text('"ID","Kernel Name"')
    options = {"report": report.name, "says": '"Kernel Name"'}
    assert session.run([shell("counters", f"echo ERR_NVGPUCTRPERM > {report}", **options)])
    assert session.record.facts()["stage counters"] == 'not measured: counters.csv does not say "Kernel Name"'
    assert not session.whole
    assert session.run([shell("counters", f"echo '\"Kernel Name\"' > {report}", **options)])
    assert session.record.facts()["stage counters"].startswith("done in ")
    session._end = time.monotonic() + 3
    assert session.run([shell("counters", "true", **options)])
    assert not report.exists()


def test_what_an_earlier_session_said_of_a_stage_counts_no_more(session):
    session.record.note({"stage first": "done in 1 s", "stage second": "done in 1 s"})
    session._output = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        session.run([shell("first", "true"), shell("second", "true")])
    facts = session.record.facts()
    assert {facts["stage first"], facts["stage second"]} == {"not measured: the session was stopped"}


def test_stages_keep_what_is_said_of_them_where_facts_are_set_aside(session):
    assert session.run([shell("first", "true"), shell("second", "rm facts.json")])
    assert set(session.record.facts()) == {"stage first", "stage second"}


def test_what_a_stage_leaves_running_is_ended(session, tmp_path):
    session.run([shell("left", "sleep 1000 & echo $! > pid")])
    assert ends(tmp_path / "pid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_session_that_is_stopped_leaves_no_stage_running(number, tmp_path):
    (tmp_path / "session.py").write_text(STOPPED.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), str(REPOSITORY)])}
    with subprocess.Popen([sys.executable, tmp_path / "session.py"], env=environment) as process:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
    assert process.returncode
    assert ends(pid)
    assert record.Record(tmp_path).facts() == {"stage slow": "not measured: the session was stopped"}
    assert "- stage slow: not measured: the session was stopped\n" in (tmp_path / "table.md").read_text()


STOPPED = """
import os, signal
from pathlib import Path
import gpu_session

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
gpu_session.exit_when_stopped()
command = "/bin/sh", "-c", "echo $$ > pid; sleep 1000"
folder = Path({folder!r})
gpu_session.Session(folder, folder, os.environ, 3600).run([gpu_session.Stage("slow", 1.0, command)])
"""


def ends(pid):
    """Whether the process whose number is in this file does, soon."""
    status = Path(f"/proc/{int(pid.read_text())}/stat")
    for _ in range(100):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


LOG = """
[gw1] [  1%] PASSED tests/kernels/test_pool.py::test_max_pool2d[cuda-0]
[gw0] [  2%] SKIPPED tests/simt/test_golden.py::test_a_gpu_is_the_emulator[vote]
"""
FAILS = "[gw0] [100%] FAILED tests/kernels/test_pool.py::test_max_pool2d[cuda-1]\n"


@pytest.mark.parametrize(
    ("log", "status", "passed", "said"),
    [
        (LOG, 0, True, "1 passed, 1 skipped"),
        (LOG + FAILS, 1, False, "1 passed, 1 skipped, 1 failed; pytest ended with 1"),
        (LOG, None, True, f"{harness.NOT_MEASURED}: out of time; by then 1 passed, 1 skipped"),
        (LOG + FAILS, None, False, f"{harness.NOT_MEASURED}: out of time; by then 1 passed, 1 skipped, 1 failed"),
        ("", None, True, f"{harness.NOT_MEASURED}: out of time; by then none ran"),
        ("", 5, False, "none ran; pytest ended with 5"),
        (LOG.replace("PASSED", "SKIPPED"), 0, False, "2 skipped: none passed"),
    ],
)
def test_what_is_said_of_the_tests(log, status, passed, said):
    """A time-out is no success: nothing says "passed" but pytest at its end."""
    assert gpu_session.tests_outcome(log, status) == (passed, said)


# ---- The package that is measured ----------------------------------------------------------------------------------


def test_the_checkout_is_not_what_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert gpu_session.main(["--out", str(tmp_path)]) == 3
    assert f"no installed zfcuda to measure: {REPOSITORY}/zfcuda/__init__.py" in capsys.readouterr().err


def test_a_wheel_is_found_before_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with zipfile.ZipFile(tmp_path / "zfcuda-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("zfcuda/__init__.py", "")
        wheel.writestr("zfcuda-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zfcuda\nVersion: 0.1.0\n")
        wheel.writestr("zfcuda-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("zfcuda-0.1.0.dist-info/RECORD", "")
    environment = gpu_session.installed(tmp_path, tmp_path)
    # An interpreter without an editable install, whose hook comes before every path.
    monkeypatch.setattr(sys, "executable", sys._base_executable)
    assert gpu_session.whereabouts(tmp_path, environment) == str(tmp_path / "site" / "zfcuda" / "__init__.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wheels", "."], "--wheels must have the wheel of zfcuda in it, of which . has 0"),
        (["--wheels", "two"], "--wheels must have the wheel of zfcuda in it, of which two has 2"),
        (["--seconds", "0"], "--seconds must be positive, got 0.0"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").mkdir()
    for build in ("1", "2"):
        (tmp_path / "two" / f"zfcuda-0.1.0-{build}-py3-none-any.whl").touch()
    with pytest.raises(SystemExit) as exit_:
        gpu_session.main(["--out", "results", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
