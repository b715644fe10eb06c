"""Layers: weight standardization, norms by one word, EdgeConv; any model converted to weight standardization."""

from dgcnn_ws.nn.convert import convert_to_ws_gn, fuse
from dgcnn_ws.nn.edge_conv import EdgeConv
from dgcnn_ws.nn.global_feature import GlobalFeature
from dgcnn_ws.nn.gradient_cache import cached_backward
from dgcnn_ws.nn.norm import NORMS, BatchChannelNorm, RunningEstimates, one_update
from dgcnn_ws.nn.point_conv import PointConv
from dgcnn_ws.nn.weight_standardization import WSConv1d, WSConv2d, WSConv3d, WSLinear, standardize_weight

__all__ = [
    "NORMS",
    "BatchChannelNorm",
    "EdgeConv",
    "GlobalFeature",
    "PointConv",
    "RunningEstimates",
    "WSConv1d",
    "WSConv2d",
    "WSConv3d",
    "WSLinear",
    "cached_backward",
    "convert_to_ws_gn",
    "fuse",
    "one_update",
    "standardize_weight",
]
