"""Nothing but regular files is opened, and nothing makes the exporter wait."""

import os
import socket
from pathlib import Path

import pytest

from etl.load.files.regular import NotRegularError, open_regular


def test_regular_file_is_opened_and_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    descriptor = open_regular(tmp_path / "file")
    assert (os.read(descriptor, 10), os.get_inheritable(descriptor)) == (b"text", False)
    os.close(descriptor)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_whatever_else_lies_there_is_an_error_at_once(tmp_path: Path, flags: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "device").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = len(list(Path("/dev/fd").iterdir()))
        for name in ("folder", "link", "device", "pipe"):
            with pytest.raises(OSError, match=r"."):
                open_regular(tmp_path / name, flags)
        for path in (Path("/dev/null"), tmp_path / "socket"):
            with pytest.raises(NotRegularError, match="is not a regular file: remove it"):
                open_regular(path)
        assert len(list(Path("/dev/fd").iterdir())) == before
