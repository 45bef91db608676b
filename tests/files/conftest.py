"""What the tests of storages share."""

import pytest

from etl.files.local import LocalFiles


@pytest.fixture
def files(tmp_path):
    """A folder that is ready for a dataset."""
    files = LocalFiles(tmp_path / "data")
    files.prepare()
    return files
