"""Synchronised batch norm where there is one process; several are in tests/engine/parallel/test_processes.py."""

import copy

import pytest
import torch
from torch import nn

from dgcnn_ws.nn.batch_norm import SyncBatchNorm, synchronize_batch_norms


@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 7), (2, 5, 4, 3)])
def test_one_process_has_torchs_batch_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    expected = nn.Sequential(kind(5, eps=1e-3, momentum=0.3)).double()
    nn.init.normal_(expected[0].weight)
    synced = copy.deepcopy(expected)
    synchronize_batch_norms(synced)
    assert isinstance(synced[0], SyncBatchNorm) and synced.state_dict().keys() == expected.state_dict().keys()
    for training in (True, True, False):
        x = (3 + torch.randn(shape, dtype=torch.float64)).requires_grad_()
        g = torch.randn_like(x)
        out, wanted = (model.train(training)(x) for model in (synced, expected))
        torch.testing.assert_close(out, wanted)
        torch.testing.assert_close(
            torch.autograd.grad(out, (x, *synced.parameters()), g),
            torch.autograd.grad(wanted, (x, *expected.parameters()), g),
        )
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], value)


def test_the_optimizers_parameters_stay_the_models() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ModuleDict({"norm": nn.BatchNorm1d(5)}))
    parameters = list(model.parameters())
    synchronize_batch_norms(model)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
