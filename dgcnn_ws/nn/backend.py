"""Which implementation runs: the submodules literally, or the fused computation of the same function."""

from torch import nn

from dgcnn_ws.errors import InputError

BACKENDS = ("auto", "fused", "reference")


def negative_slope(act: nn.Module) -> float | None:
    """Return the slope of a LeakyReLU or ReLU left of zero; None for another activation."""
    if isinstance(act, nn.LeakyReLU) and 0 <= act.negative_slope <= 1:
        return act.negative_slope
    return 0.0 if isinstance(act, nn.ReLU) else None


def check_backend(backend: str, act: nn.Module) -> None:
    """Raise InputError where there is no such backend, or where it cannot run this activation."""
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown. Choose one of {', '.join(BACKENDS)}.")
    if backend == "fused" and negative_slope(act) is None:
        raise InputError(
            f"backend 'fused' cannot move the maximum in front of {type(act).__name__}. "
            "Use LeakyReLU or ReLU, or backend 'auto'."
        )
