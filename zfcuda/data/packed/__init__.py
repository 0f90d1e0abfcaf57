"""Packed images: shards of raw uint8 in .npy files beside an index, for data sets of any size."""

from .dataset import PackedDataset, is_packed, open_packed
from .packing import pack

__all__ = ["PackedDataset", "is_packed", "open_packed", "pack"]
