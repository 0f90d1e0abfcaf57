"""How much is read: what is larger is refused with a reason, before it takes the memory or the time."""

from __future__ import annotations

from ..errors import DataError

# Of one file: more than any picture within Pillow's limit of pixels needs.
FILE_LIMIT = 2**28
# What is packed may unpack to a hundred times its size, or to 128 MiB: pictures and IDX files stay far below.
_RATIO, _ANY_RATIO = 100, 2**27


def check_size(path: str, size: int, limit: int) -> None:
    """`DataError` where a file is larger than `limit` bytes."""
    if size > limit:
        raise DataError(f"{path}: holds {size:,} bytes, more than the {limit:,} that can be read")


def most_unpacked(packed: int) -> int:
    """To how many bytes so many packed ones may unpack."""
    return max(_ANY_RATIO, _RATIO * packed)


def check_unpacked(path: str, unpacked: int, packed: int) -> None:
    """`DataError` where what is packed unpacks to more than that."""
    if unpacked > most_unpacked(packed):
        raise DataError(
            f"{path}: unpacks to more than {_RATIO} times its size and {_ANY_RATIO // 2**20} MiB; "
            "if it is meant to, unpack it first"
        )
