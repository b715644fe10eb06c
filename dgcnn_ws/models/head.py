"""The fully connected head: where small batches hurt batch norm first, B values per channel being all it has."""

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


def default_head_norm(norm: str) -> str:
    """Return the head's norm where none is given: `bn` beside batch norm, else `est`, safe in micro-batches."""
    return "bn" if norm_kind(norm).uses_batch_statistics else "est"


class Head(nn.Module):
    """Hidden fully connected layers with norm, activation and dropout; the last layer is always plain.

    Args:
        in_features: size of the pooled vector.
        out_features: number of classes (logits).
        hidden: sizes of the hidden layers.
        norm: the body's norm word: says whether hidden layers that a norm follows are standardized.
        head_norm: one of `HEAD_NORMS`; None for the norm's default.
        parts: parts of the pooled vector that `ln` normalises apart.
        bias: for each hidden layer that a norm follows, whether it has a bias.
        dropout: one probability for each hidden layer.

    Shapes: (B, in_features) -> (B, out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: tuple[int, ...],
        norm: str,
        head_norm: str | None,
        *,
        parts: int,
        groups: int,
        act: nn.Module,
        bias: tuple[bool, ...],
        dropout: tuple[float, ...],
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        head_norm = default_head_norm(norm) if head_norm is None else head_norm
        if head_norm not in HEAD_NORMS:
            raise InputError(f"head norm {head_norm!r} is unknown. Choose one of {', '.join(HEAD_NORMS)}.")
        first: dict[str, nn.Module] = {
            "ln": nn.GroupNorm(parts, in_features),  # layer norm over each part
            "est": RunningStandardization(in_features),
        }
        self.pooled_norm = first.get(head_norm, nn.Identity())
        layers: list[nn.Module] = []
        for width, has_bias, p in zip(hidden, bias, dropout, strict=True):
            layers += self._hidden(in_features, width, norm, head_norm, groups, has_bias, eps)
            layers += [act, nn.Dropout(p)]
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
