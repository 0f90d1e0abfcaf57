"""How objects that hold arrays show themselves in a line: what arrays and long collections are, not what is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["Brief", "brief"]

_ITEMS = 8
_CHARACTERS = 80


class Brief:
    """A base of dataclasses (with `repr=False`): their fields, each as `brief` shows it."""

    def __repr__(self) -> str:
        fields = [field.name for field in dataclasses.fields(self) if field.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={brief(getattr(self, name))}' for name in fields)})"


def brief(value: Any) -> str:
    """An array's dtype and shape, how many items a long collection has, else what `repr` says."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape != ():
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, Mapping):
        if len(value) > _ITEMS:
            return f"<{len(value):,} items>"
        return f"{{{', '.join(f'{key!r}: {brief(item)}' for key, item in value.items())}}}"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= _CHARACTERS else f"{value[:_CHARACTERS]!r}..."
    if isinstance(value, (tuple, list)) and value:
        plain = all(item is None or isinstance(item, (str, bool, int, float)) for item in value)
        if len(value) > _ITEMS or not plain:
            kinds = {type(item).__name__ for item in value}
            return f"<{len(value):,} {kinds.pop() if len(kinds) == 1 else 'items'}>"
        items = ", ".join(brief(item) for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"
    return repr(value)
