"""The Triton kernels behind `cuda`: each program does a tile of points by channels, or of rows.

No atomics, and no order of summation that depends on timing. Half precision is widened to float32 at each
load; offsets are 64-bit wherever a cloud or a point enters them.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit
def load(pointers, mask):
    values = tl.load(pointers, mask, other=0)
    return values if values.dtype == tl.float64 else values.to(tl.float32)


@triton.jit
def tile(num_points, channels, tiles, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return this program's cloud, points (ROWS, 1), channels (1, COLS), and which entries exist."""
    cloud = (tl.program_id(0) // tiles).to(tl.int64)
    rows = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)[:, None]
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    return cloud, rows, cols, (rows < num_points) & (cols < channels)
