"""Where training and test images and their classes are in a tree of folders, as people lay them out."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections import defaultdict
from typing import NamedTuple

from ..errors import DataError
from .files import Files
from .names import escaped, printable

TRAIN = ("train", "training", "trn", "tr")
# Where there are several, the first counts: what is called a test is one, and validation stands in for it.
TEST = (
    *("test", "testing", "tst", "te"),
    *("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation", "holdout"),
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")
_LEVELS = 3  # of folders that are searched for halves
_SHORT = ("tr", "te", "dev")  # which may mean something else: only with class folders in them
# What such a folder's name may say besides.
_FILLERS = r"(?:sets?|data|datasets?|images?|imgs?|pictures?|photos?|samples?|splits?|parts?|folders?|half)"
_HALF = re.compile(rf"({'|'.join((*TRAIN, *TEST))}){_FILLERS}?")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class NoClassFolders(DataError):
    """A folder or archive has no folders that would say what its images show."""


class Classes(NamedTuple):
    """The class folders of one half: name of the class, as it is shown -> folder."""

    root: str
    folders: dict[str, str]


def find_halves(files: Files, where: str) -> tuple[Classes, Classes | None]:
    """The class folders of the training half and, where there is one, of the test half.

    `DataError` where there are no class folders, where it cannot be told which folder is what, or where both halves are
    the same images.
    """
    tree = _Tree(files, where)
    root = tree.look_through("")
    found = _named_halves(tree, root) or _halves_below(tree, root)
    if found is None:
        return tree.classes(root), None
    train_root, test_roots = found
    train = tree.classes(train_root)
    test = _labelled(tree, train, test_roots)
    _check_distinct(tree, train, test)
    return train, test


def members(files: Files, classes: Classes) -> dict[str, list[str]]:
    """The files of every class, those in folders inside its folder too; `DataError` where there are none."""
    prefix = f"{classes.root}/" if classes.root else ""
    found: dict[str, list[str]] = {folder: [] for folder in classes.folders.values()}
    for name in files.tree.names:
        folder = prefix + name[len(prefix) :].partition("/")[0]
        if name.startswith(prefix) and folder in found:
            found[folder].append(name)
    for folder, names in found.items():
        if not names:
            raise DataError(f"{files.path(folder)}: the class folder is empty")
    return {label: found[folder] for label, folder in classes.folders.items()}


class _Tree:
    """Folders by the folder that holds them."""

    def __init__(self, files: Files, where: str):
        self.files, self._where = files, where
        self.below: dict[str, list[str]] = defaultdict(list)
        for folder in files.tree.folders:
            self.below[folder.rpartition("/")[0]].append(folder)

    def path(self, folder: str) -> str:
        return self.files.path(folder) if folder else self._where

    def holds_folders_only(self, folder: str) -> bool:
        """Whether it holds two folders or more, and no files beside them."""
        files = (name for name in self.files.tree.names if name.rpartition("/")[0] == folder)
        return len(self.below[folder]) > 1 and next(files, None) is None

    def look_through(self, folder: str, like: str = "") -> str:
        """Down through folders that hold only one that holds others; `like`: whose name is this or says nothing."""
        while True:
            below = self.below[folder]
            if len(below) != 1 or not self.below[below[0]]:
                return folder
            if like and _basename(below[0]) != _basename(like) and role(below[0]) != ("", ()):
                return folder
            folder = below[0]

    def classes(self, root: str) -> Classes:
        folders = self.below[root]
        place = self.path(root)
        self.check_links(root)
        if not folders:
            beside = (name for name in self.files.tree.names if name.rpartition("/")[0] == root)
            packed = [name for name in beside if name.endswith(_ARCHIVES)]
            found = f" but {printable(_basename(packed[0]))}, which must be unpacked" if packed else ""
            raise NoClassFolders(
                f"{place}: has no class folders{found}; expected one folder per class, with its images inside"
            )
        if len(folders) == 1:
            name = printable(_basename(folders[0]))
            raise DataError(f"{place}: has one class folder, {name}; two are needed")
        self._check_nesting(root)
        return Classes(root, self.named(root))

    def check_links(self, root: str) -> None:
        """Whether a link to a class folder leads nowhere, in this folder or one above."""
        for name in self.files.tree.lost:
            above = name.rpartition("/")[0]
            if not above or above == root or root.startswith(f"{above}/"):
                raise DataError(f"{self.path(name)}: is a link that leads nowhere; a class or more may be missing")

    def named(self, root: str) -> dict[str, str]:
        """The folders in this one by their names as they are shown. An accent is the same composed (NFC) or not: what
        writes it as which is the system's."""
        folders = self.below[root]
        for show in (printable, escaped):
            named = {unicodedata.normalize("NFC", show(_basename(folder))): folder for folder in folders}
            if len(named) == len(folders):
                return named
        raise DataError(f"{self.path(root)}: has two class folders whose names look the same")

    def _check_nesting(self, root: str) -> None:
        """Whether what is taken for classes may be something above them."""
        folders = self.below[root]
        inside = [{_basename(folder) for folder in self.below[below]} for below in folders]
        same = sorted(set.intersection(*inside))
        if len(same) < 2:
            return
        prefix = f"{root}/" if root else ""
        depths = [name.count("/", len(prefix)) for name in self.files.tree.names if name.startswith(prefix)]
        if 2 * depths.count(1) < len(depths) - depths.count(0):
            shown = ", ".join(printable(_basename(folder)) for folder in folders[:3])
            listed = ", ".join(map(printable, same[:3]))
            raise DataError(
                f"{self.path(root)}: it cannot be told what the classes are: its folders ({shown}{_more(folders)}) all "
                f"hold the same folders ({listed}{_more(same)}). Pass one of them, or call two of them train and test"
            )


def _more(items: list[str]) -> str:
    return ", ..." if len(items) > 3 else ""


def _basename(folder: str) -> str:
    return folder.rpartition("/")[2]


def role(folder: str) -> tuple[str, tuple[str, ...]]:
    """What a folder's name says of it: "train" or another word for a half, or "", and the words besides."""
    said, rest = "", []
    for word in re.findall(r"[^\W\d_]+", _basename(folder).casefold()):
        half = _HALF.fullmatch(word)
        if half and not said:
            said = half[1]
        elif half or not re.fullmatch(_FILLERS, word):
            rest.append(word)
    return said, tuple(rest)


def _named_halves(tree: _Tree, root: str) -> tuple[str, list[str]] | None:
    """The folder of the training half and those that may be the test half, the likeliest first; None where the folders
    here are not called halves."""
    halves: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for folder in tree.below[root]:
        said, rest = role(folder)
        if said and (said not in _SHORT or tree.below[folder]):
            halves[rest]["train" if said in TRAIN else said].append(folder)
    pairs = [found for found in halves.values() if "train" in found and len(found) > 1]
    alone = [folder for found in halves.values() for folders in found.values() for folder in folders]
    if not pairs:
        nested = next((folder for folder in halves[()]["train"] if tree.holds_folders_only(folder)), None)
        if nested is not None and len(tree.below[root]) > 1:
            raise DataError(
                f"{tree.path(root)}: has {printable(_basename(nested))} with class folders in it, but no test folder "
                f"beside it; to hold back a part for testing, pass {tree.path(nested)}"
            )
        return None
    chosen = pairs[0]
    test = [chosen[word] for word in TEST if word in chosen]
    if len(pairs) > 1 or len(chosen["train"]) > 1 or len(test[0]) > 1:
        listed = ", ".join(printable(_basename(folder)) for folder in alone)
        raise DataError(f"{tree.path(root)}: it cannot be told which of these is which half: {listed}")
    train = chosen["train"][0]
    return tree.look_through(train, train), [tree.look_through(folders[0], folders[0]) for folders in test]


def _halves_below(tree: _Tree, root: str) -> tuple[str, list[str]] | None:
    """The halves in a folder further down, where one has any: then those beside it are no classes."""
    found = {}
    level = [root]
    for _ in range(_LEVELS):
        level = [below for folder in level for below in tree.below[folder]]
        for folder in level:
            with contextlib.suppress(DataError):
                halves = _named_halves(tree, folder)
                if halves is not None and tree.below[halves[0]]:
                    found[folder] = halves
    if len(found) != 1:
        return None
    ((place, halves),) = found.items()
    for name in tree.files.tree.names:
        if name.casefold().endswith(PICTURES) and not name.startswith(f"{place}/"):
            raise DataError(
                f"{tree.path(root)}: has a training and a test folder in {tree.path(place)}, but also images elsewhere "
                f"({tree.path(name)}); if they play no part, pass {tree.path(place)}"
            )
    return halves


def _labelled(tree: _Tree, train: Classes, roots: list[str]) -> Classes:
    """The first of these folders that holds folders of the training's classes."""
    for root in roots:
        tree.check_links(root)
        folders = tree.named(root)
        unknown = sorted(folders.keys() - train.folders.keys())
        if folders and len(unknown) < len(folders):
            if unknown:
                raise DataError(
                    f"{tree.path(root)}: has classes that {tree.path(train.root)} lacks: {', '.join(unknown)}"
                )
            return Classes(root, folders)
    place, folders = tree.path(roots[0]), tree.named(roots[0])
    if folders:
        raise DataError(f"{place}: has classes that {tree.path(train.root)} lacks: {', '.join(sorted(folders))}")
    raise DataError(
        f"{place}: has no class folders, which would say what its images show; to hold back a part of the training "
        f"images for testing, pass {tree.path(train.root)}"
    )


def _check_distinct(tree: _Tree, train: Classes, test: Classes) -> None:
    """Nothing is learned from a test on the images of the training."""
    pairs = [(train.root, test.root)]
    pairs += [(train.folders[label], folder) for label, folder in test.folders.items()]
    for one, other in pairs:
        if tree.files.real(one) == tree.files.real(other):
            raise DataError(
                f"{tree.path(other)}: is the same folder as {tree.path(one)}, by a link; a test on the images of the "
                "training would say nothing"
            )
