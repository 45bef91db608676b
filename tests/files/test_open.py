"""A location says which storage the dataset has; nothing else in the exporter knows."""

import sys
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.files.bucket import BucketFiles
from etl.files.local import LocalFiles
from etl.files.open import open_files


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


@pytest.mark.parametrize(("location", "options"), [("s3://b/c", {}), ("gs://b", {}), ("az://b", {"account_name": "a"})])
def test_a_url_of_a_bucket_is_one_and_is_not_asked(location, options):
    files = open_files(location, options)
    assert isinstance(files, BucketFiles)
    assert files.where("x") == f"{location}/x"
    assert not files.requests


def test_a_missing_package_is_a_mistake_that_names_the_extra(monkeypatch):
    for name in ("bucket", "objects"):
        monkeypatch.delitem(sys.modules, f"etl.files.{name}")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r'^s3://b needs the extra "bucket", because obstore is not'):
        open_files("s3://b", {})


@pytest.mark.parametrize("location", ["abfs://b", "https://host/x", "file:///data"])
def test_another_scheme_is_refused_in_one_line(location):
    with pytest.raises(ConfigurationError) as caught:
        open_files(location)
    assert str(caught.value).startswith(f"{location.partition('://')[0]}://… is not supported. Use a folder, or a URL")


@pytest.mark.parametrize("location", ["~nosuchuser/data", "~nosuchuser"])
def test_home_of_nobody_is_refused_in_one_line(location):
    message = r"^~nosuchuser.* names an unknown user. Write the path in full$"
    with pytest.raises(ConfigurationError, match=message):
        open_files(location)
