"""A replayed pass gives what the pass itself gives; needs a CUDA device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.engine.machine.cuda_graph import Replay
from dgcnn_ws.models import DGCNN
from dgcnn_ws.nn.norm import one_update


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bcn"])
def test_replayed_steps_are_the_steps(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, 2, 3, 64, generator=generator).cuda()  # four micro-batches of two clouds
    labels = torch.randint(5, (4, 2), generator=generator).cuda()

    def train(wrap: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model = DGCNN(5, k=8, norm=norm, head_norm="est", emb_dims=64).cuda().train()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        losses = torch.zeros((), device="cuda")

        def one_pass(cloud: Tensor, label: Tensor) -> None:
            loss = F.cross_entropy(model(cloud), label)
            loss.backward()
            losses.add_(loss.detach())

        run: Callable[[Tensor, Tensor], None] = Replay(one_pass, model, (losses,)) if wrap else one_pass
        for step in range(3):
            torch.manual_seed(step)  # dropout
            with one_update(model):
                for cloud, label in zip(points, labels, strict=True):
                    run(cloud, label)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not wrap)
        return model.state_dict(), losses

    (plain, loss), (replayed, replayed_loss) = train(False), train(True)
    torch.testing.assert_close(replayed_loss, loss, rtol=1e-4, atol=1e-5)
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-3, atol=1e-4, msg=name)
