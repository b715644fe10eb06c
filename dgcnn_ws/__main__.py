"""`python -m dgcnn_ws`: the command line."""

import sys

from dgcnn_ws.cli.main import start

sys.exit(start())
