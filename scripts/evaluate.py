"""Score a checkpoint: `python scripts/evaluate.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout, installed or not
    from dgcnn_ws.cli.main import start

    sys.exit(start("evaluate"))
