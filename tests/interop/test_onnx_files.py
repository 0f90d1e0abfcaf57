"""zfcuda/interop/onnx.py on files that are damaged, hostile, or whose weights are in others."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, the reference")

from onnx import TensorProto  # noqa: E402

from tests.interop.onnx_models import CLASSIFIER, SMALL, WEIGHTS, model, nhwc, read  # noqa: E402
from tests.interop.onnx_operations import OPERATIONS  # noqa: E402
from zfcuda import CheckpointError  # noqa: E402
from zfcuda.interop import onnx as interop  # noqa: E402


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match="no ONNX file at "):
        interop.load(path)
    for content in (b"", b"a text of no meaning", b"\x89PNG\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no ONNX file"):
            interop.load(path)
    whole = model(CLASSIFIER + "y = Softmax (l)", WEIGHTS).SerializeToString()
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"model\.onnx: "):
            interop.load(path)
    path.write_bytes(model("y = Conv (x, w)", SMALL, opset=6).SerializeToString())
    with pytest.raises(CheckpointError, match="its opset must be 7 or newer, got 6"):
        interop.load(path)


def test_random_damage_is_an_error_or_another_model(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    read_at_all = 0
    for what, (nodes, weights) in OPERATIONS.items():
        whole = model(nodes, weights, ("N", 12, 10, 3) if what == "channels last" else ("N", 3, 12, 10))
        for _ in range(12):
            content = bytearray(whole.SerializeToString())
            for _ in range(rng.integers(1, 4)):
                content[rng.integers(len(content))] = rng.integers(256)
            path.write_bytes(content)
            try:
                interop.load(path)
                read_at_all += 1
            except CheckpointError:
                pass
    assert 20 < read_at_all < 12 * len(OPERATIONS) - 20


@pytest.mark.parametrize("change", [{"dims": [4, 3, 3, 300]}, {"dims": [-4, 3, 3, 3]}, {"data_type": 8}])
def test_damaged_tensors(change, tmp_path):
    proto = model("y = Conv (x, w)", SMALL)
    for name, value in change.items():
        if name == "dims":
            del proto.graph.initializer[0].dims[:]
            proto.graph.initializer[0].dims.extend(value)
        else:
            setattr(proto.graph.initializer[0], name, value)
    with pytest.raises(CheckpointError, match="tensor w "):
        read(proto, tmp_path)


def external(path, location="weights.bin", **entries):
    """A model whose weight is in another file."""
    proto = model("y = Conv (x, w)", SMALL)
    tensor = proto.graph.initializer[0]
    raw = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 8, "length": len(raw), **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    onnx.save(proto, path / "model.onnx")
    return bytes(8) + raw


def test_external_data(tmp_path):
    content = external(tmp_path)
    with pytest.raises(CheckpointError, match="tensor w: its data is missing, "):
        interop.load(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(content)
    net = interop.load(tmp_path / "model.onnx")
    np.testing.assert_array_equal(net.layers["conv"].weight, nhwc(SMALL["w"]))
    (tmp_path / "weights.bin").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"tensor w: bytes 8 to 440 of .* are wanted, which has 439"):
        interop.load(tmp_path / "model.onnx")
    for entries, message in [
        ({"length": 7}, "needs 432 bytes"),
        ({"offset": "x"}, "numbers"),
        ({"offset": -1}, "bytes -1"),
    ]:
        external(tmp_path, **entries)
        with pytest.raises(CheckpointError, match=message):
            interop.load(tmp_path / "model.onnx")


def test_external_data_stays_in_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    content = external(folder)
    (tmp_path / "outside.bin").write_bytes(content)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "link.bin", "inner/../../outside.bin", ""):
        external(folder, location)
        with pytest.raises(CheckpointError, match="its data must lie in the model's folder"):
            interop.load(folder / "model.onnx")
    (folder / "inner").mkdir()
    (folder / "inner" / "weights.bin").write_bytes(content)
    external(folder, "inner/weights.bin")
    interop.load(folder / "model.onnx")


def test_external_data_behind_links_without_end(tmp_path):
    (tmp_path / "weights.bin").symlink_to("weights.bin")
    external(tmp_path)
    with pytest.raises(CheckpointError, match=r"tensor w: its data cannot be looked for, 'weights\.bin'"):
        interop.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("start", [b"", model("y = Relu (x)", {}).SerializeToString()[:9]])
def test_what_is_no_message_is_not_read(tmp_path, monkeypatch, start):
    """Sparse files: read whole, they would fill the memory."""
    with open(tmp_path / "zeros.onnx", "wb") as file:
        file.write(start)
        file.truncate(2**31 - 1)
    monkeypatch.setattr("pathlib.Path.read_bytes", None)
    with pytest.raises(CheckpointError, match=r"zeros\.onnx: no ONNX file, or one that is damaged or cut short"):
        interop.load(tmp_path / "zeros.onnx")


def test_what_is_too_large_is_not_read(tmp_path):
    """Sparse files: read whole, they would fill the memory."""
    for name in ("vast.onnx", "weights.bin"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**36)
    with pytest.raises(CheckpointError, match=r"vast\.onnx: no ONNX file: it holds 68,719,476,736 bytes"):
        interop.load(tmp_path / "vast.onnx")
    proto = model("y = Conv (x, w)", SMALL)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**33]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"tensor w of \(8589934592,\) is too large; at most 268,435,456 numbers"):
        interop.load(tmp_path / "model.onnx")
