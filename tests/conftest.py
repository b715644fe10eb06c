"""A set of three classes so easy that a network learns it within seconds, in ModelNet's layout."""

import os
import signal
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

# torch's compiler does not tell code for one width of vectors from code for another in its cache.
CACHE = Path(tempfile.gettempdir(), f"torchinductor_{os.getuid()}_{torch.backends.cpu.get_cpu_capability().split()[0]}")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(CACHE)

# Commands that a shell runs in the background are started deaf to Ctrl-C, and so would be all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLASSES = ["ball", "pole", "sheet"]
NUM_TRAIN, NUM_TEST, NUM_POINTS = 40, 11, 48


def write_clouds(path: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    stretch = np.array([[1, 1, 1], [0.05, 1, 0.05], [1, 0.05, 1]])[labels]
    points = rng.normal(size=(count, NUM_POINTS, 3)) * stretch[:, None]
    points /= np.linalg.norm(points, axis=2).max(1)[:, None, None]
    with h5py.File(path, "w") as file:
        file["data"] = points.astype(np.float32)
        file["label"] = labels.astype(np.uint8)[:, None]


@pytest.fixture(scope="session")
def easy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds the easy set under ModelNet10's name."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "modelnet10_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
        write_clouds(folder / f"ply_data_{split}0.h5", count, seed=len(split))
    return root


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Whatever ran before: one seed, one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tiny tensors: several threads would wait for each other


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pictures empty: drawing them takes four times as long as a tiny run's training."""
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: None)


class PublicDGCNN(nn.Module):
    """Today's public classifier, in plain torch: every norm is an attribute of its own and part of a Sequential."""

    def __init__(self, emb_dims: int, k: int, num_classes: int) -> None:
        super().__init__()
        self.k = k
        widths = (3, 64, 64, 128, 256)
        for i in range(1, 5):
            norm = nn.BatchNorm2d(widths[i])
            conv = nn.Conv2d(2 * widths[i - 1], widths[i], 1, bias=False)
            setattr(self, f"bn{i}", norm)
            setattr(self, f"conv{i}", nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.bn5 = nn.BatchNorm1d(emb_dims)
        self.conv5 = nn.Sequential(nn.Conv1d(512, emb_dims, 1, bias=False), self.bn5, nn.LeakyReLU(0.2))
        self.linear1 = nn.Linear(2 * emb_dims, 512, bias=False)
        self.bn6 = nn.BatchNorm1d(512)
        self.linear2 = nn.Linear(512, 256)
        self.bn7 = nn.BatchNorm1d(256)
        self.linear3 = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, N)
        outputs = []
        for i in range(1, 5):
            nearest = torch.cdist(x.mT, x.mT).topk(self.k, largest=False).indices  # (B, N, k)
            batch = torch.arange(len(x))[:, None, None]
            neighbours = x.mT[batch, nearest]  # (B, N, k, C)
            centres = x.mT[:, :, None].expand_as(neighbours)
            edges = torch.cat([neighbours - centres, centres], dim=3).permute(0, 3, 1, 2)
            x = getattr(self, f"conv{i}")(edges).max(dim=3).values
            outputs.append(x)
        x = self.conv5(torch.cat(outputs, dim=1))
        x = torch.cat([F.adaptive_max_pool1d(x, 1), F.adaptive_avg_pool1d(x, 1)], dim=1).squeeze(2)
        x = F.leaky_relu(self.bn6(self.linear1(x)), 0.2)
        x = F.leaky_relu(self.bn7(self.linear2(x)), 0.2)
        return self.linear3(x)


@pytest.fixture
def public_dgcnn() -> type[PublicDGCNN]:
    return PublicDGCNN
