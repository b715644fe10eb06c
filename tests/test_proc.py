"""What /proc tells of this process and of one that it started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgcnn_ws.proc import count_threads, family, open_files, proc_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_child_its_files_and_its_threads(tmp_path: Path) -> None:
    path = tmp_path / "held"
    code = f"held = open({str(path)!r}, 'w'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()  # the file is open
        assert child.pid in family(os.getpid())
        assert str(path) in open_files(child.pid) and count_threads(child.pid) == 1
        child.stdin.close()
        child.wait()
        assert child.pid not in family(os.getpid())
        with pytest.raises(OSError):
            open_files(child.pid)


def test_tables() -> None:
    assert 0 < (proc_bytes("self/status", "VmRSS") or 0) < (proc_bytes("meminfo", "MemTotal") or 0)
    assert proc_bytes("self/status", "NoSuchField") is None
    assert proc_bytes("no/such/table", "VmRSS") is None
