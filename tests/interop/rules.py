"""PyTorch with a rule in the backward pass of whatever rectifies, however a module calls it."""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _Rectifier(torch.autograd.Function):
    """Forward `function`; back by the rule: its derivative, `back`, or both."""

    @staticmethod
    def forward(ctx, x, function, back, rule):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (derivative,) = torch.autograd.grad(function(leaf).sum(), leaf)
        ctx.save_for_backward(derivative)
        ctx.back, ctx.rule = back, rule
        return function(x)

    @staticmethod
    def backward(ctx, signal):
        (derivative,) = ctx.saved_tensors
        signal = signal if ctx.rule == "deconvnet" else signal * derivative
        return (signal if ctx.rule == "gradient" else ctx.back(signal)), None, None, None


class _Skipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, function):
        return function(x)

    @staticmethod
    def backward(ctx, signal):
        return signal, None


_RELU = (F.relu, torch.relu, torch.Tensor.relu, torch.relu_, torch.Tensor.relu_, F.relu_)
_CLIP = (F.relu6, F.hardtanh, torch.clamp, torch.Tensor.clamp)


class Rule(TorchFunctionMode):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in _RELU:
            return self._rectified(args[0], F.relu, F.relu, kwargs.pop("inplace", function in _RELU[3:]))
        if function in _CLIP:
            kwargs.pop("inplace", None)
            return self._rectified(args[0], lambda x: function(x, *args[1:], **kwargs), F.relu, False)
        if function in (F.leaky_relu, F.prelu, torch.prelu):
            inplace = kwargs.pop("inplace", False)
            slopes = [one.detach() if isinstance(one, torch.Tensor) else one for one in args[1:]]
            leaky = lambda x: function(x, *slopes, **kwargs)  # noqa: E731
            return self._rectified(args[0], leaky, leaky, inplace)
        if function is F.local_response_norm and self.rule == "deconvnet":
            return _Skipped.apply(args[0], lambda x: function(x, *args[1:], **kwargs))
        return function(*args, **kwargs)

    def _rectified(self, x, function, back, inplace):
        y = _Rectifier.apply(x.clone() if inplace else x, function, back, self.rule)
        return x.copy_(y) if inplace else y
