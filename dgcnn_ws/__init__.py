"""DGCNN with Weight Standardization and Group Normalization, for point clouds at any batch size."""

from dgcnn_ws.models import DGCNN, DGCNNSeg, DGCNNTNet
from dgcnn_ws.nn import (
    EdgeConv,
    WSConv1d,
    WSConv2d,
    WSConv3d,
    WSLinear,
    convert_to_ws_gn,
    fuse,
    standardize_weight,
)

__version__ = "0.1.0"

__all__ = [
    "DGCNN",
    "DGCNNSeg",
    "DGCNNTNet",
    "EdgeConv",
    "WSConv1d",
    "WSConv2d",
    "WSConv3d",
    "WSLinear",
    "convert_to_ws_gn",
    "fuse",
    "standardize_weight",
]
