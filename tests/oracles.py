"""What every operation must compute: a few obvious lines of NumPy in float64 each.

Shapes and names as in zfcuda.ops; `stride`, `dilation` and `window` are (height, width), `padding` is that or (top,
bottom, left, right). What is an expression of NumPy's
(add, relu, relu_grad, leaky_relu, leaky_relu_grad, prelu_weight_grad, clip, clip_grad, cast, copy_channels,
permute_channels, conv2d_bias_grad, spatial_max, softmax_cross_entropy), or of the functions here (conv2d_relu_pool,
unpool_conv_transpose2d, unpool_conv2d_weight_grad), stands in its test in tests/kernels.
"""

import numpy as np


def sides(padding):
    """(top, bottom, left, right)."""
    return tuple(padding) if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])


def _taps(filters, stride, output, dilation=(1, 1)):
    """Each filter tap (r, s) with the slice of the padded input that it meets."""
    (rows, columns), (p, q) = filters, output
    for r in range(rows):
        for s in range(columns):
            top, left = r * dilation[0], s * dilation[1]
            yield r, s, np.s_[:, top : top + stride[0] * p : stride[0], left : left + stride[1] * q : stride[1]]


def _groups(channels, groups):
    """The channels of each group."""
    size = channels // groups
    return [slice(g * size, (g + 1) * size) for g in range(groups)]


def _pad(x, padding, value=0.0):
    top, bottom, left, right = sides(padding)
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def output_size(size, window, stride, padding, dilation=(1, 1), ceil_mode=False):
    top, bottom, left, right = sides(padding)
    found = []
    for a, k, s, d, before, after in zip(size, window, stride, dilation, (top, left), (bottom, right), strict=True):
        room = a + before + after - (k - 1) * d - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        found.append(count - (ceil_mode and (count - 1) * s >= a + before))
    return tuple(found)


def conv2d(x, w, b=None, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, scale=None, add=None, relu=False):
    x, w = x.astype(np.float64), w.astype(np.float64)
    p, q = output_size(x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    padded = _pad(x, padding)
    y = np.zeros((x.shape[0], p, q, w.shape[0]))
    for c, k in zip(_groups(x.shape[3], groups), _groups(w.shape[0], groups), strict=True):
        for r, s, cells in _taps(w.shape[1:3], stride, (p, q), dilation):
            y[..., k] += padded[cells][..., c] @ w[k, r, s, :].T
    if scale is not None:
        y *= scale
    if b is not None:
        y += b
    if add is not None:
        y += add.astype(np.float64)
    return np.maximum(y, 0) if relu else y


def conv_transpose2d(y, w, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, output_size):
    y, w = y.astype(np.float64), w.astype(np.float64)
    (height, width), (top, bottom, left, right) = output_size, sides(padding)
    padded = np.zeros((y.shape[0], height + top + bottom, width + left + right, w.shape[3] * groups))
    for c, k in zip(_groups(w.shape[3] * groups, groups), _groups(w.shape[0], groups), strict=True):
        for r, s, cells in _taps(w.shape[1:3], stride, y.shape[1:3], dilation):
            padded[cells][..., c] += y[..., k] @ w[k, r, s, :]
    return padded[:, top : top + height, left : left + width, :]


def conv2d_weight_grad(x, dy, *, kernel_size, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    padded = _pad(x, padding)
    dw = np.zeros((dy.shape[3], *kernel_size, x.shape[3] // groups))
    for c, k in zip(_groups(x.shape[3], groups), _groups(dy.shape[3], groups), strict=True):
        for r, s, cells in _taps(kernel_size, stride, dy.shape[1:3], dilation):
            dw[k, r, s, :] = np.tensordot(dy[..., k], padded[cells][..., c], axes=([0, 1, 2], [0, 1, 2]))
    return dw


def _dilated_taps(filters, stride, dilation, output):
    for r, s in np.ndindex(*filters):
        first = r * dilation[0], s * dilation[1]
        yield r, s, (slice(None), *(slice(f, f + d * n, d) for f, d, n in zip(first, stride, output, strict=True)))


def depthwise_conv2d(x, w, b=None, *, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), relu=False):
    top, bottom, left, right = padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    padded = padded.repeat(w.shape[0] // x.shape[3], axis=3)
    p, q = (
        (size - (k - 1) * d - 1) // step + 1
        for size, k, step, d in zip(padded.shape[1:3], w.shape[1:3], stride, dilation, strict=True)
    )
    y = np.zeros((x.shape[0], p, q, w.shape[0]))
    for r, s, cells in _dilated_taps(w.shape[1:3], stride, dilation, (p, q)):
        y += padded[cells] * w[:, r, s, 0].astype(np.float64)
    if b is not None:
        y += b
    return np.maximum(y, 0) if relu else y


def depthwise_conv2d_data_grad(
    y, w, *, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), output_size, channels=None
):
    (height, width), (top, bottom, left, right) = output_size, padding
    padded = np.zeros((y.shape[0], top + height + bottom, left + width + right, y.shape[3]))
    for r, s, cells in _dilated_taps(w.shape[1:3], stride, dilation, y.shape[1:3]):
        padded[cells] += y.astype(np.float64) * w[:, r, s, 0].astype(np.float64)
    x = padded[:, top : top + height, left : left + width]
    return x.reshape(*x.shape[:3], channels or y.shape[3], -1).sum(-1)


def depthwise_conv2d_weight_grad(x, dy, *, kernel_size, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    top, bottom, left, right = padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    padded = padded.repeat(dy.shape[3] // x.shape[3], axis=3)
    dw = np.zeros((dy.shape[3], *kernel_size, 1))
    for r, s, cells in _dilated_taps(kernel_size, stride, dilation, dy.shape[1:3]):
        dw[:, r, s, 0] = (padded[cells] * dy.astype(np.float64)).sum((0, 1, 2))
    return dw


def _pool_padding(size, window, stride, padding, ceil_mode):
    """The padding (top, bottom, left, right) with which windows rounded down are those of `ceil_mode`."""
    top, bottom, left, right = sides(padding)
    p, q = output_size(size, window, stride, padding, ceil_mode=ceil_mode)
    over = (p - 1) * stride[0] + window[0] - size[0] - top, (q - 1) * stride[1] + window[1] - size[1] - left
    return top, max(bottom, over[0]), left, max(right, over[1])


def max_pool2d(x, *, window, stride, padding=(0, 0), ceil_mode=False):
    """Also the switches. In the input's own dtype: a maximum rounds nothing."""
    p, q = output_size(x.shape[1:3], window, stride, padding, ceil_mode=ceil_mode)
    padding = _pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    inside = _pad(np.ones(x.shape, bool), padding, False)
    padded = _pad(x, padding)
    y = np.zeros((x.shape[0], p, q, x.shape[3]), x.dtype)
    switches = np.full(y.shape, 255, np.uint8)
    found = np.zeros(y.shape, bool)
    for r, s, cells in _taps(window, stride, (p, q)):
        value = padded[cells]
        with np.errstate(invalid="ignore"):  # bfloat16 warns of comparisons with NaN
            wins = inside[cells] & (~found | (value > y) | (np.isnan(value) & ~np.isnan(y)))
        y = np.where(wins, value, y)
        switches = np.where(wins, np.uint8(r * window[1] + s), switches)
        found |= inside[cells]
    return y, switches


def max_unpool2d(y, switches, *, window, stride, padding=(0, 0), ceil_mode=False, output_size):
    """`ceil_mode` says no more than the shape of y does."""
    (height, width), (top, _, left, _) = output_size, sides(padding)
    n, p, q, c = y.shape
    x = np.zeros((n, height, width, c))
    for i, a, b, j in np.ndindex(n, p, q, c):
        r, s = divmod(int(switches[i, a, b, j]), window[1])
        h, v = a * stride[0] - top + r, b * stride[1] - left + s
        if r < window[0] and 0 <= h < height and 0 <= v < width:
            x[i, h, v, j] += y[i, a, b, j]
    return x


def _averaged(size, window, stride, before, after, ceil_mode):
    """For each window in one direction: its cells in x, and how many there are with the padding."""
    padded = size + before + after
    starts = range(0, padded - window + (stride if ceil_mode else 1), stride)
    for start in starts:
        if start < size + before:  # not in the padding behind x
            inside = range(max(start - before, 0), min(start + window - before, size))
            yield inside, min(start + window, padded) - start


def _averages(shape, window, stride, padding, ceil_mode, count_include_pad):
    """Each window's (p, q), its rows and columns of x, and how many cells it divides by."""
    top, bottom, left, right = padding
    rows = _averaged(shape[1], window[0], stride[0], top, bottom, ceil_mode)
    for p, (h, height) in enumerate(rows):
        for q, (w, width) in enumerate(_averaged(shape[2], window[1], stride[1], left, right, ceil_mode)):
            count = height * width if count_include_pad else len(h) * len(w)
            yield (p, q), np.s_[:, h.start : h.stop, w.start : w.stop], count


def avg_pool2d(x, *, window, stride, padding=(0, 0, 0, 0), ceil_mode=False, count_include_pad=True):
    found = list(_averages(x.shape, window, stride, padding, ceil_mode, count_include_pad))
    (p, q), _, _ = found[-1]
    y = np.empty((x.shape[0], p + 1, q + 1, x.shape[3]))
    for (p, q), cells, count in found:
        y[:, p, q] = x[cells].astype(np.float64).sum((1, 2)) / count
    return y


def avg_pool2d_grad(dy, *, window, stride, padding=(0, 0, 0, 0), ceil_mode=False, count_include_pad=True, output_size):
    dx = np.zeros((dy.shape[0], *output_size, dy.shape[3]))
    for (p, q), cells, count in _averages(dx.shape, window, stride, padding, ceil_mode, count_include_pad):
        dx[cells] += dy[:, p : p + 1, q : q + 1].astype(np.float64) / count
    return dx


def batch_norm_statistics(x):
    rows = x.astype(np.float64).reshape(-1, x.shape[-1])
    return rows.mean(0), rows.var(0)


def batch_norm(x, mean, variance, weight, bias, *, eps=1e-5, relu=False):
    x, mean, variance, weight, bias = (a.astype(np.float64) for a in (x, mean, variance, weight, bias))
    y = (x - mean) / np.sqrt(variance + eps) * weight + bias
    return np.maximum(y, 0) if relu else y


def batch_norm_grad(dy, x, mean, variance, weight, *, eps=1e-5):
    """Channel by channel with the Jacobians of the normalised x by x and by both statistics."""
    dy, x, mean, variance, weight = (a.astype(np.float64) for a in (dy, x, mean, variance, weight))
    axes, rows = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    scale = 1 / np.sqrt(variance + eps)
    signal = dy * weight
    by_variance = (signal * (x - mean) * -0.5 * scale**3).sum(axes)
    by_mean = -(signal * scale).sum(axes)  # variance does not change with the mean: the deviations add up to 0
    dx = signal * scale + by_variance * 2 * (x - mean) / rows + by_mean / rows
    return dx, (dy * (x - mean) * scale).sum(axes), dy.sum(axes)


def local_response_norm(x, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    x = x.astype(np.float64)
    channels = x.shape[-1]
    y = np.empty_like(x)
    for c in range(channels):
        near = x[..., max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        y[..., c] = x[..., c] / (k + alpha * (near**2).sum(-1)) ** beta
    return y


def local_response_norm_grad(dy, x, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Row by row with the full Jacobian: dx = J^T dy."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    channels = x.shape[-1]
    index = np.arange(channels)
    near = (index[None] >= index[:, None] - size // 2) & (index[None] <= index[:, None] + (size - 1) // 2)
    dx = np.empty_like(x)
    for row in np.ndindex(x.shape[:-1]):
        base = k + alpha * near @ x[row] ** 2
        jacobian = np.diag(base**-beta) - np.outer(2 * alpha * beta * x[row] * base ** (-beta - 1), x[row]) * near
        dx[row] = jacobian.T @ dy[row]
    return dx


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(logits, labels):
    return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


def softmax_cross_entropy_grad(probabilities, labels):
    return (probabilities.astype(np.float64) - np.eye(probabilities.shape[1])[labels]) / len(labels)


def philox4x32(seed, index, offset):
    """Philox4x32-10 as Salmon et al. (2011) define it: four 32-bit words."""
    counter = [index & 0xFFFFFFFF, index >> 32, offset & 0xFFFFFFFF, offset >> 32]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ counter[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def dropout(x, *, probability, seed, offset=0):
    flat = x.astype(np.float64).ravel()
    words = [word for block in range(-(-flat.size // 4)) for word in philox4x32(seed, block, offset)]
    dropped = np.array(words[: flat.size], np.uint64) < int(np.float32(probability).astype(np.float64) * 2**32)
    return np.where(dropped, 0, flat / (1 - probability)).reshape(x.shape)


def sgd_step(w, g, v, *, lr, momentum, weight_decay):
    w, g, v = (a.astype(np.float64) for a in (w, g, v))
    v = momentum * v - lr * (g + weight_decay * w)
    return w + v, v


def renormalize_filters(w, *, max_rms):
    w = w.astype(np.float64)
    rms = np.sqrt((w**2).mean(axis=tuple(range(1, w.ndim)), keepdims=True))
    return np.where(rms > max_rms, w * (max_rms / np.maximum(rms, 1e-300)), w)


def cut_windows(x, corners, *, size, images=None):
    y = np.zeros((len(corners), *size, x.shape[3]), x.dtype)
    for m, a, b in np.ndindex(y.shape[:3]):
        image = m if images is None else images[m]
        h, w = corners[m, 0] + a, corners[m, 1] + b
        if 0 <= image < len(x) and 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
            y[m, a, b] = x[image, h, w]
    return y


def crop_images(images, mean, corners, flips, *, size):
    n, height, width, c = images.shape
    shifted = images.astype(np.float64) - (0 if mean is None else mean)
    y = np.zeros((n, *size, c))
    for i, a, b in np.ndindex(n, *size):
        h, v = corners[i, 0] + a, corners[i, 1] + (size[1] - 1 - b if flips[i] else b)
        if 0 <= h < height and 0 <= v < width:
            y[i, a, b] = shifted[i, h, v]
    return y
