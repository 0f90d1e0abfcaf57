"""Modules as people write them, small, in every style: shape of an image (H, W, C) -> module."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, maps, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps, eps=1e-3, momentum=0.2)
        self.downsample = None
        if stride > 1 or inputs != maps:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, maps, 1, stride, bias=False), nn.BatchNorm2d(maps))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """ReLU and pool used twice, sums in place, a global average by `mean`."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 12, 2), Block(12, 12))
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = self.relu(self.pool(x))
        return self.fc(x.mean(dim=(2, 3)))


class Dense(nn.Module):
    """Batch normalisation before convolutions, concatenations of many, averages that divide."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.last = nn.BatchNorm2d(18)
        self.drop = nn.Dropout(0.3)
        self.classes = nn.Linear(18 * 6, 4)

    def forward(self, x):
        found = [self.first(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found.append(self.drop(conv(F.relu(norm(torch.cat(found, 1))))))
        x = F.avg_pool2d(F.relu(self.last(torch.cat(found, dim=1)), inplace=True), 2)
        x = F.adaptive_avg_pool2d(x, (2, 3))
        return self.classes(torch.flatten(x, 1))


class Inception(nn.Module):
    """Local response normalisation, towers, ceil_mode, padding by a word, dilation, `view`."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, (3, 2), padding="same")
        self.norm = nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=1.5)
        self.one = nn.Conv2d(6, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU(True), nn.Conv2d(3, 5, 3, padding=2, dilation=2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 3, 1), nn.LeakyReLU(0.2))
        self.halve = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = self.norm(F.relu_(self.conv1(x)))
        x = torch.cat([F.relu(self.one(x)), self.three(x), self.pool(x)], 1)
        x = F.local_response_norm(F.avg_pool2d(self.halve(x), 3, 2, 1, count_include_pad=False, ceil_mode=True), 5)
        x = self.gap(x)
        return self.fc(x.view(x.size(0), -1))


class Mobile(nn.Module):
    """Depthwise convolutions, clipped rectifiers, groups; four channels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardtanh(0, 1.5),
            nn.Conv2d(8, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )
        self.more = nn.Conv2d(6, 6, 3, 1, 1, groups=3)
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(6, 4))

    def forward(self, x):
        x = self.features(x)
        x = x + torch.clamp(self.more(x), -0.5, 0.5)
        x = F.adaptive_avg_pool2d(F.relu6(x), (1, 1)).flatten(1)
        return self.classifier(x)


class Shuffle(nn.Module):
    """Channels split, shuffled, turned; slopes that are learned."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.slopes = nn.PReLU(8)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.PReLU())
            for _ in range(2)
        )
        self.conv2 = nn.Conv2d(8, 6, 1, groups=2)
        self.fc = nn.Linear(6, 3)

    def shuffle(self, x, groups):
        n, c, h, w = x.size()
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)

    def forward(self, x):
        x = self.slopes(self.conv1(x[:, [2, 1, 0]]))
        for branch in self.branches:
            left, right = x.chunk(2, dim=1)
            x = self.shuffle(torch.cat((left, branch(right)), 1), 2)
        first, rest = torch.split(x, [3, 5], 1)
        x = torch.cat([rest.flip(1), first[:, 1:], F.leaky_relu(first[:, :1])], 1)
        x = F.channel_shuffle(self.conv2(x), 3)
        return self.fc(F.max_pool2d(x, 2).mean((-1, -2)))


class Plain(nn.Module):
    """A net of the first years: pools, fully connected layers, normalisation of rows."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((4, 3))
        self.classifier = nn.Sequential(
            *(nn.Linear(84, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(True), nn.Dropout()),
            *(nn.Linear(9, 6), nn.Identity(), nn.Linear(6, 4)),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), start_dim=1))


class Normalising(nn.Module):
    """Normalisation of images in the module; zeros around maps; rows joined, and normalised (not learned) before a
    product."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]))
        self.pad = nn.ZeroPad2d((1, 2, 0, 1))
        self.conv1 = nn.Conv2d(3, 5, 3, 2)
        self.conv2 = nn.Conv2d(5, 4, 3, bias=False)
        self.shift = nn.Parameter(torch.tensor(0.3), requires_grad=False)
        self.rows = nn.BatchNorm1d(20, affine=False)
        self.fc = nn.Linear(20, 5)

    def forward(self, x):
        x = (x * 0.5 - self.mean) / self.std[None, :, None, None]
        x = F.relu(self.conv1(self.pad(x)))
        y = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)
        z = 1 - (self.conv2(y) + self.shift)
        a, b = F.adaptive_max_pool2d(z, (1, 2)), F.avg_pool2d(F.pad(z, (0, 0, 1, 0)), 2, 1)
        row = torch.cat([b.reshape(b.shape[0], -1), a.flatten(1), a.squeeze(2).flatten(1)[:, 2:6]], dim=-1)
        return self.fc(self.rows(row))


class InPlace(nn.Module):
    """Operations in place whose results nobody takes, and a tensor that two names have."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.conv1(x)
        same = x
        F.relu(x, inplace=True)
        y = self.conv2(same)
        y.mul_(0.5).add_(same)
        torch.relu_(y)
        return self.fc(y.mean([2, 3]))


class Shared(nn.Module):
    """One convolution that works twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = self.act(self.conv(x)) + x
        return self.fc(F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0])


class Signal(nn.Module):
    """Along one axis."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(2, 6, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm1d(6)
        self.pool = nn.MaxPool1d(3, 2, 1)
        self.conv2 = nn.Conv1d(6, 5, 3, dilation=2)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = F.avg_pool1d(F.relu(self.conv2(x)), 2)
        return self.fc(x.mean(-1))


MODULES = {
    "residual": ((33, 35, 3), Residual),
    "dense": ((12, 18, 1), Dense),
    "inception": ((15, 12, 2), Inception),
    "mobile": ((13, 16, 4), Mobile),
    "shuffle": ((10, 8, 3), Shuffle),
    "plain": ((16, 12, 3), Plain),
    "normalising": ((15, 12, 3), Normalising),
    "in place": ((9, 8, 3), InPlace),
    "shared": ((7, 8, 3), Shared),
    "signal": ((1, 40, 2), Signal),
}


def make(name):
    """(shape of an image, module in eval mode) with parameters and averages that are not what they start as."""
    torch.manual_seed(0)
    shape, kind = MODULES[name]
    module = kind()
    with torch.no_grad():
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and tensor.is_floating_point() and key != "std":
                tensor.add_(0.2 * torch.randn_like(tensor))
            elif tensor.ndim > 1 and key != "mean":
                tensor.mul_(1.5)
    return shape, module.eval()


def images(shape, count=3):
    return np.random.default_rng(1).standard_normal((count, *shape)).astype(np.float32)


def as_input(x, module):
    """NHWC images as the module's double input."""
    x = torch.from_numpy(x).double().permute(0, 3, 1, 2)
    return x[:, :, 0] if any(isinstance(one, nn.Conv1d) for one in module.modules()) else x
