"""A network in float64 PyTorch, layer by layer from its specifications, with the rules written into the backward pass.

Images and signals are NHWC as everywhere; inside it is NCHW.
"""

import numpy as np
import torch
import torch.nn.functional as F


class _Rectifier(torch.autograd.Function):
    """Forward `function`; back by the rule: `derivative` and `function` again, one of them or both."""

    @staticmethod
    def forward(ctx, x, function, derivative, back, rule):
        ctx.save_for_backward(x)
        ctx.derivative, ctx.back, ctx.rule = derivative, back, rule
        return function(x)

    @staticmethod
    def backward(ctx, signal):
        (x,) = ctx.saved_tensors
        if ctx.rule != "deconvnet":
            signal = signal * ctx.derivative(x)
        return (signal if ctx.rule == "gradient" else ctx.back(signal)), None, None, None, None


class _Skip(torch.autograd.Function):
    """A layer that the deconvnet skips on its way down."""

    @staticmethod
    def forward(ctx, x, function):
        return function(x)

    @staticmethod
    def backward(ctx, signal):
        return signal, None


def _sides(padding):
    if isinstance(padding, int):
        padding = (padding, padding)
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    return left, right, top, bottom


def _norm(spec, x):
    padded = F.pad(x.square()[:, None], (0, 0, 0, 0, spec.size // 2, (spec.size - 1) // 2))
    total = F.avg_pool3d(padded, (spec.size, 1, 1), stride=1)[:, 0] * spec.size
    return x / (spec.k + spec.alpha * total) ** spec.beta


class Reference:
    """activations[name] after `forward`, as NHWC arrays by `of`."""

    def __init__(self, network):
        self.architecture = network.architecture
        arrays = network.parameters() | network.state()
        self.arrays = {name: torch.tensor(array, dtype=torch.float64) for name, array in arrays.items()}
        for name in network.parameters():
            self.arrays[name].requires_grad_()
        self.training = False

    def forward(self, images, rule="gradient"):
        self.input = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()
        self.found = {"input": self.input}
        self.statistics = {}
        for spec, inputs in zip(self.architecture.layers, self.architecture.inputs(), strict=True):
            self.found[spec.name] = self._layer(spec, [self.found[name] for name in inputs], rule)
        return self.found[spec.name]

    def of(self, name):
        found = self.found[name].detach()
        return (found.permute(0, 2, 3, 1) if found.ndim == 4 else found).numpy()

    def project(self, images, layer, signal, rule):
        self.forward(images, rule)
        signal = torch.tensor(signal, dtype=torch.float64)
        signal = signal.permute(0, 3, 1, 2) if signal.ndim == 4 else signal
        (found,) = torch.autograd.grad(self.found[layer], self.input, signal)
        return found.permute(0, 2, 3, 1).numpy()

    def gradients(self, images, labels):
        """(loss, gradients of the parameters) in training mode, without dropout."""
        self.training = True
        logits = self.forward(images).flatten(1)
        loss = F.cross_entropy(logits, torch.tensor(labels, dtype=torch.int64))
        names = [name for name, array in self.arrays.items() if array.requires_grad]
        found = torch.autograd.grad(loss, [self.arrays[name] for name in names])
        return loss.item(), {name: grad.numpy() for name, grad in zip(names, found, strict=True)}

    def _array(self, spec, name):
        return self.arrays.get(f"{spec.name}.{name}")

    def _layer(self, spec, inputs, rule):
        x = inputs[0]
        weight, bias = self._array(spec, "weight"), self._array(spec, "bias")
        if spec.kind == "conv":
            x = F.pad(x, _sides(spec.padding))
            how = {"stride": spec.stride, "groups": spec.groups, "dilation": spec.dilation}
            return F.conv2d(x, weight.permute(0, 3, 1, 2), bias, **how)
        if spec.kind == "fc":
            return F.linear(x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x, weight, bias)
        if spec.kind == "relu":
            return _Rectifier.apply(x, F.relu, lambda v: (v > 0).double(), F.relu, rule)
        if spec.kind == "clip":
            inside = lambda v: ((v > spec.low) & (v < spec.high)).double()  # noqa: E731
            return _Rectifier.apply(x, lambda v: v.clamp(spec.low, spec.high), inside, F.relu, rule)
        if spec.kind == "leaky_relu":
            leaky = lambda v: F.leaky_relu(v, spec.slope)  # noqa: E731
            return _Rectifier.apply(x, leaky, lambda v: torch.where(v > 0, 1.0, spec.slope), leaky, rule)
        if spec.kind == "prelu":
            if self.training:
                return F.prelu(x, weight)
            slopes = weight.detach().reshape(1, -1, *[1] * (x.ndim - 2))
            leaky = lambda v: F.prelu(v, weight.detach())  # noqa: E731
            return _Rectifier.apply(x, leaky, lambda v: torch.where(v > 0, 1.0, slopes), leaky, rule)
        if spec.kind == "pool":
            padding = spec.padding
            if isinstance(padding, tuple) and len(padding) == 4:
                x, padding = F.pad(x, _sides(padding), value=-np.inf), 0
            return F.max_pool2d(x, spec.window, spec.stride, padding, ceil_mode=spec.ceil_mode)
        if spec.kind == "avgpool":
            if spec.window is None:
                return x.mean((2, 3), keepdim=True)
            how = {"ceil_mode": spec.ceil_mode, "count_include_pad": spec.count_include_pad}
            return F.avg_pool2d(x, spec.window, spec.stride, spec.padding, **how)
        if spec.kind == "norm":
            return _Skip.apply(x, lambda v: _norm(spec, v)) if rule == "deconvnet" else _norm(spec, x)
        if spec.kind == "batchnorm":
            state = [self._array(spec, name).clone() for name in ("running_mean", "running_var")]
            y = F.batch_norm(x, *state, weight, bias, self.training and not spec.frozen, spec.momentum, spec.eps)
            names = (f"{spec.name}.running_mean", f"{spec.name}.running_var")
            self.statistics |= {name: array.numpy() for name, array in zip(names, state, strict=True)}
            return y
        if spec.kind == "add":
            return sum(inputs)
        if spec.kind == "concat":
            return torch.cat(inputs, 1)
        if spec.kind == "permute":
            return x[:, list(spec.order)]
        if spec.kind == "slice":
            return x[:, spec.start : spec.stop]
        if spec.kind == "flatten":
            return x.permute(0, 2, 3, 1).flatten(1)
        assert spec.kind == "dropout"
        return x
