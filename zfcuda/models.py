"""`zfcuda.models`: the networks and the variants of Table 3, from `zfcuda.nn.models`."""

from .nn.models import *  # noqa: F403
from .nn.models import __all__ as __all__
