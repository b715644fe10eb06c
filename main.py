"""The command line of a checkout: `python main.py COMMAND --help` explains each command; installed it is `dgcnn-ws`."""

import sys

from dgcnn_ws.cli.main import start

if __name__ == "__main__":
    sys.exit(start())
