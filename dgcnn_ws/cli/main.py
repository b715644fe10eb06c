"""The command line: finds the command's file, runs it, and turns what goes wrong into a sentence and an exit code."""

import gc
import importlib
import os
import signal
import sys

from dgcnn_ws import __version__
from dgcnn_ws.cli.arguments import command_line
from dgcnn_ws.engine.machine.allocator import keep_freed_memory
from dgcnn_ws.engine.machine.notices import show_notices
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError

# Read when torch is imported: its threads otherwise spin for milliseconds after each operator, on the cores that
# the project's own threads then need (docs/PERFORMANCE.md).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

COMMANDS = {
    "download": "fetch ModelNet40 from its mirrors, check it, put it in place",
    "prepare": "turn meshes or clouds of your own into a data set",
    "inspect": "count, measure and draw a data set, and find its duplicates",
    "train": "train a network on ModelNet, your own shapes, or the built-in ones",
    "evaluate": "score a checkpoint on a split, class by class",
    "predict": "say which class the shapes in files are of",
    "import": "turn a public PyTorch DGCNN checkpoint into one of ours",
    "compare": "train a grid of norms and micro-batches, and compare them",
    "runs": "list runs with their settings, best score, state and age",
    "export": "write a checkpoint as ONNX or torch.export file, checked against torch",
    "benchmark": "measure time and memory per cloud, beside the reference and the floor",
}

WAY_IN = "In a checkout, run pip install . or make .venv/ready, then .venv/bin/python main.py."

# Where a command's name is a keyword, or a module of the standard library.
MODULES = {"import": "import_weights", "inspect": "inspect_dataset"}


def usage() -> str:
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {' '.join(command_line())} COMMAND [--help] ...",
            "",
            "commands:",
            *lines,
            "",
            f"Point-cloud networks for any batch size; dgcnn_ws {__version__}.",
        ]
    )


def main(arguments: list[str]) -> int:
    """Run a command and return the exit code.

    0, 2 for a user's error, 3 where some of many files could not be read, 128 + signal for a run asked to stop.
    """
    try:
        code = run(arguments)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 128 + signal.SIGINT


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"dgcnn_ws {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: command {name!r} is unknown. Choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    keep_freed_memory()
    try:
        return importlib.import_module(f"dgcnn_ws.cli.{MODULES.get(name, name)}").main(rest) or 0
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed. {WAY_IN}", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder without write permission
        print(f"error: {error.filename or 'writing'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return stop.exit_code


def start(*command: str) -> int:
    """Run the command that the process was started with, or this one with its arguments, and return the exit code."""
    if sys.platform == "win32":
        print("error: dgcnn_ws runs on Linux and macOS. On Windows, run it in WSL.", file=sys.stderr)
        return 2
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a file's name may hold what the terminal cannot show
        stream.reconfigure(errors="backslashreplace")
    show_notices()
    # Importing torch and Numba makes a million objects, none of them garbage, and a training step leaves none either:
    # to look for it after every 700 objects, and once more at the end, costs half as much as importing torch.
    gc.set_threshold(20_000)
    code = main([*command, *sys.argv[1:]])
    gc.freeze()
    return code
