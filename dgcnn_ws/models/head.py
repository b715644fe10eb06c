"""The fully connected head: where small batches hurt batch norm first, B values per channel being all it has."""

from collections.abc import Sequence

from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.norm import RunningStandardization, make_layer, norm_kind

HEAD_NORMS = (
    "bn",  # batch norm after each hidden layer; cannot train on one cloud at a time
    "gn",  # group norm after each hidden layer
    "ln",  # layer norm on each part (max, mean) of the pooled vector; none after
    "est",  # the pooled vector standardized by running estimates; none after
    "none",
)


def head_norm_word(norm: str, head_norm: str | None) -> str:
    """Return `head_norm`, or for None the norm's default: `bn` beside batch norm, else `est`, safe in micro-batches.

    Raises InputError for an unknown word.
    """
    if head_norm is None:
        return "bn" if norm_kind(norm).uses_batch_statistics else "est"
    if head_norm == "bn_whole":
        raise InputError("head norm 'bn_whole' is bn in training: make the network with bn, and use cached_backward.")
    if head_norm not in HEAD_NORMS:
        raise InputError(f"head norm {head_norm!r} is unknown. Choose one of {', '.join(HEAD_NORMS)}.")
    return head_norm


def pooled_norm(head_norm: str, channels: int, parts: int = 1) -> nn.Module:
    """Return what normalises a cloud's pooled vector before the first layer that takes it."""
    if head_norm == "ln":
        return nn.GroupNorm(parts, channels)  # layer norm over each part
    return RunningStandardization(channels) if head_norm == "est" else nn.Identity()


class Head(nn.Module):
    """Hidden fully connected layers with norm, activation and dropout; the last layer is always plain.

    Args:
        in_features: size of the pooled vector.
        out_features: number of classes (logits).
        hidden: sizes of the hidden layers.
        norm: the body's norm word: says whether hidden layers that a norm follows are standardized.
        head_norm: one of `HEAD_NORMS`; None for the norm's default.
        parts: parts of the pooled vector that `ln` normalises apart.
        act: activation after each hidden layer, by default LeakyReLU(0.2).
        bias: whether the first hidden layer has a bias where a norm follows it; the others do.
        dropout: probability after each hidden layer.

    Shapes: (B, in_features) -> (B, out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int],
        norm: str,
        head_norm: str | None,
        *,
        parts: int = 1,
        groups: int,
        act: nn.Module | None = None,
        bias: bool = False,  # the public networks' layout
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        head_norm = head_norm_word(norm, head_norm)
        act = nn.LeakyReLU(0.2) if act is None else act
        self.pooled_norm = pooled_norm(head_norm, in_features, parts)
        layers: list[nn.Module] = []
        for i, width in enumerate(hidden):
            layers += self._hidden(in_features, width, norm, head_norm, groups, bias or i > 0, eps)
            layers += [act, nn.Dropout(dropout)]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, out_features))

    @staticmethod
    def _hidden(
        in_features: int, width: int, norm: str, head_norm: str, groups: int, bias: bool, eps: float
    ) -> list[nn.Module]:
        if head_norm not in ("bn", "gn"):
            return [nn.Linear(in_features, width)]
        word = f"ws_{head_norm}" if norm_kind(norm).standardized else head_norm
        return list(make_layer(word, in_features, width, bias=bias, groups=groups, eps=eps, dims=0))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.layers(self.pooled_norm(pooled))
