"""Networks from the files of torch.export.save, against those from the modules themselves."""

import contextlib
import json
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

from torch import nn  # noqa: E402

from tests.interop.modules import MODULES, as_input, images, make  # noqa: E402
from zfcuda import CheckpointError  # noqa: E402
from zfcuda.interop import pt2  # noqa: E402


def saved(name, path, **options):
    shape, module = make(name)
    x = as_input(images(shape, 2), module).float()
    torch.export.save(torch.export.export(module, (x,), strict=False, **options), path)
    return shape, module


@pytest.mark.parametrize("name", MODULES)
def test_files(name, tmp_path, nets):
    saved(name, tmp_path / "model.pt2")
    net, expected = pt2.load(tmp_path / "model.pt2"), nets(name)[1]
    assert net.architecture == expected.architecture
    for key, array in (expected.parameters() | expected.state()).items():
        np.testing.assert_array_equal((net.parameters() | net.state())[key], array)


def test_files_of_any_batch(tmp_path, nets):
    batch = torch.export.Dim("batch", min=2, max=64)
    saved("inception", tmp_path / "model.pt2", dynamic_shapes=({0: batch},))
    assert pt2.load(tmp_path / "model.pt2").architecture == nets("inception")[1].architecture
    height = torch.export.Dim("height", min=8, max=64)
    _, module = make("mobile")
    exported = torch.export.export(module, (torch.zeros(2, 4, 13, 16),), dynamic_shapes=({2: height},), strict=False)
    torch.export.save(exported, tmp_path / "open.pt2")
    with pytest.raises(CheckpointError, match="has open sizes: export it with fixed ones"):
        pt2.load(tmp_path / "open.pt2")


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    """Neither unpickled nor evaluated, and PyTorch is not asked."""
    saved("shuffle", tmp_path / "model.pt2")

    def refuse(*arguments, **options):
        raise AssertionError("the file was executed")

    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr("torch.export.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    pt2.load(tmp_path / "model.pt2")


def test_files_that_are_no_programs(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(FileNotFoundError, match="no exported program at "):
        pt2.load(path)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"model\.pt2: no file of torch.export.save"):
        pt2.load(path)
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"model\.pt2: no file of torch.export.save, or one that is damaged"):
        pt2.load(path)
    saved("plain", path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError):
            pt2.load(path)
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):  # or it is another program
            pt2.load(path)


def test_a_tensor_that_stands_on_one_number(tmp_path):
    """Strides of 0 make terabytes of a file of four bytes."""
    saved("plain", tmp_path / "whole.pt2")
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole, zipfile.ZipFile(tmp_path / "model.pt2", "w") as changed:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("weights_config.json"):
                described = json.loads(content)
                meta = next(iter(described["config"].values()))["tensor_meta"]
                meta["sizes"], meta["strides"] = 2 * [{"as_int": 2**15}], 2 * [{"as_int": 0}]
                content = json.dumps(described)
            changed.writestr(name, content)
    with pytest.raises(
        CheckpointError, match=r"of \[32768, 32768\] repeats the numbers of .*; at most 16,777,216 may be"
    ):
        pt2.load(tmp_path / "model.pt2")
