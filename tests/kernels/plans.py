"""Plans of convolutions that a test chooses instead of the heuristic."""

from zfcuda import backends

# What an operation is made of that has a choice of plan. All begin with a convolution's shape, blocks' with both.
PARTS = {
    "conv2d": ("conv2d",),
    "conv_transpose2d": ("conv_transpose2d",),
    "conv2d_weight_grad": ("conv2d_weight_grad",),
    "conv2d_relu_pool": ("conv2d", "conv2d_relu_pool"),
    "unpool_conv_transpose2d": ("conv_transpose2d",),
    "unpool_conv2d_weight_grad": ("conv2d_weight_grad", "unpool_conv2d_weight_grad"),
}
BLOCKS = ("conv2d_relu_pool", "unpool_conv2d_weight_grad")


def force(monkeypatch, choose):
    """From now on, wherever a convolution has a choice of plans, the one that choose([(kernel, splits), ...]) returns
    is taken, unless that is None; whatever was forced before."""
    for name in ("emulated", "cuda"):
        if not backends.status()[name]:
            module = backends.get(name).module
            for precision, operations in (("fp32", module.fp32), ("tf32", module.tf32), ("bf16", module.bf16)):
                for operation in PARTS:
                    query = f"{operation}_workspace"
                    unforced = getattr(operations, query)
                    unforced = getattr(unforced, "unforced", unforced)
                    forced = _forced(module, precision, operation, unforced, choose)
                    monkeypatch.setattr(operations, query, forced)


def _forced(module, precision, operation, query, choose):
    """The query for a workspace, with which a call begins, after setting plans."""

    def set_and_ask(*shapes):
        for part in PARTS[operation]:
            problem = part, precision, shapes[0], shapes[1] if part in BLOCKS else None
            if choice := choose(module.plan_candidates(*problem)):
                module.set_plan(*problem, *choice)
        return query(*shapes)

    set_and_ask.unforced = query
    return set_and_ask


def with_tile(name):
    """The first candidate with this tile ("128x64": of mma or ffma; "wgmma 128x256": of that main loop), and thus with
    the splits that the heuristic would take."""
    kernels = (name, f"mma {name}", f"ffma {name}")
    return lambda candidates: next((one for one in candidates if one[0] in kernels), None)
