"""What the tests of the dataset share."""

import pytest

from tests.datasets import a_dataset


@pytest.fixture
def dataset(tmp_path):
    """An empty dataset in the test's folder."""
    return a_dataset(tmp_path)
