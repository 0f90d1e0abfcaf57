"""Data sets: Fashion-MNIST, CIFAR-10, IDX files, folders of class folders, archives, packed images; and how images
become inputs."""

from .augmentation import Augmentation
from .dataset import (
    ArrayDataset,
    DamagedFiles,
    Dataset,
    HeldOut,
    NothingHeldOut,
    Skipped,
    Split,
    Subset,
    Together,
    sample,
    stratified,
)
from .digest import digest
from .folders import FolderDataset
from .images import image_size, read_image
from .labels import of_one_class, relabelled
from .layout import NoClassFolders
from .loading import Drawn, load_batches, load_crops, shuffled
from .names import printable
from .packed import PackedDataset, open_packed, pack
from .preprocess import IMAGENET, Preprocess, Scale, mean_image, unit_scale
from .sequence import SequenceDataset
from .sources import CIFAR10, FASHION_MNIST, is_there, open, stamp, would_hold

__all__ = [
    "CIFAR10",
    "FASHION_MNIST",
    "IMAGENET",
    "ArrayDataset",
    "Augmentation",
    "DamagedFiles",
    "Dataset",
    "Drawn",
    "FolderDataset",
    "HeldOut",
    "NoClassFolders",
    "NothingHeldOut",
    "PackedDataset",
    "Preprocess",
    "Scale",
    "SequenceDataset",
    "Skipped",
    "Split",
    "Subset",
    "Together",
    "digest",
    "image_size",
    "is_there",
    "load_batches",
    "load_crops",
    "mean_image",
    "of_one_class",
    "open",
    "open_packed",
    "pack",
    "printable",
    "read_image",
    "relabelled",
    "sample",
    "shuffled",
    "stamp",
    "stratified",
    "unit_scale",
    "would_hold",
]
