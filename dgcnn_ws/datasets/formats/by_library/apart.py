"""Readers that a damaged file can crash: each file in a process of its own.

A crash there, too much memory or too much time is an error here, and nothing else.
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SECONDS = 120  # of the processor, for one file
MEMORY = 4 << 30
LIMITS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""


def read_apart(code: str, data: bytes, ending: str) -> np.ndarray:
    """The array that `code` makes of a file, in a process of its own.

    Args:
        code: Python that reads the file called by `source` and saves a .npy called by `target`.
        data: the file's contents.
        ending: its name's, as the library wants it.

    Raises:
        ValueError: the process failed; its last line says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, f"in{ending}"), Path(folder, "out.npy")
        source.write_bytes(data)
        limits = LIMITS.format(memory=MEMORY, seconds=SECONDS) if sys.platform == "linux" else ""
        start = [sys.executable, "-c", f"{limits}\nsource, target = {str(source)!r}, {str(target)!r}\n{code}"]
        try:
            done = subprocess.run(
                start, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=10 * SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"reading it took more than {10 * SECONDS} s") from error
        if done.returncode < 0:
            raise ValueError("its library crashed on it: it is damaged, or takes too much memory or time")
        if done.returncode or not target.is_file():
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(last.partition(": ")[2] or last)
        array: np.ndarray = np.load(io.BytesIO(target.read_bytes()), allow_pickle=False)
        return array
