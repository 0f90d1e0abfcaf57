"""The end of a residual block (He et al. 2016) as one operation, where no map but the last is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from ...backends import Array
from .stage import Rectified, Stage


class Residual:
    """A convolution, alone or with its batch normalisation, and the sum of its maps and another layer's, with the ReLU
    behind it if there is one: the other layer's maps are added to the convolution's before these are stored.

    At test time and forward only: a stage of its own keeps what the way back or a trace may read.
    """

    def __init__(self, product: Stage, total: Stage):
        self._product, self._rectifies = product, isinstance(total, Rectified)
        self.name = total.name
        (other,) = (name for name in total.inputs if name != product.name)
        self.inputs: tuple[Hashable, ...] = (*product.inputs, other)

    def enter(self, signal: Array) -> Array:
        """As `Stage.enter`."""
        return self._product.enter(signal)

    def make(self, inputs: Sequence[Array]) -> dict[Hashable, Array]:
        """As `Stage.make`."""
        x, other = inputs
        return {self.name: self._product.adding.forward(x, relu=self._rectifies, add=other)}


def fuse_sums(stages: Sequence[Stage]) -> dict[str, tuple[Stage, Residual]]:
    """Those of a network's sums that can be a `Residual`, by name, each with the convolution that makes it. The last
    stage, which may have a precision of its own, is none of them."""
    readers = Counter(name for stage in stages for name in stage.inputs)
    made = {stage.name: stage for stage in stages}
    products: dict[str, Stage] = {}  # by the name of the stage that sums
    for total in stages[:-1]:
        if not total.layers[0].sums or len(total.inputs) != 2:
            continue
        # The later one: the maps of the other are there by then.
        for product in sorted((made[name] for name in total.inputs if name in made), key=stages.index):
            if product.adding is not None and readers[product.name] == 1:
                products[total.name] = product
    return {name: (product, Residual(product, made[name])) for name, product in products.items()}
