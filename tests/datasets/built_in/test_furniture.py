"""The classes of Shapes: every one gives valid clouds, in the vocabulary's words and the right way up."""

import numpy as np
import pytest

from dgcnn_ws.datasets.built_in import furniture, shapes


@pytest.mark.parametrize("name", furniture.CLASSES)
def test_every_class_gives_valid_clouds(name: str) -> None:
    for seed in range(12):
        points, part = shapes.sample_cloud(name, np.random.default_rng(seed))
        assert points.shape == (2048, 3) and points.dtype == np.float32 and np.isfinite(points).all()
        assert part.shape == (2048,) and part.dtype == np.uint8 and part.max() < len(furniture.PART_NAMES)
        assert np.abs(points.mean(0)).max() < 1e-5
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-5)
        assert len(np.unique(points, axis=0)) > 2000


def test_vocabulary() -> None:
    assert len(furniture.CLASSES) == 16 and list(furniture.CLASSES) == sorted(furniture.CLASSES)
    assert len(furniture.PART_NAMES) == 12 and set(furniture.OPTIONAL_PARTS) < set(furniture.PART_NAMES)


def test_up_is_y() -> None:
    """Seats lie above legs, shades above bases, whatever else is random."""
    for name, above, below in (("stool", "seat", "leg"), ("table", "top", "leg"), ("lamp", "shade", "base")):
        for seed in range(8):
            points, part = shapes.sample_cloud(name, np.random.default_rng(seed))
            height = [points[part == furniture.PART_NAMES.index(word), 1] for word in (above, below)]
            if all(len(values) > 20 for values in height):
                assert height[0].mean() > height[1].mean()
