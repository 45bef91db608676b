"""The obstore store of a URL, for a dataset in a bucket: options, credentials, patience, and what its errors mean in one line."""

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from etl.errors import ConfigurationError, DestinationError, FileMissingError
from etl.model.locations import Options

PATIENT_SECONDS, HASTY_SECONDS = 120, 6
"""How long a store that fails is asked again."""
_PATIENT: Mapping[str, Any] = {
    # A part of 16 MiB, eight of which are read at once, on a line of 4 Mbit/s.
    "client_options": {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=5)},
    "retry_config": {"max_retries": 100, "retry_timeout": timedelta(seconds=PATIENT_SECONDS)},
}
_HASTY: Mapping[str, Any] = {
    "client_options": {"connect_timeout": timedelta(seconds=4), "timeout": timedelta(seconds=6)},
    "retry_config": {"max_retries": 100, "retry_timeout": timedelta(seconds=HASTY_SECONDS)},
}
_ADDRESS = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?(/[^?#@\s]*)?")
_CODES = {
    "NoSuchBucket": "no such bucket: create it, or fix [destination] path",
    "InvalidAccessKeyId": "the store does not know this access key: check the credentials",
    "SignatureDoesNotMatch": "the secret key does not match the access key: check the credentials",
    "ExpiredToken": "the credentials have expired: renew them, and run again",
}
_OUTAGES = ("SlowDown", "InternalError", "ServiceUnavailable", "ServerBusy", "OperationTimedOut")
_NO_ANSWER = "error sending request"
_NO_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_KEY, or give the machine an identity",
}
_METADATA_ADDRESSES = ("169.254.169.254", "metadata.google.internal")
_QUERY = r"\?\S*"  # of an address: it may hold a signature
_NO_STORE = re.compile("<html|ETag Header missing", re.IGNORECASE)
_REFUSED = r"403 Forbidden|401 Unauthorized|AccessDenied"


def open_store(url: str, options: Options, *, is_hasty: bool = False) -> ObjectStore:
    """The store of the URL; asks nothing of it yet. A hasty one gives a request up after some seconds, not minutes.

    What is missing or no good in the URL, the options, the environment or the packages is a ConfigurationError.
    """
    parts, settings, common = _arguments(url, options, _HASTY if is_hasty else _PATIENT)
    common["prefix"] = parts.path.strip("/") or None  # as it is written: ``from_url`` would decode it
    try:
        match parts.scheme:
            case "s3":
                # One object in each request: not every store knows the other way.
                return S3Store(parts.netloc, config=settings | {"disable_bulk_delete": True}, **common)
            case "gs":
                return GCSStore(parts.netloc, config=settings, **common)
            case _:
                return AzureStore(parts.netloc, config=settings, **common)
    except (BaseError, ValueError) as exc:
        reason = str(exc).split("\n\nDebug source")[0]
        raise ConfigurationError(f"{url}: {reason}: set it in [destination.options] or the environment") from exc


def open_filesystem(url: str, options: Options) -> tuple[Any, str]:
    """The file system of the URL's store for fsspec, and the folder of the URL in it; for engines that read by themselves.

    It can be pickled, with the options, and the keys of an AWS profile if they come from one. Errors as for ``open_store``.
    """
    parts, settings, common = _arguments(url, options, _PATIENT)
    from obstore.fsspec import FsspecStore  # noqa: PLC0415

    scheme: Any = parts.scheme
    return FsspecStore(scheme, config=settings, **common), f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")


def _arguments(url: str, options: Options, patience: Mapping[str, Any]) -> tuple[SplitResult, Any, dict[str, Any]]:
    """The parts of the URL, and of obstore's arguments the settings and the others; errors as for ``open_store``."""
    config = dict[str, Any](options)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{url.partition('://')[0]}://…: give SCHEME://BUCKET/FOLDER") from None
    endpoint = str(config.get("endpoint") or (os.environ.get("AWS_ENDPOINT_URL", "") if parts.scheme == "s3" else ""))
    if ("endpoint" in config or endpoint) and not _ADDRESS.fullmatch(endpoint):
        raise ConfigurationError(f"{url}: the endpoint must be http(s)://HOST or http(s)://HOST:PORT")
    if parts.scheme == "s3":
        config |= _shared_profile()
    client = patience["client_options"] | {"allow_http": endpoint.startswith("http://")}
    return parts, config, {**patience, "client_options": client}


def _shared_profile() -> dict[str, str]:
    """The keys of a shared profile, where the environment gives none; obstore itself knows all other places."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    # Nobody's home, and a file that is missing, are no mistakes.
    file = os.path.expanduser(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")  # noqa: PTH111 Path raises
    named = os.environ.get("AWS_PROFILE")
    profiles = ConfigParser(interpolation=None)
    try:
        profiles.read(file, encoding="utf-8")
    except (ParserError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file}: not a valid AWS credentials file: {type(exc).__name__}") from None
    profile = profiles[named or "default"] if profiles.has_section(named or "default") else {}
    if named and "aws_access_key_id" not in profile:
        raise ConfigurationError(
            f'{file}: the profile {named} has no keys: eval "$(aws configure export-credentials --profile {named} --format env)" '
            "sets them"
        )
    names = ("access_key_id", "secret_access_key", "session_token")
    return {name: profile[f"aws_{name}"] for name in names if f"aws_{name}" in profile}


class ConflictError(DestinationError):
    """The object is not, or not any more, what was to be replaced."""


class StoreFailedError(DestinationError):
    """The store gave no answer that tells anything of the object, however often it was asked."""


def no_answer(url: str) -> StoreFailedError:
    """What to raise where the store below the URL was not waited for any longer."""
    return StoreFailedError(f"{url}: cannot be reached, or is too slow: check the network, and the endpoint")


def is_cut_off(exc: Exception) -> bool:
    """Whether the store could not be reached, or its answer did not arrive."""
    return _NO_ANSWER in str(exc) and not any(address in str(exc) for address in _METADATA_ADDRESSES)


def store_error(exc: Exception, url: str, path: str, kind: str) -> DestinationError:  # noqa: PLR0911 each is another cause
    """What to raise for what obstore raised, when it was to ``kind`` (get, put, …) the object below the URL."""
    where = f"{url}/{path}" if path else url
    text = str(exc).split("\n\nDebug source")[0]
    if isinstance(exc, AlreadyExistsError | PreconditionError):
        return ConflictError(f"{where}: changed by another program since it was read; nothing was lost: run again")
    if any(address in text for address in _METADATA_ADDRESSES):
        return DestinationError(f"{url}: no credentials found: {_NO_CREDENTIALS[urlsplit(url).scheme]}")
    if _NO_ANSWER in text:
        return no_answer(url)
    code = found[1] if (found := re.search(r"<Code>([A-Za-z]+)</Code>", text)) else ""
    if code in _CODES:
        return DestinationError(f"{url}: {_CODES[code]}")
    if _NO_STORE.search(text):
        return StoreFailedError(f"{url}: the server there is not an object store: check the endpoint")
    if isinstance(exc, FileNotFoundError):
        if kind == "put":
            return ConflictError(f"{where}: removed by another program after it was read; not written: run again")
        return FileMissingError(f"{where}: no such object")
    if re.search(_REFUSED, text):
        return DestinationError(f"{where}: no permission to {kind} it: allow this for all objects below {url}")
    if code:
        message = re.search(r"<Message>([^<]*)</Message>", text)
        text = f"the store returned {code}" + (f": {message[1]}" if message else "")
    kind_of_error = DestinationError if code and code not in _OUTAGES else StoreFailedError
    return kind_of_error(f"{where}: {re.sub(_QUERY, '', ' '.join(text.split()))[:300]}")
