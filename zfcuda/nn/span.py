"""Windows along one axis of a map: which inputs an output sees, and which outputs an input reaches."""

from __future__ import annotations

from dataclasses import dataclass

from ..pairs import IntPair, Padding, as_sides, check_padding, check_pair

__all__ = ["Shape", "Span", "window_spans"]

Shape = tuple[int, ...]  # of one image or activation, without the batch: (H, W, C) or (units,)


@dataclass(frozen=True)
class Span:
    """One layer along one axis: windows of `kernel` cells, `dilation` apart, at `stride` over `size` cells with
    `padding` more before them and `after` behind (None: as many).

    A layer that keeps positions (ReLU, normalisation, dropout) has kernel 1, stride 1; `whole` means that every
    output sees every input (fully connected layers). Ranges are half-open, and hold the cells between a dilated
    window's own. With `ceil` the last window may reach beyond the padding, if it starts before it (as in PyTorch).
    """

    size: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    whole: bool = False
    after: int | None = None
    dilation: int = 1
    ceil: bool = False

    @property
    def extent(self) -> int:
        """From the first to the last cell of a window."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def padded(self) -> int:
        """The cells with the padding on either side."""
        return self.size + self.padding + (self.padding if self.after is None else self.after)

    @property
    def outputs(self) -> int:
        if self.whole:
            return 1
        steps = self.padded - self.extent
        if not self.ceil:
            return steps // self.stride + 1
        last = -(-steps // self.stride)
        return last + 1 if last * self.stride < self.size + self.padding else last

    @property
    def overhang(self) -> int:
        """How many cells behind its own the last window reads."""
        return max(0, self.start(self.outputs - 1) + self.extent - self.size)

    def start(self, output: int) -> int:
        """The first input that an output sees; below 0 where that is padding."""
        return 0 if self.whole else output * self.stride - self.padding

    def reach(self, outputs: int) -> int:
        """How many inputs so many neighbouring outputs see, padding included."""
        return self.size if self.whole else (outputs - 1) * self.stride + self.extent

    def inputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs that the outputs [start, stop) see."""
        first = self.start(start)
        return min(max(first, 0), self.size), max(min(first + self.reach(stop - start), self.size), 0)

    def outputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The outputs that see an input of [start, stop); empty (start == stop) if none does."""
        if self.whole:
            return (0, 1) if stop > start else (0, 0)
        first = max(0, -(-(start + self.padding - self.extent + 1) // self.stride))
        last = min(self.outputs - 1, (stop - 1 + self.padding) // self.stride)
        return (first, last + 1) if stop > start and last >= first else (first, first)


def window_spans(
    name: str,
    shape: Shape,
    window: IntPair,
    stride: IntPair,
    padding: Padding,
    *,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> tuple[Span, Span]:
    """The spans (down, across) of layer `name`, whose windows must fit into the (padded) map."""
    if len(shape) != 3:
        raise ValueError(f"{name} needs an input of shape (H, W, C), got {shape}")
    given = {"window": window, "stride": stride, "dilation": dilation}
    windows, strides, dilations = (check_pair(f"{name}: {what}", value) for what, value in given.items())
    sides = as_sides(check_padding(f"{name}: padding", padding))
    axes = zip(shape[:2], windows, strides, sides, dilations, strict=True)
    spans = []
    for size, cells, step, (before, after), apart in axes:
        if min(cells, step, apart) < 1 or min(before, after) < 0:
            raise ValueError(
                f"{name}: window and stride must be positive, dilation too, padding not negative; got "
                f"{cells, step, apart, (before, after)}"
            )
        span = Span(size, cells, step, before, False, after, apart, ceil_mode)
        if span.extent > span.padded:
            raise ValueError(
                f"{name}: its window of {span.extent} is larger than its padded input, {size} + {before} + {after}; "
                "the network needs a larger image"
            )
        spans.append(span)
    return spans[0], spans[1]
