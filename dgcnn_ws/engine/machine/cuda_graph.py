"""A forward and backward pass recorded once and replayed: one launch where there were hundreds.

A micro-batch of one cloud gives a GPU so little to do that launching its kernels takes longer than they do.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3  # passes before the recording, in which kernels are compiled and libraries set up


class Replay:
    """`function(points, labels)`, recorded as a CUDA graph at the first call and replayed at each.

    The recording is made once for the first call's shapes. Gradients are added to tensors that stay where they are:
    use `optimizer.zero_grad(set_to_none=False)`.

    Args:
        function: runs `model` forward and backward, adds to gradients and buffers, and reads nothing back.
        model: on a CUDA device.
        buffers: other tensors that `function` changes.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], None], model: nn.Module, buffers: tuple[Tensor, ...] = ()
    ) -> None:
        self.function, self.model, self.buffers = function, model, buffers
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, points: Tensor, labels: Tensor) -> None:
        if self.graph is None:
            with torch.cuda.device(points.device):  # streams, graph and generator are the current device's
                self.graph = self._record(points, labels)
        self.points.copy_(points)
        self.labels.copy_(labels)
        self.graph.replay()

    def _record(self, points: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph:
        self.points, self.labels = points.clone(), labels.clone()
        for parameter in self.model.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        changed = [*gradients, *self.model.buffers(), *self.buffers]
        before = [tensor.clone() for tensor in changed]
        random_state = torch.cuda.get_rng_state(points.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.function(self.points, self.labels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.function(self.points, self.labels)
        # As if nothing had run yet: the warm-up did, the recording did not.
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state(random_state, points.device)
        return graph
