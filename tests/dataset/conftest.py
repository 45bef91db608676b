"""What the tests of the dataset share."""

import pytest

from etl.files.local import LocalFiles
from tests.datasets import a_dataset


@pytest.fixture
def dataset(tmp_path):
    """An empty dataset in the test's folder."""
    return a_dataset(tmp_path)


@pytest.fixture
def files(tmp_path):
    """A folder that is ready for a dataset."""
    files = LocalFiles(tmp_path / "data")
    files.prepare()
    return files
