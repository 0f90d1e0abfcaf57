"""Models in NumPy of the kernels in golden_tensor.cuh: by loops over what each word of the result should be."""

import numpy as np

PLACE = 32


def coordinate(word, size):
    return int(word) % (size + 32) - 16


def boxes_of(array, corner, shape, steps):
    """Elements of `array` from `corner` on, outermost first; zero outside."""
    at = np.meshgrid(*(c + s * np.arange(n) for c, n, s in zip(corner, shape, steps, strict=True)), indexing="ij")
    inside = np.all([(a >= 0) & (a < n) for a, n in zip(at, array.shape, strict=True)], axis=0)
    clipped = tuple(np.clip(a, 0, n - 1) for a, n in zip(at, array.shape, strict=True))
    return np.where(inside, array[clipped], np.uint32(0))


def swizzled(rows):
    """Rows of 8, 16 or 32 words as they lie with the swizzle of their width: in 16-byte parts."""
    width = rows.shape[1] // 4
    parts = rows.reshape(-1, width, 4)
    result = np.empty_like(parts)
    for r, row in enumerate(parts):
        turn = r * width // 8 % width
        for part in range(width):
            result[r, part ^ turn] = row[part]
    return result.ravel()


def to_tf32(x):
    """To nearest; not of ties, which GPUs before sm_90 round in another way."""
    return np.where(np.isnan(x), 0x7FFFFFFF, (x.view(np.uint32) + 0x1000) & 0xFFFFE000)


def tensor_load(name, words):
    width = {"none": 20, "32": 8, "64": 16, "128": 32}[name.split("_")[-1]]
    array = words[PLACE:].reshape(40, 48)[:, :47]
    if "tf32" in name:
        array = to_tf32(array.view(np.float32)).astype(np.uint32)
    corner = coordinate(words[1], 40), coordinate(words[0], 48)
    box = boxes_of(array, corner, (20, width), (1, 1))
    return box.ravel() if name.endswith("none") else swizzled(box)


def tensor_steps(name, words):
    array = words[PLACE:].reshape(6, 8, 40)
    corner = int(words[2]) % 9 - 3, int(words[1]) % 12 - 4, coordinate(words[0], 40)
    return boxes_of(array, corner, (3, 4, 8), (3, 2, 1)).ravel()


def tensor_im2col(name, words):
    images = words[PLACE:].reshape(2, 7, 6, 12)
    first, tap, c = int(words[0]) % 42, int(words[1]) % 6, int(words[2]) % 3 * 4
    box = np.zeros((16, 8), np.uint32)
    for pixel in range(16):
        n, p, q = (first + pixel) // 21, (first + pixel) // 7 % 3, (first + pixel) % 7
        h, w = 2 * p - 1 + tap // 2, q - 2 + tap % 2 * 2
        if n < 2 and 0 <= h < 7 and 0 <= w < 6:
            channels = images[n, h, w, c : c + 8]
            box[pixel, : len(channels)] = channels
    return swizzled(box)


def tensor_store(name, words):
    result = np.zeros((20, 40), np.uint32)
    for number, box in enumerate(words[PLACE:].reshape(6, 8, 8, 4)):
        top, left = number // 2 * 8 - 3, number % 2 * 32 - 8
        for r in range(8):
            for i in range(32):
                if 0 <= top + r < 20 and 0 <= left + i < 40:
                    result[top + r, left + i] = box[r, i // 4 ^ r, i % 4]
    return result.ravel()


def barriers(name, words):
    total = np.zeros(64, np.uint32)
    for tile in words[PLACE:].reshape(7, 64):
        total = 3 * total + tile[::-1]
    return total[np.arange(64) ^ 33]


MODELS = {
    "tensor_load_none": tensor_load,
    "tensor_load_32": tensor_load,
    "tensor_load_64": tensor_load,
    "tensor_load_128": tensor_load,
    "tensor_load_tf32_128": tensor_load,
    "tensor_steps": tensor_steps,
    "tensor_im2col": tensor_im2col,
    "tensor_store": tensor_store,
    "barriers": barriers,
}
