"""Edge lists and groups of clouds, against neighbours found by hand."""

import pytest
import torch
from torch import Tensor

from dgcnn_ws.nn import graphs

SIZES = [5, 5, 4, 7]


def points(count: int = sum(SIZES), seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_clouds_are_what_the_batch_vector_names() -> None:
    assert graphs.cloud_sizes(None, 9) == [9]
    assert graphs.cloud_sizes(torch.tensor([0, 0, 2, 2, 2, 7]), 6) == [2, 3, 1]


def test_a_graph_is_the_same_as_groups_and_as_a_list_in_any_order() -> None:
    groups = graphs.nearest_neighbours(points(), SIZES, 5)
    assert [tuple(idx.shape) for idx in groups] == [(2, 5, 5), (1, 4, 4), (1, 7, 5)]
    sources, targets = graphs.edges_of(groups)
    cloud = torch.arange(4).repeat_interleave(torch.tensor(SIZES))
    assert (cloud[sources] == cloud[targets]).all()
    shuffled = torch.stack([sources, targets])[:, torch.randperm(len(sources))]
    again = graphs.regular_graphs(*graphs.sorted_edges(shuffled, 21, 21), SIZES)
    assert again is not None and len(again) == len(groups)
    for found, expected in zip(again, groups, strict=True):
        assert torch.equal(found.sort(2).values, expected.sort(2).values)


@pytest.mark.parametrize("flaw", ["another degree", "another cloud", "an isolated cloud"])
def test_what_is_no_regular_graph(flaw: str) -> None:
    sources, targets = graphs.edges_of(graphs.nearest_neighbours(points(), SIZES, 3))
    assert graphs.regular_graphs(sources, targets, SIZES) is not None
    if flaw == "another cloud":
        sources[0] = 20
    else:
        keep = torch.ones(len(sources), dtype=torch.bool)
        keep[slice(0, 1) if flaw == "another degree" else slice(15, 30)] = False
        sources, targets = sources[keep], targets[keep]
    assert graphs.regular_graphs(sources, targets, SIZES) is None


def test_nearest_sources_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sources, targets = points(9), points(6, seed=1)
    source_batch, target_batch = torch.tensor([0] * 6 + [2] * 3), torch.tensor([0, 0, 0, 1, 2, 2])
    monkeypatch.setattr(graphs, "ROW_ENTRIES", 7)
    edges = torch.stack(graphs.nearest_sources(sources, targets, source_batch, target_batch, 4))
    found = {(j, i) for j, i in edges.T.tolist()}
    expected = set()
    for i, target in enumerate(targets):
        inside = [j for j in range(9) if source_batch[j] == target_batch[i]]
        inside.sort(key=lambda j, target=target: float((sources[j] - target).norm()))
        expected |= {(j, i) for j in inside[:4]}
    assert found == expected and not any(i == 3 for _, i in found), "a cloud without sources has no edges"
