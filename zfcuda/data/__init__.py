"""Data sets: Fashion-MNIST, CIFAR-10, IDX files, folders of class folders, archives; and how images become inputs."""

from .augmentation import Augmentation
from .dataset import ArrayDataset, DamagedFiles, Dataset, Skipped, Split, Subset, sample, stratified
from .digest import digest
from .folders import FolderDataset
from .images import image_size, read_image
from .labels import relabelled
from .loading import load_batches
from .names import listed, printable
from .preprocess import IMAGENET, Preprocess, Scale, mean_image, unit_scale
from .sources import CIFAR10, FASHION_MNIST, is_there, open

__all__ = [
    "CIFAR10",
    "FASHION_MNIST",
    "IMAGENET",
    "ArrayDataset",
    "Augmentation",
    "DamagedFiles",
    "Dataset",
    "FolderDataset",
    "Preprocess",
    "Scale",
    "Skipped",
    "Split",
    "Subset",
    "digest",
    "image_size",
    "is_there",
    "listed",
    "load_batches",
    "mean_image",
    "open",
    "printable",
    "read_image",
    "relabelled",
    "sample",
    "stratified",
    "unit_scale",
]
