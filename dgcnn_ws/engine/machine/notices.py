"""What the library has to say while it works, shown where a person is watching."""

import logging


def show_notices() -> None:
    """Print the package's log to stderr: today, that kernels are being compiled. Programs choose for themselves."""
    logger = logging.getLogger("dgcnn_ws")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO)
