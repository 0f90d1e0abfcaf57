"""How long a browser takes to open a large report: `python benchmarks/report.py` (needs Selenium and Chromium).

A page of a gallery of 100 maps, the nine winners of each in images of their own, all pixels noise: nothing compresses
less. Times in ms, each the median of several fresh loads; the gallery's tiles have the sizes of ZFNet's blocks at 224.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from selenium import webdriver
from selenium.webdriver.common.by import By

from zfcuda.analysis import Visualization
from zfcuda.report import Gallery, Report, Section, Shown

MAPS, WINNERS, SIDE = 100, 9, 224

# Until the page has been laid out and painted after what was done to it, in ms.
_DONE = """
const [action, done] = [new Function(arguments[0]), arguments[arguments.length - 1]];
const start = performance.now();
action();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
_OPEN = "document.querySelectorAll('.map button')[1].click()"
_SEARCH = "const s = document.querySelector('.search'); s.value = 'map 7'; s.dispatchEvent(new Event('input'))"


def page(tile: int, directory: Path) -> Path:
    """The page with tiles of this side."""
    rng = np.random.default_rng(0)
    gallery = None
    for start in range(0, MAPS, 10):
        maps = np.arange(start, start + 10)
        indices = np.arange(start * WINNERS, (start + 10) * WINNERS).reshape(10, WINNERS)
        frames = np.full((10, WINNERS, 4), tile, np.int32)
        frames[..., :2] = rng.integers(0, SIDE - tile + 1, (10, WINNERS, 2))
        projections = rng.standard_normal((10, WINNERS, tile, tile, 3), np.float32)
        view = Visualization(
            layer="pool5",
            maps=maps,
            values=-np.sort(-rng.random((10, WINNERS), np.float32)),
            indices=indices,
            positions=np.zeros((10, WINNERS, 2), np.int32),
            windows=frames,
            frames=frames,
            projections=projections,
            patches=projections,
        )
        noise = rng.integers(0, 256, (10 * WINNERS, SIDE, SIDE, 3), np.uint8)
        shown = {
            int(i): Shown(picture, f"class/{i:05d}.jpg", f"class {i % 100}")
            for i, picture in zip(indices.flat, noise, strict=True)
        }
        if gallery is None:
            gallery = Gallery(view, shown)
        else:
            gallery.add(Gallery(view, shown))
    return Report("A hundred maps", sections=[Section("Maps", [gallery])]).save(directory)


def times(path: Path, repeats: int) -> dict[str, float]:
    """Medians in ms: until the page can be used, until all of it has loaded, to open a winner, to search."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    samples: dict[str, list[float]] = {}
    try:
        for _ in range(repeats):
            driver.get("about:blank")
            driver.get(path.as_uri())
            timing = driver.execute_script("return performance.getEntriesByType('navigation')[0].toJSON()")
            found = {
                "interactive": timing["domInteractive"],
                "loaded": timing["loadEventEnd"],
                "search": driver.execute_async_script(_DONE, _SEARCH),
                "open": driver.execute_async_script(_DONE, _OPEN),
            }
            assert driver.find_element(By.CSS_SELECTOR, "dialog").is_displayed()
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
    finally:
        driver.quit()
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{MAPS} maps x {WINNERS}, noise; times in ms")
    print("tile |   MB | interactive | loaded | search | open")
    for tile in (11, 32, 75, 224):
        with tempfile.TemporaryDirectory() as directory:
            path = page(tile, Path(directory))
            t = times(path, arguments.repeats)
            size = path.stat().st_size / 1e6
        cells = f"{t['interactive']:11.0f} | {t['loaded']:6.0f} | {t['search']:6.0f} | {t['open']:4.0f}"
        print(f"{tile:4d} | {size:4.1f} | {cells}")


if __name__ == "__main__":
    main()
