"""How results show themselves in a notebook: they ask here, and what can show them was registered here.

Analyses know nothing of reports. The package's root, which knows both, registers the reports' renderer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Renderer = Callable[[Any], "str | None"]

_renderers: list[Renderer] = []


def register(renderer: Renderer) -> None:
    """Makes `renderer` (result -> HTML, None for what it does not know) one of those that `html` asks in turn."""
    _renderers.append(renderer)


def html(result: Any) -> str | None:
    """What shows the result, as HTML that needs nothing else; None if nobody knows how."""
    found = (renderer(result) for renderer in _renderers)
    return next((text for text in found if text is not None), None)
