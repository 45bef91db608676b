"""A bucket's URL, its options and the environment make a store, or a mistake that names the fix."""

from contextlib import nullcontext

import pytest
from obstore import exceptions
from obstore.store import S3Store

from etl.errors import ConfigurationError, DestinationError
from etl.files import store
from etl.files.objects import Objects
from tests.stores import proxied

PATH = "calls/run_test=a/month=2026-11/part-0.parquet"


@pytest.mark.parametrize("endpoint", ["minio:9000", "", "http://user:secret@host", "https://host?sig=x"])
def test_an_endpoint_that_is_no_address_is_a_mistake(endpoint):
    with pytest.raises(ConfigurationError, match=r"the endpoint must be http\(s\)://HOST") as caught:
        Objects("s3://b", {"endpoint": endpoint})
    assert "secret" not in str(caught.value)


def test_folder_in_a_bucket_is_the_one_that_is_written():
    found = store.open_store("s3://bucket/old%20x/..%2F", {})
    assert isinstance(found, S3Store)
    assert found.prefix == "old%20x/..%2F"


def test_options_that_the_store_refuses_are_a_mistake_in_the_settings():
    for url, options, reason in (("az://c", {}, ".*ccount.*"), ("s3://c", {"foo": "x"}, ".*for store 'S3'")):
        with pytest.raises(ConfigurationError, match=rf"{url}: {reason}\. Correct \[destination.options\]"):
            Objects(url, options)


@pytest.mark.parametrize(("profile", "key"), [(None, "a-key"), ("other", "b-key")])
def test_a_shared_profile_gives_the_keys(seaweed_store, tmp_path, monkeypatch, profile, key):
    file = tmp_path / "credentials"
    secrets = ("a-secret", "b-secret")
    file.write_text(
        "".join(
            f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
            for name, key, secret in zip(("default", "other"), ("a-key", "b-key"), secrets, strict=True)
        )
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    with proxied(seaweed_store) as proxy:
        objects = Objects(proxy.store.url(), proxy.options)
        refused = pytest.raises(DestinationError, match="does not know this access key")
        with nullcontext() if key == "a-key" else refused:
            objects.put(PATH, b"one", None)
        assert f"Credential={key}/" in proxy.requests[0].headers["authorization"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sso]\nsso_session = mine\n", " has no keys. To set them, run eval"),
        ("no section", "not a valid AWS credentials file"),
    ],
)
def test_a_profile_without_keys_is_a_mistake_that_names_the_way(tmp_path, monkeypatch, text, words):
    (tmp_path / "credentials").write_text(text)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(ConfigurationError, match=words):
        Objects("s3://bucket", {})


@pytest.mark.parametrize(
    ("url", "words"), [("s3://b", "AWS_ACCESS_KEY_ID"), ("gs://b", "GOOGLE_APPLICATION_CREDENTIALS")]
)
def test_missing_credentials_are_told_with_the_places_where_they_may_be(monkeypatch, tmp_path, url, words):
    """The machine is told to ask an address of its own for its identity, where nobody answers so."""
    objects = Objects(url, {})
    with pytest.raises(DestinationError) as caught, objects._naming(PATH, "get"):
        raise exceptions.GenericError("Error performing PUT http://169.254.169.254/latest/api/token in 2 ms - refused")
    assert str(caught.value).startswith(f"{url}: no credentials were found. Set {words}")
