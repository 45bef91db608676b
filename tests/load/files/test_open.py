"""A location says which storage the dataset has; nothing else in the exporter knows."""

from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.load.files.local import LocalFiles
from etl.load.files.open import open_files


@pytest.mark.parametrize("location", ["{home}/data", "~/data", "data", "./data", "{home}/data/"])
def test_a_location_without_a_scheme_is_a_folder(tmp_path, monkeypatch, location):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = open_files(location.format(home=tmp_path))
    assert isinstance(files, LocalFiles)
    assert files.where() == str(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["c:data", "a:b", "s3:", "://", "x:/y"])
def test_a_colon_alone_is_no_scheme(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert open_files(name).where() == str(Path(tmp_path / name))


@pytest.mark.parametrize(
    "location", ["s3://bucket", "gs://b/c", "az://b", "abfs://b", "https://host/x", "file:///data"]
)
def test_another_scheme_is_refused_in_one_line(location):
    with pytest.raises(ConfigurationError) as caught:
        open_files(location)
    assert str(caught.value) == f"buckets are not supported yet: give a folder, got {location!r}"


@pytest.mark.parametrize("location", ["~nosuchuser/data", "~nosuchuser"])
def test_home_of_nobody_is_refused_in_one_line(location):
    with pytest.raises(
        ConfigurationError, match=r"^~nosuchuser.*: this machine knows no such user's home: give the whole path$"
    ):
        open_files(location)
