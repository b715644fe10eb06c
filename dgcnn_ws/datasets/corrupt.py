"""Clouds as the world outside a data set gives them: the kinds of ModelNet40-C (arXiv 2201.12296), made anew.

Each kind is a function of clouds (B, N, 3) in the unit sphere, y up, a strength (1 or 2) and a generator. Those that
take points away leave the same number of every cloud, so that batches stay rectangular. They work on points, not on
meshes: what hides behind what is told by distance alone. Lengths are in units of the sphere's radius.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.datasets.augment import axis_rotation, rotate, uniform
from dgcnn_ws.datasets.modelnet import LabelledClouds
from dgcnn_ws.errors import InputError

STRENGTHS = (1, 2)
Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def nothing(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Nothing happens: what the others are compared with."""
    return points


# --- noise ---


def uniform_noise(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Every coordinate moves by up to 0.02 or 0.05."""
    most = (0.02, 0.05)[strength - 1]
    return points + uniform(points, tuple(points.shape), -most, most, generator)


def gaussian_noise(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Every coordinate moves by N(0, 0.015²) or N(0, 0.03²)."""
    return points + (0.015, 0.03)[strength - 1] * normal(points, tuple(points.shape), generator)


def impulse_noise(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """One point in 30 or in 10 moves by 0.1 to one side of each axis."""
    count = points.shape[1] // (30, 10)[strength - 1]
    noise = torch.zeros_like(points)
    noise[:, :count] = 0.1 * uniform(points, (len(points), count, 3), -1, 1, generator).sign()
    return shuffled(points, generator) + noise


def background_noise(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """One point in 45 or in 15 lies anywhere in the cube around the sphere instead."""
    count = max(1, points.shape[1] // (45, 15)[strength - 1])
    anywhere = uniform(points, (len(points), count, 3), -1, 1, generator)
    return torch.cat([shuffled(points, generator)[:, count:], anywhere], dim=1)


# --- density ---


def fewer_points(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Half, or three quarters of the points are gone, evenly: those that are left are drawn at random."""
    return shuffled(points, generator)[:, : max(1, points.shape[1] // (2, 4)[strength - 1])]


def uneven_density(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Around two or four of the points, of the sixteenth of all that is nearest, three quarters are gone."""
    for _ in range((2, 4)[strength - 1]):
        near = points.shape[1] // 16
        points = ordered(points, nearness(points, generator))
        points = torch.cat([shuffled(points[:, :near], generator)[:, : near - 3 * near // 4], points[:, near:]], dim=1)
    return points


def cutout(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Around three or six of the points, the twentieth of all that is nearest is gone."""
    hole = points.shape[1] // 20
    for _ in range((3, 6)[strength - 1]):
        points = ordered(points, nearness(points, generator))[:, hole:]
    return points


# --- occlusion ---


def occlusion(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Seen from one side, at random and slightly from above: the third or the half that is farthest away is gone."""
    kept = points.shape[1] - points.shape[1] // (3, 2)[strength - 1]
    return ordered(points, distance_from_viewer(points, generator))[:, :kept]


def lidar(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """As `occlusion` by a third, and what is left lies on 24 or 12 levels of height, as a turning scanner sees it."""
    seen = occlusion(points, 1, generator)
    low, high = seen[..., 1:2].amin(1, keepdim=True), seen[..., 1:2].amax(1, keepdim=True)
    step = (high - low).clamp_min(1e-6) / ((24, 12)[strength - 1] - 1)
    height = low + ((seen[..., 1:2] - low) / step).round() * step
    return torch.cat([seen[..., :1], height, seen[..., 2:]], dim=2)


# --- deformation ---


def tilt(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Turned about each axis by up to 7.5 or 15 degrees."""
    most = (7.5, 15.0)[strength - 1] * torch.pi / 180
    for axis in range(3):
        angle = uniform(points, (len(points),), -most, most, generator)
        points = rotate(points, axis_rotation(angle, axis))
    return points


def shear(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Each axis leans towards the others by up to 0.15 or 0.3 of its length."""
    most = (0.15, 0.3)[strength - 1]
    matrix = uniform(points, (len(points), 3, 3), -most, most, generator)
    matrix.diagonal(dim1=1, dim2=2).fill_(1)
    return rotate(points, matrix)


def bulge(points: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Space itself is bent: five places of it move by N(0, 0.1²) or N(0, 0.2²), and what is near them follows."""
    shape = (len(points), 5, 3)
    centres = uniform(points, shape, -0.7, 0.7, generator)
    moves = (0.1, 0.2)[strength - 1] * normal(points, shape, generator)
    near = (-torch.cdist(points, centres).square() / (2 * 0.4**2)).exp()
    return points + near @ moves


CORRUPTIONS: dict[str, Corruption] = {
    "none": nothing,
    "uniform": uniform_noise,
    "gaussian": gaussian_noise,
    "impulse": impulse_noise,
    "background": background_noise,
    "fewer": fewer_points,
    "uneven": uneven_density,
    "cutout": cutout,
    "occlusion": occlusion,
    "lidar": lidar,
    "tilt": tilt,
    "shear": shear,
    "bulge": bulge,
}


class CorruptedClouds(LabelledClouds):
    """A data set whose clouds are corrupted as they are read, each alike whatever the batch it is read in.

    What happens to a shape happens to all its stored points; then, as with any shape, it is centred, scaled into the
    unit sphere, and `num_points` of what is left are taken, or all where fewer are.

    Args:
        dataset: clouds with all their stored points, in the unit sphere, y up.
        num_points: points that the network sees.
        kind: a key of `CORRUPTIONS`; `none` gives the first points as they are.
        strength: 1 or 2.
        seed: of the draw, with the cloud's place.

    Raises InputError where there is no such kind or strength, or the points have features.
    """

    def __init__(self, dataset: LabelledClouds, num_points: int, kind: str, strength: int, seed: int = 0) -> None:
        if kind not in CORRUPTIONS or strength not in STRENGTHS:
            raise InputError(f"There is no corruption {kind!r} of strength {strength}: {', '.join(CORRUPTIONS)}; 1, 2.")
        if dataset.features:
            raise InputError(f"Corruptions move points alone, and these have {' and '.join(dataset.features)} too.")
        super().__init__(dataset.labels, dataset.class_names, dataset.split)
        self.dataset, self.kind, self.strength, self.seed = dataset, kind, strength, seed
        self.wanted = num_points

    @property
    def num_points(self) -> int:
        return self[0][0].shape[0]

    def read(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        batches = list(chosen)
        for places, points in zip(batches, self.dataset.read(batches), strict=True):
            clouds = [self.corrupt(cloud[None], int(place)) for place, cloud in zip(places, points, strict=True)]
            yield torch.cat(clouds)

    def corrupt(self, cloud: Tensor, place: int) -> Tensor:
        """Return one cloud (1, N, 3) as it becomes."""
        generator = torch.Generator(cloud.device).manual_seed(self.seed + place)
        points = CORRUPTIONS[self.kind](cloud, self.strength, generator)
        if self.kind != "none":
            points = shuffled(points - points.mean(1, keepdim=True), generator)
            points = points / points.norm(dim=2).amax(1).clamp_min(torch.finfo(points.dtype).tiny)[:, None, None]
        return points[:, : self.wanted]


def normal(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def ordered(points: Tensor, by: Tensor) -> Tensor:
    """Return the points of each cloud (B, N, 3) in the order of their values (B, N)."""
    return points.gather(1, by.argsort(dim=1, stable=True)[..., None].expand_as(points))


def shuffled(points: Tensor, generator: torch.Generator) -> Tensor:
    return ordered(points, torch.rand(points.shape[:2], generator=generator, device=points.device))


def nearness(points: Tensor, generator: torch.Generator) -> Tensor:
    """Return each point's distance (B, N) from one of them, drawn at random."""
    chosen = torch.randint(points.shape[1], (len(points), 1, 1), generator=generator, device=points.device)
    return (points - points.gather(1, chosen.expand(-1, 1, 3))).norm(dim=2)


def distance_from_viewer(points: Tensor, generator: torch.Generator) -> Tensor:
    """Return how far each point (B, N) is along the view of someone at a random heading, 0 to 30 degrees above."""
    heading = uniform(points, (len(points),), 0, 2 * torch.pi, generator)
    above = uniform(points, (len(points),), 0, torch.pi / 6, generator)
    view = torch.stack([above.cos() * heading.cos(), -above.sin(), above.cos() * heading.sin()], dim=1)
    return (points * F.normalize(view, dim=1)[:, None]).sum(2)
