"""The cloud's one feature vector: a shared 1×1 convolution, norm, activation, pooled over the points."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import ops
from dgcnn_ws.nn.backend import check_backend, negative_slope
from dgcnn_ws.nn.norm import affine_from_moments, affine_sign, make_layer
from dgcnn_ws.nn.weight_standardization import effective_weight


class GlobalFeature(nn.Module):
    """act(norm(conv(x))) pooled over the points, by maximum, or by maximum and mean side by side.

    The `fused` backend stores the convolution's output alone for the backward pass, not the normalised and the
    activated tensor too: norm and activation are monotone, so the maximum moves in front of them.

    Shapes: (B, C, N) -> (B, emb_dims), or (B, 2 emb_dims) with `mean_pool`. Arguments as for `EdgeConv`.
    """

    def __init__(
        self,
        in_channels: int,
        emb_dims: int,
        norm: str = "ws_gn",
        backend: str = "auto",
        *,
        groups: int = 16,
        act: nn.Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
        mean_pool: bool = True,
    ) -> None:
        super().__init__()
        self.backend, self.mean_pool = backend, mean_pool
        self.conv, self.norm = make_layer(norm, in_channels, emb_dims, bias=bias, groups=groups, eps=eps, dims=1)
        self.act = nn.LeakyReLU(0.2) if act is None else act
        check_backend(backend, self.act)

    def extra_repr(self) -> str:
        return f"mean_pool={self.mean_pool}, backend={self.backend!r}"

    def forward(self, x: Tensor) -> Tensor:
        slope = negative_slope(self.act)
        ops.check_types(x, self.conv.weight)
        if self.backend == "reference" or slope is None:
            features = self.act(self.norm(self.conv(x)))  # (B, emb_dims, N)
            pooled = [features.max(dim=2).values]
            if self.mean_pool:
                pooled.append(features.mean(dim=2, dtype=self.conv.weight.dtype))
        else:
            y = ops.linear(x.transpose(1, 2), effective_weight(self.conv).squeeze(2), self.conv.bias)
            points = ops.PooledPoints(y, affine_sign(self.norm))
            scale, shift = affine_from_moments(self.norm, points.mean, points.var, x.shape[2])
            pooled = [F.leaky_relu(scale * points.extreme + shift, slope)]
            if self.mean_pool:
                pooled.append(points.mean_act(scale, shift, slope))
        # In the weights' type: that of a network in half precision, and float32 under autocast. All clouds' means have
        # many times in common what they differ by (48 times in a trained network), and half precision would keep that.
        return torch.cat([part.to(self.conv.weight.dtype) for part in pooled], dim=1)

    @torch.no_grad()
    def winners(self, x: Tensor) -> Tensor:
        """Which point each channel's maximum comes from, as the network in evaluation mode pools it.

        Shapes: (B, C, N) -> (B, emb_dims) indices below N; of equal maxima the first.
        """
        return self.act(self.norm(self.conv(x))).argmax(dim=2)
