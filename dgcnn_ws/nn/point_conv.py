"""A shared 1×1 convolution, norm and activation at every point, beside what the points of a cloud share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.backend import check_backend, negative_slope
from dgcnn_ws.nn.norm import affine_from_moments, affine_sign, make_layer, needs_moments
from dgcnn_ws.nn.weight_standardization import effective_weight


class PointConv(nn.Module):
    """act(norm(W [s ; x_i])) at each point i; s is a vector that all points of a cloud share.

    The `reference` backend does this literally, with s repeated at every point. The `fused` one computes the same as

        W [s ; x_i] = W_s s + W_x x_i          the first term once for a cloud, not once for a point

    and adds the first term to the shift of the norm: it keeps W_x x alone for the backward pass.

    Args:
        in_channels: C, channels of a point.
        out_channels: C', channels of a point afterwards.
        shared_channels: D, channels of s; 0 where there is none.
        norm, backend, groups, act: as for `EdgeConv`.

    Shapes: x (B, C, N), shared (B, D) -> (B, C', N), which lies in memory as (B, N, C').
    Raises InputError for an unknown norm or backend, or a shared vector of other than D channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shared_channels: int = 0,
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        groups: int = 16,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backend, self.shared_channels = backend, shared_channels
        self.conv, self.norm = make_layer(
            norm, shared_channels + in_channels, out_channels, bias=False, groups=groups, dims=1
        )
        self.act = nn.LeakyReLU(0.2) if act is None else act
        check_backend(backend, self.act)

    def extra_repr(self) -> str:
        return f"shared_channels={self.shared_channels}, backend={self.backend!r}"

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        if shared is None:
            shared = x.new_empty(x.shape[0], 0)
        if shared.shape != (x.shape[0], self.shared_channels):
            raise InputError(
                f"The shared vectors have shape {tuple(shared.shape)}; this layer takes "
                f"{(x.shape[0], self.shared_channels)}, a row for each cloud."
            )
        slope = negative_slope(self.act)
        ops.check_types(x, self.conv.weight)
        if self.backend == "reference" or slope is None:
            at_points = shared.to(x.dtype).unsqueeze(2).expand(-1, -1, x.shape[2])
            return self.act(self.norm(self.conv(torch.cat([at_points, x], dim=1))))
        return self._fused(x.transpose(1, 2), shared, slope).transpose(1, 2)

    def _fused(self, points: Tensor, shared: Tensor, slope: float) -> Tensor:
        W_s, W_x = effective_weight(self.conv).squeeze(2).tensor_split([self.shared_channels], dim=1)
        y = ops.linear(points, W_x)  # (B, N, C')
        moved = F.linear(shared, W_s.to(shared.dtype)).to(W_s.dtype)  # (B, C'), the same for all points of a cloud
        if needs_moments(self.norm):
            _, mean, var = ops.column_moments(y, affine_sign(self.norm))
        else:
            mean = var = torch.zeros_like(moved)
        scale, shift = affine_from_moments(self.norm, mean + moved, var, points.shape[1])
        return ops.scale_shift_act(y, scale, shift + scale * moved, slope)
