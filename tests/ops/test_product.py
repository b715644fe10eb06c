"""The product of points and weights: what it refuses."""

import pytest
import torch

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import linear


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_points_and_weights_of_two_types_are_one_sentence(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 5, 3), torch.randn(4, 3)
    with pytest.raises(InputError, match=f"The points are {dtype} and the weights torch.float32; convert one of them"):
        linear(x.to(dtype), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight.bfloat16()).dtype == torch.bfloat16, "autocast makes them one"
