"""Networks: today's DGCNN, for clouds and for their parts, and the Weight Standardization paper's."""

from dgcnn_ws.models.dgcnn import DGCNN
from dgcnn_ws.models.dgcnn_seg import DGCNNSeg
from dgcnn_ws.models.dgcnn_tnet import DGCNNTNet
from dgcnn_ws.models.on_batch import OnBatch

MODELS = {"dgcnn": DGCNN, "paper": DGCNNTNet}

__all__ = ["DGCNN", "MODELS", "DGCNNSeg", "DGCNNTNet", "OnBatch"]
