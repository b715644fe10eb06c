"""What a copy of a published data set holds, file by file, and where copies can be had.

Checksums are of the files inside the archive: mirrors pack archives anew, the files stay the same. MD5 is what was
published; it is broken for making two files that collide, not for making another file that passes for this one.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgcnn_ws.datasets.hdf5 import read_lines
from dgcnn_ws.datasets.modelnet import ModelNet40
from dgcnn_ws.errors import InputError


def new_md5(data: bytes = b"") -> Any:
    """An MD5 sum, on machines too whose policy forbids MD5 for security."""
    return hashlib.md5(data, usedforsecurity=False)


@dataclass(frozen=True)
class Published:
    """A data set in the HDF5 layout as it was published.

    Args:
        name: what the command line calls it.
        folder: name of its folder under the data root.
        train: MD5 of each training file by name, in the order of the split.
        test: the same for test.
        class_names: the classes in label order.
        mirrors: addresses of zips of it, the ones to try first in front.
    """

    name: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...]

    @property
    def files(self) -> dict[str, str]:
        """MD5 of each HDF5 file by name."""
        return self.train | self.test

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """The lines of each small text file; written from here, so that no archive decides the order of clouds."""
        return {
            "shape_names.txt": self.class_names,
            "train_files.txt": tuple(self.train),
            "test_files.txt": tuple(self.test),
        }

    def damage(self, folder: Path) -> dict[str, str]:
        """What is wrong with each file of a copy; empty where all is well.

        Args:
            folder: the layout folder; every HDF5 file in it is read once.
        """
        wrong = {}
        for name, md5 in self.files.items():
            path = folder / name
            if not path.is_file():
                wrong[name] = "is missing"
                continue
            with open(path, "rb") as file:
                if hashlib.file_digest(file, new_md5).hexdigest() != md5:
                    wrong[name] = "is not the published file (its MD5 differs)"
        for name, lines in self.lists.items():
            if not (folder / name).is_file():
                wrong[name] = "is missing"
            elif not _lists(folder / name, lines):
                wrong[name] = f"does not list the {len(lines)} expected names in their order"
        return wrong

    def write_lists(self, folder: Path) -> None:
        """Write the small text files into `folder`."""
        for name, lines in self.lists.items():
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lists(path: Path, expected: tuple[str, ...]) -> bool:
    """Whether the base names in a list are the expected ones; lists carry their author's directories."""
    try:
        return [re.split(r"[/\\]", line)[-1] for line in read_lines(path)] == list(expected)
    except InputError:
        return False


_MODELNET40_CLASSES = """
airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot glass_box
guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink sofa stairs stool table
tent toilet tv_stand vase wardrobe xbox
"""

MODELNET40 = Published(
    name="modelnet40",
    folder=ModelNet40.folder,
    train={
        "ply_data_train0.h5": "3176385ffc31a7b6b5af22191fd920d1",
        "ply_data_train1.h5": "e3f613fb500559403b34925112754dc4",
        "ply_data_train2.h5": "0c56e233a090ff87c3049d4ce08e7d8b",
        "ply_data_train3.h5": "9d2af465adfa33a3285c369f3ca66c45",
        "ply_data_train4.h5": "dff38de489b2c41bfaeded86c2208984",
    },
    test={
        "ply_data_test0.h5": "e9732e6d83b09e79e9a7617df058adee",
        "ply_data_test1.h5": "aba4b12a67c34391cc3c015a6f08ed4b",
    },
    class_names=tuple(_MODELNET40_CLASSES.split()),
    mirrors=(
        "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip",
        "https://github.com/ma-xu/pointMLP-pytorch/releases/download/Modenet40_dataset/modelnet40_ply_hdf5_2048.zip",
        "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
    ),
)
