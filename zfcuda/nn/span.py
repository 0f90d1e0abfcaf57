"""Windows along one axis of a map: which inputs an output sees, and which outputs an input reaches."""

from __future__ import annotations

from dataclasses import dataclass

from ..pairs import IntPair, as_pair

__all__ = ["Shape", "Span", "window_spans"]

Shape = tuple[int, ...]  # of one image or activation, without the batch: (H, W, C) or (units,)


@dataclass(frozen=True)
class Span:
    """One layer along one axis: windows of `kernel` cells at `stride` over `size` cells padded by `padding`.

    A layer that keeps positions (ReLU, normalisation, dropout) has kernel 1, stride 1; `whole` means that every
    output sees every input (fully connected layers). Ranges are half-open.
    """

    size: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    whole: bool = False

    @property
    def outputs(self) -> int:
        return 1 if self.whole else (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def start(self, output: int) -> int:
        """The first input that an output sees; below 0 where that is padding."""
        return 0 if self.whole else output * self.stride - self.padding

    def reach(self, outputs: int) -> int:
        """How many inputs so many neighbouring outputs see, padding included."""
        return self.size if self.whole else (outputs - 1) * self.stride + self.kernel

    def inputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs that the outputs [start, stop) see."""
        first = self.start(start)
        return min(max(first, 0), self.size), max(min(first + self.reach(stop - start), self.size), 0)

    def outputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The outputs that see an input of [start, stop); empty (start == stop) if none does."""
        if self.whole:
            return (0, 1) if stop > start else (0, 0)
        first = max(0, -(-(start + self.padding - self.kernel + 1) // self.stride))
        last = min(self.outputs - 1, (stop - 1 + self.padding) // self.stride)
        return (first, last + 1) if stop > start and last >= first else (first, first)


def window_spans(name: str, shape: Shape, window: IntPair, stride: IntPair, padding: IntPair) -> tuple[Span, Span]:
    """The spans (down, across) of layer `name`, whose windows must fit into the (padded) map."""
    if len(shape) != 3:
        raise ValueError(f"{name} needs an input of shape (H, W, C), got {shape}")
    axes = tuple(zip(shape[:2], as_pair(window), as_pair(stride), as_pair(padding), strict=True))
    for size, cells, step, pad in axes:
        if cells < 1 or step < 1 or pad < 0:
            raise ValueError(
                f"{name}: window and stride must be positive, padding not negative; got {cells, step, pad}"
            )
        if cells > size + 2 * pad:
            raise ValueError(
                f"{name}: its window of {cells} is larger than its padded input, {size} + 2 * {pad}; "
                "the network needs a larger image"
            )
    return Span(*axes[0]), Span(*axes[1])
