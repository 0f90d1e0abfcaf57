"""What a network is: its layers, what it takes and tells apart, and what it was trained on."""

from __future__ import annotations

import math
from typing import Any

from ...analysis.geometry import field_of
from ...data import Augmentation, Preprocess
from ...nn import Network
from ...nn.finite import check_weights
from ...wording import listed
from .. import Facts, Section, Table

_HEADS = {
    "softmax": "softmax: probabilities",
    "sigmoid": "sigmoid: a probability of each output",
    "none": "none: the outputs as they are",
}
_COLUMNS = ("layer", "kind", "output", "parameters", "sees")


def network_section(net: Network) -> Section:
    """A network in a few facts, and a table of its layers: the shape of what each makes of one image, its parameters,
    and the pixels that an output of it sees."""
    numbers = describe(net)
    rows = [
        [layer["name"], layer["kind"], _by(layer["output_shape"]), layer["parameters"], _by(layer["sees"])]
        for layer in numbers["layers"]
    ]
    return Section("Network", [Facts(_facts(net, numbers)), Table(_COLUMNS, rows)], numbers=numbers)


def describe(net: Network) -> dict[str, Any]:
    """The network as JSON knows it."""
    preprocess = net.preprocess
    layers = []
    for name, layer in net.layers.items():
        field = field_of(net, name).frame(0, 0)
        parameters = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
        layers.append(
            {
                "name": name,
                "kind": layer.kind,
                "output_shape": list(layer.output_shape),
                "parameters": parameters,
                "sees": [field.height, field.width],
            }
        )
    return {
        "input_shape": list(net.input_shape),
        "parameters": sum(layer["parameters"] for layer in layers),
        "num_classes": net.num_classes,
        "classes": net.classes,
        "head": net.head,
        "blocks": net.blocks,
        "preprocess": preprocess
        and {"image_shape": preprocess.image_shape, "crop": preprocess.crop, "scale": preprocess.scale},
        "origin": net.origin,
        "layers": layers,
    }


def _facts(net: Network, numbers: dict[str, Any]) -> list[tuple[str, str]]:
    classes = listed(net.classes) if net.classes else "without names"
    facts = [
        ("input", _by(numbers["input_shape"])),
        ("parameters", f"{numbers['parameters']:,}"),
        ("1 output" if net.num_classes == 1 else f"{net.num_classes:,} classes", classes),
        ("head", _HEADS[net.head]),
    ]
    if net.preprocess is not None:
        facts.append(("preprocessing", _made(net.preprocess)))
    try:
        check_weights(net)
    except ValueError as error:
        facts.append(("damaged", str(error)))
    try:
        return facts + _history(net.origin)
    except (TypeError, ValueError) as error:
        return [*facts, ("trained on", f"cannot be read: {error}")]


def _made(preprocess: Preprocess) -> str:
    """How images become inputs."""
    scale, means = preprocess.scale, preprocess.mean.reshape(-1, preprocess.image_shape[2])
    less = ", less the mean image"
    if (means == means[0]).all():  # a number for each channel, as other libraries have
        less = f", less {', '.join(f'{mean:.4g}' for mean in means[0])}" if means.any() else ""
    times = ", ".join(f"{factor:.4g}" for factor in (scale if isinstance(scale, tuple) else (scale,)))
    return f"crops of {_by(preprocess.image_shape)}{less}, times {times}"


def _history(origin: dict[str, Any]) -> list[tuple[str, str]]:
    """What the network says of its training, as far as it does."""
    if not origin:
        return [("trained on", "not known")]
    data, settings = (dict(origin.get(key) or {}) for key in ("data", "settings"))
    on = str(data.get("name", "data without a name"))
    if data.get("clutter"):
        on += f", on cluttered canvases of {data['clutter']} pixels"
    facts = [("trained on", f"{on}, {origin.get('images')} images"), ("epochs", str(origin.get("epochs")))]
    if origin.get("augmentation"):
        facts.append(("augmentation", str(Augmentation(**origin["augmentation"]))))
    facts += [(name.replace("_", " "), str(value)) for name, value in settings.items() if value is not None]
    return [*facts, ("zfcuda", str(origin.get("version")))]


def _by(sizes: Any) -> str:
    return " x ".join(map(str, sizes))
