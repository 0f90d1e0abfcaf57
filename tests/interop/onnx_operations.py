"""Operations of ONNX: lines of nodes, and their weights, for `onnx_models.model`."""

import numpy as np

from tests.interop.onnx_models import ints, positive, w

FC = "y = Gemm <transB=1> (f, fc)"
OPERATIONS = {
    "same upper": ('y = Conv <auto_pad="SAME_UPPER", strides=[2, 3]> (x, w)', {"w": w(4, 3, 4, 3)}),
    "same lower": (
        'c = Conv <auto_pad="SAME_LOWER", strides=[3, 2]> (x, w)\n'
        'y = MaxPool <auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[2, 2]> (c)',
        {"w": w(4, 3, 4, 3)},
    ),
    "valid": ('y = Conv <auto_pad="VALID", dilations=[2, 1]> (x, w, b)', {"w": w(4, 3, 3, 3), "b": w(4)}),
    "four sides": (
        "c = Conv <pads=[0, 1, 2, 1]> (x, w)\n"
        "p = MaxPool <kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]> (c)\n"
        "y = AveragePool <kernel_shape=[2, 2], pads=[1, 0, 0, 1]> (p)",
        {"w": w(4, 3, 3, 3)},
    ),
    "groups": (
        "c = Conv <pads=[1, 1, 1, 1], group=3> (x, w)\ny = Conv <group=2> (c, v)",
        {"w": w(6, 1, 3, 3), "v": w(4, 3, 1, 1)},
    ),
    "ceil": (
        "c = Conv (x, w)\np = MaxPool <kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1> (c)\n"
        "y = AveragePool <kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1> (p)",
        {"w": w(4, 3, 1, 1)},
    ),
    "average that counts padding": (
        "c = Conv (x, w)\n"
        "y = AveragePool <kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1> (c)",
        {"w": w(4, 3, 1, 1)},
    ),
    "batchnorm": (
        "c = Conv (x, w)\nd = BatchNormalization <epsilon=1e-3> (c, g, b, m, v)\ny = Relu (d)",
        {"w": w(4, 3, 3, 3), "g": w(4), "b": w(4), "m": w(4), "v": positive(4)},
    ),
    "norm": (
        "c = Conv (x, w)\ny = LRN <size=3, alpha=0.5, beta=0.6, bias=1.5> (c)",
        {"w": w(7, 3, 3, 3)},
    ),
    "rectifiers": (
        "c = Conv (x, w)\nd = LeakyRelu <alpha=0.2> (c)\ne = PRelu (d, s)\nf = Clip (e, low, high)\n"
        "h = PRelu (f, t)\ny = Clip (h, zero)",
        {
            "w": w(4, 3, 3, 3),
            "s": positive(4, 1, 1),
            "t": positive(1),
            "low": np.float32(-0.5),
            "high": np.float32(0.5),
            "zero": np.float32(0),
        },
    ),
    "constants by channel": (
        "n = Sub (x, m)\ns = Div (n, d)\nc = Conv (s, w)\np = Mul (c, g)\nq = Add (b, p)\nr = Relu (q)\n"
        "y = Sub (one, r)",
        {
            "m": w(1, 3, 1, 1),
            "d": positive(3, 1, 1),
            "w": w(4, 3, 3, 3),
            "g": w(4, 1, 1),
            "b": w(1, 4, 1, 1),
            "one": np.float32(1),
        },
    ),
    "scale behind batchnorm": (
        "c = Conv (x, w)\nd = BatchNormalization (c, g, b, m, v)\na = Unsqueeze (k, axes)\ne = Mul (d, a)\n"
        "h = Unsqueeze (l, axes)\ni = Add (e, h)\ny = Relu (i)",
        {
            **{"w": w(4, 3, 3, 3), "g": w(4), "b": w(4), "m": w(4), "v": positive(4)},
            **{"k": w(4), "l": w(4), "axes": ints(1, 2)},
        },
    ),
    "matmul and add": (
        "c = Conv (x, w)\nr = Relu (c)\nf = Flatten (r)\nh = MatMul (f, m)\ni = Add (h, b)\nj = Relu (i)\n"
        "y = MatMul (j, n)",
        {"w": w(4, 3, 5, 5), "m": w(192, 6), "b": w(6), "n": w(6, 3)},
    ),
    "gemm": (
        "c = Conv (x, w)\nf = Reshape (c, shape)\ny = Gemm <alpha=0.5, beta=2.0> (f, m, b)",
        {"w": w(4, 3, 5, 5), "shape": ints(0, -1), "m": w(192, 6), "b": w(1, 6)},
    ),
    "shape computed": (
        "c = Conv (x, w)\ns = Shape (c)\nn = Gather <axis=0> (s, zero)\nu = Unsqueeze (n, zero1)\n"
        "t = Concat <axis=0> (u, rest)\nf = Reshape (c, t)\n" + FC,
        {"w": w(4, 3, 5, 5), "zero": np.int64(0), "zero1": ints(0), "rest": ints(-1), "fc": w(5, 192)},
    ),
    "shuffle": (
        "c = Conv (x, w)\na = Reshape (c, five)\nb = Transpose <perm=[0, 2, 1, 3, 4]> (a)\nd = Reshape (b, four)\n"
        "y = Conv (d, v)",
        {"w": w(6, 3, 3, 3), "five": ints(-1, 2, 3, 10, 8), "four": ints(-1, 6, 10, 8), "v": w(2, 6, 1, 1)},
    ),
    "split and join": (
        "c = Conv (x, w)\na, b = Split <axis=1> (c, sizes)\nd = Relu (b)\ne = Concat <axis=1> (d, a, c)\n"
        "s = Slice (e, start, end, axes)\ny = Conv (s, v)",
        {
            **{"w": w(6, 3, 3, 3), "sizes": ints(2, 4), "v": w(2, 7, 1, 1)},
            **{"start": ints(2), "end": ints(9), "axes": ints(1)},
        },
    ),
    "other order of channels": (
        "r = Gather <axis=1> (x, bgr)\nc = Conv (r, w)\ny = Relu (c)",
        {"bgr": ints(2, 1, 0), "w": w(4, 3, 3, 3)},
    ),
    "sums": (
        "c = Conv (x, w)\nd = Conv (x, v)\ne = Conv (d, u)\ns = Sum (c, d, e)\nt = Add (s, c)\nz = Sub (t, d)\n"
        "y = Relu (z)",
        {"w": w(4, 3, 1, 1), "v": w(4, 3, 1, 1), "u": w(4, 4, 1, 1)},
    ),
    "padding apart": (
        'p = Pad <mode="constant"> (x, pads)\nc = Conv <strides=[2, 2]> (p, w)\nr = Relu (c)\n'
        "q = Pad (r, pads2, zero)\ny = MaxPool <kernel_shape=[3, 3], strides=[2, 2]> (q)",
        {
            **{"pads": ints(0, 0, 1, 2, 0, 0, 3, 1), "w": w(4, 3, 3, 3)},
            **{"pads2": ints(0, 0, 1, 1, 0, 0, 1, 1), "zero": np.float32(0)},
        },
    ),
    "padding apart, then same": (
        "p = Pad (x, pads)\n"
        'c = Conv <auto_pad="SAME_UPPER", strides=[2, 2]> (p, w)\nr = Relu (c)\nq = Pad (r, pads2)\n'
        'm = MaxPool <auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[2, 2]> (q)\nt = Pad (m, pads3)\n'
        'y = AveragePool <auto_pad="SAME_UPPER", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1> (t)',
        {
            **{"pads": ints(0, 0, 1, 0, 0, 0, 0, 0), "w": w(4, 3, 3, 4)},
            **{"pads2": ints(0, 0, 0, 1, 0, 0, 0, 0), "pads3": ints(0, 0, 1, 0, 0, 0, 0, 0)},
        },
    ),
    "padding apart, then windows that overhang": (
        "c = Conv (x, w)\nr = Relu (c)\np = Pad (r, pads)\n"
        "y = MaxPool <kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1> (p)",
        {"w": w(4, 3, 3, 3), "pads": ints(0, 0, 0, 1, 0, 0, 1, 0)},
    ),
    "an average larger than the maps": (
        "c = Conv <strides=[1, 5]> (x, w)\ny = AveragePool <kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1> (c)",
        {"w": w(4, 3, 3, 3)},
    ),
    "global average": (
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\nf = Flatten (g)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "mean": (
        "c = Conv (x, w)\nf = ReduceMean <axes=[2, 3], keepdims=0> (c)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "sum": (
        "c = Conv (x, w)\nf = ReduceSum <keepdims=0> (c, axes)\n" + FC,
        {"w": w(4, 3, 3, 3), "axes": ints(2, 3), "fc": w(5, 4)},
    ),
    "maximum": (
        "c = Conv (x, w)\nr = ReduceMax <axes=[3]> (c)\nf = ReduceMax <axes=[2, -1], keepdims=0> (r)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "mean of rows": (
        "c = Conv (x, w)\nr = Reshape (c, three)\nf = ReduceMean <axes=[-1], keepdims=0> (r)\n" + FC,
        {"w": w(4, 3, 3, 3), "three": ints(0, 4, -1), "fc": w(5, 4)},
    ),
    "global maximum": (
        "c = Conv (x, w)\ng = GlobalMaxPool (c)\nf = Squeeze (g, axes)\n" + FC,
        {"w": w(4, 3, 3, 3), "axes": ints(2, 3), "fc": w(5, 4)},
    ),
    "channels last": (
        "t = Transpose <perm=[0, 3, 1, 2]> (x)\nc = Conv (t, w)\nb = Transpose <perm=[0, 2, 3, 1]> (c)\nr = Relu (b)\n"
        "j = Concat <axis=3> (r, b)\nk = Add (j, bias)\ns = Reshape (k, shape)\nf = Dropout (s)\n" + FC,
        {"w": w(4, 3, 3, 3), "bias": w(8), "shape": ints(-1, 640), "fc": w(5, 640)},
    ),
    "rows joined": (
        "c = Conv (x, w)\na = Flatten (c)\nd = Conv (x, v)\nb = Flatten (d)\nj = Concat <axis=1> (a, b)\nf = Relu (j)\n"
        + FC,
        {"w": w(2, 3, 10, 8), "v": w(1, 3, 9, 9), "fc": w(5, 26)},
    ),
    "batchnorm of rows": (
        "c = Conv (x, w)\na = Flatten (c)\nf = BatchNormalization (a, g, b, m, v)\n" + FC,
        {"w": w(2, 3, 10, 8), "g": w(18), "b": w(18), "m": w(18), "v": positive(18), "fc": w(5, 18)},
    ),
    "mean along an axis at a time": (
        "c = Conv (x, w)\nr = ReduceMean <axes=[3]> (c)\nf = ReduceMean <axes=[2, 3], keepdims=0> (r)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "both signs": (
        "c = Conv (x, w)\nn = Neg (c)\nj = Concat <axis=1> (c, n)\nk = Neg (b)\ns = Add (j, k)\ny = Relu (s)",
        {"w": w(4, 3, 3, 3), "b": w(8, 1, 1)},
    ),
    "shapes of what is not needed": (
        "c = Conv (x, w)\nd = Conv (c, v)\ns = Shape (d)\ne = Conv (c, u)\nf = Reshape (e, s)\ny = Relu (f)\n"
        "z = Relu (d)",
        {"w": w(4, 3, 3, 3), "v": w(5, 4, 1, 1), "u": w(5, 4, 1, 1)},
    ),
    "one number of an image": (
        "c = Conv (x, w)\nf = Flatten (c)\ng = Gemm <transB=1> (f, fc)\ny = Squeeze (g, axes)",
        {"w": w(4, 3, 5, 5), "fc": w(1, 192), "axes": ints(1)},
    ),
    "maps as output": ("c = Conv (x, w)\ny = Relu (c)", {"w": w(4, 3, 3, 3)}),
    "rows of maps as output": ("c = Conv (x, w)\ny = Flatten (c)", {"w": w(2, 3, 9, 8)}),
    "weights of a norm": (
        "n = ReduceL2 <axes=[1, 2, 3]> (v)\nq = Div (v, n)\nw = Mul (q, g)\nc = Conv (x, w)\nf = Flatten (c)\n"
        "s = Mul (u, u)\nt = ReduceSum <keepdims=0> (s, axis)\nr = Sqrt (t)\na = Unsqueeze (r, axis)\n"
        "d = Clip (a, small)\nfc = Div (u, d)\n" + FC,
        {
            **{"v": w(4, 3, 5, 5), "g": positive(4, 1, 1, 1), "u": w(5, 192), "axis": ints(1)},
            "small": np.float32(1e-12),
        },
    ),
    "weights of a spectral norm": (
        "m = Reshape (k, two)\nh = MatMul (m, v)\ns = MatMul (u, h)\nw = Div (k, s)\nc = Conv (x, w)\ny = Relu (c)",
        {"k": w(4, 3, 3, 3), "two": ints(4, -1), "v": w(27), "u": positive(4)},
    ),
    "filled weights": (
        "w = ConstantOfShape <value: tensor = float[1] {0.25}> (shape)\nc = Conv (x, w)\n"
        "b = Constant <value_float=0.5> ()\n"
        "s = Add (c, b)\nk = Cast <to=1> (s)\ny = Identity (k)",
        {"shape": ints(4, 3, 3, 3)},
    ),
}
