"""`zfcuda import`: a net of another library, as a checkpoint that every other command takes."""

from __future__ import annotations

import argparse
import collections
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.figures import is_signal
from ..data import IMAGENET, Preprocess, printable
from ..files import read_text
from ..nn import Network
from ..nn.checkpoint import HEADS
from ..nn.finite import is_finite
from ..wording import layer_words, listed
from .common import Commands
from .numbers import SIDE, Real
from .ranks import alone

_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
_NUMBER = Real(-1e9, 1e9)
_RESIZED = 256 / 224  # of ImageNet's images, the smaller side by the crop's
_FACTOR = Real(0, 1e9, excluded=True)


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "import",
        help="a net from PyTorch or ONNX, for all other commands",
        description="Reads a net from an ONNX file (opset 7 and up) or a .pt2 file of torch.export.save, and saves it "
        "with what makes its inputs of images: x = (scale * image - mean) / std. Nothing of a file is executed.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="MODEL", help="a .onnx or .pt2 file")
    parser.add_argument("--out", metavar="NET", required=True, help="the checkpoint to write, such as net.safetensors")
    parser.add_argument(
        "--resize", type=SIDE, metavar="N", help="of an image's smaller side, before the crop (default: as the crop)"
    )
    parser.add_argument(
        "--crop", type=SIDE, metavar="N", help="of the centre; the net's own input, if that is not open"
    )
    parser.add_argument(
        "--input-shape",
        type=SIDE,
        nargs=3,
        metavar=("H", "W", "C"),
        help="of an image, where an ONNX file leaves sizes open",
    )
    for name, what in (("mean", "subtracted"), ("std", "divided by")):
        number = _NUMBER if name == "mean" else _FACTOR
        words = f"what is {what}, for all channels or for each (R G B)"
        parser.add_argument(f"--{name}", type=number, nargs="+", metavar="X", help=words)
    parser.add_argument("--scale", type=_FACTOR, metavar="S", help="a factor for pixels 0..255 (default: 1/255)")
    parser.add_argument(
        "--imagenet",
        action="store_true",
        help="mean, std and scale of ImageNet, and, without --resize, a resize of 256 for a crop of 224, in the same "
        "proportion for others (342 for 299), as of torchvision's first weights",
    )
    parser.add_argument("--bgr", action="store_true", help="the model takes its channels as blue, green, red")
    parser.add_argument("--classes", metavar="FILE", help="the names of the outputs, a line each, all different")
    parser.add_argument("--output", metavar="NAME", help="which of several outputs (default: the first)")
    parser.add_argument(
        "--head",
        choices=HEADS,
        help="what makes predictions of outputs; of a single one sigmoid or none (default: what the model does)",
    )


@alone
def run(arguments: argparse.Namespace) -> int:
    out = _output(arguments)
    classes = None if arguments.classes is None else _names(Path(arguments.classes))
    net = _load(arguments, classes)
    net.preprocess = _preprocess(arguments, net)
    if not is_finite(net.predict(np.zeros((1, *net.input_shape), np.float32))):
        raise ValueError(f"{printable(arguments.model)}: its outputs for a black image are not finite")
    net.save(out)
    print(_summary(arguments, net))
    return 0


def _output(arguments: argparse.Namespace) -> Path:
    out = Path(arguments.out)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must be a .safetensors file, got {printable(arguments.out)}")
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {printable(arguments.out)} must be a file in a directory that is writable")
    return out


def _names(path: Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        raise ValueError(f"--classes {printable(str(path))} cannot be read as text in UTF-8: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        # As the labels of ImageNet that go around do.
        print(
            f"--classes {printable(str(path))} has more than one line that says {listed(twice)}: data with such "
            "classes cannot be matched with outputs by name",
            file=sys.stderr,
        )
    return names


def _load(arguments: argparse.Namespace, classes: list[str] | None) -> Network:
    suffix = Path(arguments.model).suffix.lower()
    options: dict[str, Any] = {"classes": classes, "output": arguments.output, "head": arguments.head}
    options["bgr"] = arguments.bgr
    if suffix == ".onnx":
        try:
            from ..interop import onnx
        except ImportError as error:
            raise ImportError(f"ONNX files need the package onnx: pip install 'zfcuda[onnx]' ({error})") from error
        shape = tuple(arguments.input_shape) if arguments.input_shape else None
        return onnx.load(arguments.model, input_shape=shape, **options)  # type: ignore[arg-type]
    if arguments.input_shape:
        raise ValueError("--input-shape is for ONNX files; a .pt2 file has the sizes that it was exported for")
    if suffix == ".pt2":
        from ..interop import pt2

        return pt2.load(arguments.model, **options)
    if suffix in _PICKLED:
        raise ValueError(
            f"{printable(arguments.model)}: pickled modules and weights are not read, since loading them runs what is "
            "in them. In Python, with the model: torch.export.save(torch.export.export(model.eval(), "
            "(torch.zeros(2, 3, 224, 224),)), 'model.pt2'), or zfcuda.interop.torch.from_module(model, (224, 224, 3))"
        )
    raise ValueError(f"MODEL must be a .onnx or .pt2 file, got {printable(arguments.model)}")


def _preprocess(arguments: argparse.Namespace, net: Network) -> Preprocess:
    height, width, channels = net.input_shape
    if arguments.crop not in (None, height) or (arguments.crop is not None and height != width):
        raise ValueError(f"--crop must be the net's input, {height} x {width}; got {arguments.crop}")
    if arguments.resize is not None and is_signal(height, width):
        raise ValueError(f"--resize is for images: signals, as of {height} x {width} x {channels}, are never scaled")
    for name in IMAGENET:
        if arguments.imagenet and getattr(arguments, name) is not None:
            raise ValueError(f"--imagenet and --{name} exclude each other: the first has a mean, a std and a scale")
    if arguments.imagenet and (channels != 3 or is_signal(height, width)):
        takes = f"{height} x {width} x {channels}"
        raise ValueError(f"--imagenet is for nets that take images of 3 channels, but this one takes {takes}")
    given: dict[str, Any] = dict(IMAGENET) if arguments.imagenet else {}
    resize = round(min(height, width) * _RESIZED) if arguments.imagenet else None
    given |= {name: value for name in ("mean", "std", "scale") if (value := getattr(arguments, name)) is not None}
    for name in ("mean", "std"):
        if name in given and len(given[name]) not in (1, channels):
            raise ValueError(
                f"--{name} must be 1 or {channels} numbers, as the net takes channels; got {len(given[name])}"
            )
    return Preprocess.by_channel((height, width), channels=channels, resize=arguments.resize or resize, **given)


def _summary(arguments: argparse.Namespace, net: Network) -> str:
    kinds = collections.Counter(layer.kind for layer in net.layers.values())
    parameters = sum(math.prod(array.shape) for array in net.parameters().values())
    assert net.preprocess is not None
    by = " x ".join
    lines = [
        f"{printable(arguments.model)}: {len(net.layers)} layers, {parameters:,} parameters",
        f"  input    {by(map(str, net.input_shape))}, of images of {by(map(str, net.preprocess.image_shape))}",
        f"  layers   {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}",
        f"  blocks   {', '.join(f'{number}: {layer_words(name)}' for number, name in net.blocks.items())}",
        f"  outputs  {net.num_classes:,}, {_outputs(net)}",
    ]
    out = printable(arguments.out)
    lines.append(f"saved: {out}")
    lines.append(f"next: zfcuda info {out}, zfcuda visualize {out} --data FOLDER, zfcuda occlude {out} --image FILE")
    return "\n".join(lines)


def _outputs(net: Network) -> str:
    """What predictions are, and how they could be probabilities."""
    if net.head != "none":
        return net.head
    wanted, made = (
        ("sigmoid", "a probability of a logit") if net.num_classes == 1 else ("softmax", "probabilities of logits")
    )
    return f"as the model makes them (--head {wanted} makes {made})"
