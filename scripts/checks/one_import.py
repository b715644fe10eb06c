"""What a torch_geometric user gains by one import line: a training step of their DynamicEdgeConv model, timed.

    python -m scripts.checks.one_import --rounds 5

The model is the one in docs/LIBRARY.md. torch_geometric's DynamicEdgeConv needs pyg-lib to find neighbours; where that
does not install, its own EdgeConv runs here on the neighbours that `torch.cdist` and `topk` find in each cloud. Both
models have the same weights; their steps take turns, so that what else the machine does meets both.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, EdgeConv, global_max_pool

from dgcnn_ws.nn.pyg import DynamicEdgeConv


class Theirs(EdgeConv):
    """torch_geometric's layer on the k nearest neighbours within each cloud, the point itself included."""

    def __init__(self, network: nn.Module, k: int) -> None:
        super().__init__(network)
        self.k = k

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        clouds = x.detach().split(batch.bincount().tolist())
        near = [torch.cdist(cloud, cloud).topk(self.k, largest=False).indices for cloud in clouds]
        starts = [sum(map(len, clouds[:i])) for i in range(len(clouds))]
        sources = torch.cat([start + idx.flatten() for start, idx in zip(starts, near, strict=True)])
        targets = torch.arange(len(x)).repeat_interleave(self.k)
        return super().forward(x, torch.stack([sources, targets]))


class Net(nn.Module):
    def __init__(self, layer: type, k: int = 20) -> None:
        super().__init__()
        self.conv1 = layer(MLP([2 * 3, 32, 32]), k)
        self.conv2 = layer(MLP([2 * 32, 64]), k)
        self.mlp = MLP([32 + 64, 64, 10], norm=None)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        x1 = self.conv1(pos, batch)
        x2 = self.conv2(x1, batch)
        return self.mlp(global_max_pool(torch.cat([x1, x2], dim=1), batch))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, pos: Tensor, batch: Tensor) -> tuple[float, float]:
    """Return a training step's seconds and loss."""
    start = time.perf_counter()
    loss = nn.functional.cross_entropy(model(pos, batch), torch.arange(int(batch[-1]) + 1) % 10)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clouds", type=int, default=8)
    parser.add_argument("--points", type=int, default=1024)
    args = parser.parse_args()
    torch.manual_seed(0)
    before, after = Net(Theirs), Net(DynamicEdgeConv)
    after.load_state_dict(before.state_dict())
    pos, batch = torch.randn(args.clouds * args.points, 3), torch.arange(args.clouds).repeat_interleave(args.points)
    runs = [(model, torch.optim.Adam(model.parameters(), 1e-3)) for model in (before, after)]
    taken: list[list[float]] = [[], []]
    for number in range(args.rounds + 1):
        losses = []
        for (model, optimizer), seconds in zip(runs, taken, strict=True):
            found, loss = step(model, optimizer, pos, batch)
            seconds += [found] * (number > 0)  # the first compiles
            losses.append(loss)
        print(
            f"step {number}: loss {losses[0]:.4f} with torch_geometric's layer, {losses[1]:.4f} with ours", flush=True
        )
    ratios = [one / other for one, other in zip(*taken, strict=True)]
    middle = [1000 * statistics.median(seconds) for seconds in taken]
    print(
        f"{args.clouds} clouds of {args.points} points, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        f"{middle[0]:.0f} ms and {middle[1]:.0f} ms, ratio {statistics.median(ratios):.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
