"""What tests of several processes share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment of a shell that neither torchrun nor srun has started; one thread a process."""
    foreign = ("SLURM", "MASTER", "WORLD", "LOCAL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
