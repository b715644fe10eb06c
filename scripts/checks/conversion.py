"""What conversion is for, in numbers: four kinds of network with BatchNorm at batch 32, and at micro-batch 2.

    python -m scripts.checks.conversion DeepLab-like

Each of those named, or of all four, is trained from the same weights on the same images three times: as it is, on
whole batches of 32; as it is, in micro-batches of 2; and converted by `convert_to_ws_gn`, in micro-batches of 2. The
optimizer sees 32 images a step in all three. Images are drawn here: a coloured rectangle on noise, whose kind, outline
and place are to be told.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import convert_to_ws_gn

SIZE, BATCH = 32, 32
Targets = dict[str, Tensor]


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c_in, c_out, 3, stride, 1, dilation), conv(c_out, c_out, dilation=dilation)[:2])
        self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class InvertedResidual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(c_in, 4 * c_in, 1), conv(4 * c_in, 4 * c_in, 3, stride, 4 * c_in), conv(4 * c_in, c_out, 1)[:2]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def resnet(dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv(3, 16), Residual(16, 32, 2), Residual(32, 32, 1), Residual(32, 64, 3 - dilation, dilation)
    )


def classifier(features: nn.Module) -> nn.Module:
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


class DeepLabLike(nn.Module):
    """Dilated backbone, branches of several dilations and of the pooled image, and a class at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet(dilation=2)
        self.branches = nn.ModuleList([conv(64, 32, 1), conv(64, 32, dilation=2)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(64, 32, 1))
        self.classify = nn.Sequential(conv(96, 32, 1), nn.Conv2d(32, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.backbone(x)
        parts = [*(branch(y) for branch in self.branches), self.pooled(y)]
        parts[-1] = parts[-1].expand(-1, -1, *y.shape[2:])
        return F.interpolate(self.classify(torch.cat(parts, 1)), size=x.shape[2:])


class MaskRCNNLike(nn.Module):
    """A pyramid of two levels, objectness and boxes on each, and a mask; what is proposed depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.low, self.high = conv(3, 16), Residual(16, 32, 2), Residual(32, 64, 2)
        self.lateral = nn.ModuleList([conv(32, 32, 1), conv(64, 32, 1)])
        self.head = conv(32, 32)
        self.score, self.mask = nn.Conv2d(32, 5, 1), nn.Sequential(conv(32, 32), nn.Conv2d(32, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.low(self.stem(x))
        coarse = self.lateral[1](self.high(fine))
        levels = [self.lateral[0](fine) + F.interpolate(coarse, scale_factor=2.0), coarse]
        proposals = [self.head(level) for level in levels]
        if not bool(proposals[0].detach().isfinite().all()):  # on the data, as detectors do: no tracer gets past it
            raise FloatingPointError("features that are no numbers")
        masks = F.interpolate(self.mask(proposals[0]), size=x.shape[2:])
        return masks + F.interpolate(self.score(proposals[1]), size=x.shape[2:])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ResNet-18-like": (lambda: classifier(resnet()), "kind"),
    "MobileNet-like": (
        lambda: classifier(
            nn.Sequential(
                conv(3, 16),
                *(InvertedResidual(16, 24, 2), InvertedResidual(24, 32, 2), InvertedResidual(32, 32, 2)),
                conv(32, 64, 1),
            )
        ),
        "kind",
    ),
    "DeepLab-like": (DeepLabLike, "pixels"),
    "Mask-R-CNN-like": (MaskRCNNLike, "pixels"),
}


def images(count: int, generator: torch.Generator) -> tuple[Tensor, Targets]:
    """Return images (count, 3, SIZE, SIZE), the kind of their one rectangle in 4, and the class of each pixel in 5."""
    x = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    kind = torch.randint(0, 4, (count,), generator=generator)
    pixels = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    for i in range(count):
        top, left = (int(v) for v in torch.randint(0, SIZE // 2, (2,), generator=generator))
        tall = int(torch.randint(6, 16, (), generator=generator))
        wide = tall if kind[i] < 2 else tall // 2
        pixels[i, top : top + tall, left : left + wide] = kind[i] + 1
        x[i, int(kind[i]) % 2] += (pixels[i] > 0).float()
    return x, {"kind": kind, "pixels": pixels}


def train(model: nn.Module, target: str, micro_batch: int, seed: int, steps: int) -> tuple[float, float]:
    """Return the mean loss of the first and of the last five steps."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    losses = []
    for _ in range(steps):
        x, targets = images(BATCH, generator)
        total = 0.0
        for part, wanted in zip(x.split(micro_batch), targets[target].split(micro_batch), strict=True):
            loss = F.cross_entropy(model(part), wanted) * len(part) / BATCH
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    first, last = losses[:5], losses[-5:]
    return sum(first) / len(first), sum(last) / len(last)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args(argv)
    if unknown := [name for name in args.networks if name not in NETWORKS]:
        parser.error(f"no network is called {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    print(
        f"{args.steps} steps of {BATCH} images, seeds {args.seeds}, torch {torch.__version__}: "
        f"mean loss, first 5 -> last 5 steps"
    )
    for name in args.networks or NETWORKS:
        make, target = NETWORKS[name]
        for what, convert, micro_batch in (("BatchNorm", False, 32), ("BatchNorm", False, 2), ("converted", True, 2)):
            found = []
            for seed in args.seeds:
                torch.manual_seed(seed)
                model = make()
                model = convert_to_ws_gn(model).model if convert else model
                found.append(train(model, target, micro_batch, seed, args.steps))
            cells = ", ".join(f"{first:.3f} -> {last:.3f}" for first, last in found)
            print(f"{name:16} {what:10} micro-batch {micro_batch:2}  {cells}", flush=True)


if __name__ == "__main__":
    main()
