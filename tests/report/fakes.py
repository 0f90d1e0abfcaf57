"""A small report with every kind of part and hostile names."""

import numpy as np

from zfcuda.analysis.deconvnet import Visualization
from zfcuda.analysis.figures import new_figure
from zfcuda.analysis.occlusion import Occlusion
from zfcuda.report import (
    Chart,
    Explorer,
    Facts,
    Gallery,
    Note,
    Picture,
    Report,
    Section,
    Shown,
    Slider,
    Table,
    weight_tiles,
)

HOSTILE = "</script><script>window.hacked = true</script>"
CLASSES = ("cat", f"dog{HOSTILE}", "<img src=x onerror='window.hacked = true'>", "$fish$")


def make_visualization(layer="pool1", maps=3, k=9, size=5, seed=0):
    rng = np.random.default_rng(seed)
    frames = np.full((maps, k, 4), size, np.int32)
    frames[..., :2] = rng.integers(-1, max(0, 16 - size + 2), (maps, k, 2))
    windows = frames.copy()
    windows[..., :2] = np.maximum(frames[..., :2], 0)
    windows[..., 2:] = np.minimum(frames[..., :2] + size, 16) - windows[..., :2]
    return Visualization(
        layer=layer,
        maps=np.arange(maps),
        values=-np.sort(-rng.random((maps, k)).astype(np.float32)),
        indices=rng.integers(0, 20, (maps, k)),
        positions=rng.integers(0, 8, (maps, k, 2)),
        windows=windows,
        frames=frames,
        projections=rng.standard_normal((maps, k, size, size, 3)).astype(np.float32),
        patches=rng.standard_normal((maps, k, size, size, 3)).astype(np.float32),
    )


def make_shown(count=20, seed=0):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
    return {i: Shown(pictures[i], f"{HOSTILE}/{i}.png", CLASSES[i % len(CLASSES)]) for i in range(count)}


def make_occlusion(seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.random((4, 4)).astype(np.float32)
    probability[0, 3] = 0.4
    return Occlusion(
        probability=probability,
        prediction=rng.integers(0, len(CLASSES), (4, 4)),
        activation=rng.random((4, 4)).astype(np.float32),
        layer="pool1",
        feature_map=2,
        projection=rng.standard_normal((16, 16, 3)).astype(np.float32),
        image=rng.standard_normal((16, 16, 3)).astype(np.float32),
        label=1,
        baseline=0.9,
        baseline_prediction=1,
        baseline_activation=3.0,
        size=(4, 4),
        stride=(4, 4),
        fill=0.0,
    )


def make_report():
    figure, axes = new_figure()
    axes[0, 0].plot([1, 2, 3], [0.5, 0.3, 0.2], label="error")
    axes[0, 0].set_title("a <b> title & more")
    axes[0, 0].legend()
    shown = make_shown()
    weight = np.random.default_rng(0).standard_normal((8, 5, 5, 3))
    report = Report(f"A report {HOSTILE}", subtitle=HOSTILE, command=f"zfcuda demo --out '{HOSTILE}'")
    report.add(Section("Facts", [Facts([("accuracy", "87 %"), (HOSTILE, HOSTILE)]), Chart("error", figure, HOSTILE)]))
    galleries = [Gallery(make_visualization(layer), shown, caption=HOSTILE) for layer in ("pool1", "pool2")]
    filters = Picture("filters", weight_tiles(weight), "filters", least=200)
    report.add(Section("Maps", [filters, *galleries], HOSTILE, numbers=galleries[0].numbers()))
    report.add(Section(HOSTILE, [Explorer("occlusion", HOSTILE, make_occlusion(), shown[0].picture, CLASSES)]))
    rows = [("zfnet", 9.5, 1000), (HOSTILE, 12.2, 2000), ("alexnet", None, 3000)]
    report.add(Section("Table", [Table(["variant", "error", "parameters"], rows, HOSTILE), Note(HOSTILE, "good")]))
    frames = [shown[i].picture for i in range(3)]
    report.add(Section("Epochs", [Slider("evolution", "pool1", frames, ["epoch 1", "epoch 2", "epoch 3"], HOSTILE)]))
    return report
