"""Data sets: Fashion-MNIST, CIFAR-10, folders of class folders, archives of them; and how images become inputs."""

from .augmentation import Augmentation
from .dataset import ArrayDataset, Dataset, Skipped, Split, Subset, sample, stratified
from .folders import FolderDataset
from .images import read_image
from .loading import load_batches
from .preprocess import Preprocess, mean_image, unit_scale
from .sources import open

__all__ = [
    "ArrayDataset",
    "Augmentation",
    "Dataset",
    "FolderDataset",
    "Preprocess",
    "Skipped",
    "Split",
    "Subset",
    "load_batches",
    "mean_image",
    "open",
    "read_image",
    "sample",
    "stratified",
    "unit_scale",
]
