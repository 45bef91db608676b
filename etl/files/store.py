"""The obstore store of a bucket's URL: options, credentials, patience, and what its errors mean, each in one line.

Sends no request itself. No key and no signature ever stands in a message.
"""

import os
import re
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from etl.errors import ConfigurationError, DestinationError, FileMissingError
from etl.files.refusals import is_denied, refusal, tag
from etl.model.locations import Options

PATIENT_SECONDS = 120
"""How long a request to a store that fails is repeated."""
HASTY_SECONDS = 6
"""The same where giving up is better than waiting."""
_STORES: Mapping[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
"""By URL scheme, obstore's class of the store."""
_PATIENT: Mapping[str, Any] = {
    # A part of 16 MiB, eight of which are read at once, on a line of 4 Mbit/s.
    "client_options": {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=5)},
    "retry_config": {"max_retries": 100, "retry_timeout": timedelta(seconds=PATIENT_SECONDS)},
}
_HASTY: Mapping[str, Any] = {
    "client_options": {"connect_timeout": timedelta(seconds=4), "timeout": timedelta(seconds=6)},
    "retry_config": {"max_retries": 100, "retry_timeout": timedelta(seconds=HASTY_SECONDS)},
}
# An endpoint without user, query or fragment, which might hold a secret.
_ADDRESS = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?(/[^?#@\s]*)?")
# Codes of a store that may work a minute later.
_OUTAGES = ("SlowDown", "InternalError", "ServiceUnavailable", "ServerBusy", "OperationTimedOut")
_NO_ANSWER = "error sending request"
_NO_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account",
    "az": "Set AZURE_STORAGE_ACCOUNT_KEY, or give the machine an identity",
}
# Where obstore asks the machine for its identity, if it finds no credentials anywhere else.
_METADATA_ADDRESSES = ("169.254.169.254", "metadata.google.internal")
_QUERY = r"\?\S*"  # the query of an address: it may hold a signature
_NO_STORE = re.compile("<html|ETag Header missing", re.IGNORECASE)


def open_store(url: str, options: Options, *, is_hasty: bool = False) -> ObjectStore:
    """The store of the URL, without sending anything yet. A hasty one gives up a request within seconds, not minutes.

    Raises:
        ConfigurationError: something is missing from the URL, the options or the environment, or is not valid.
    """
    parts, settings, common = _arguments(url, options, _HASTY if is_hasty else _PATIENT)
    if parts.scheme == "s3":  # objects are deleted one by one: not every store knows bulk requests
        settings |= {"disable_bulk_delete": True}
    common["prefix"] = parts.path.strip("/") or None  # as it is written: ``from_url`` would decode it
    try:
        return _STORES[parts.scheme](parts.netloc, config=settings, **common)
    except (BaseError, ValueError) as exc:
        reason = str(exc).split("\n\nDebug source")[0].rstrip(".")
        raise ConfigurationError(f"{url}: {reason}. Correct [destination.options] or the environment") from exc


def open_filesystem(url: str, options: Options) -> tuple[Any, str]:
    """An fsspec file system for the URL's store, and the URL's folder in it; for engines that read by themselves.

    It can be pickled. The pickle holds the options, and keys if they come from an AWS profile. Errors as for
    ``open_store``.
    """
    parts, settings, common = _arguments(url, options, _PATIENT)
    from obstore.fsspec import FsspecStore  # noqa: PLC0415

    scheme: Any = parts.scheme
    return FsspecStore(scheme, config=settings, **common), f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")


def _arguments(url: str, options: Options, patience: Mapping[str, Any]) -> tuple[SplitResult, Any, dict[str, Any]]:
    """The parts of the URL, obstore's ``config``, and its other arguments. Errors as for ``open_store``."""
    config = dict[str, Any](options)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{url.partition('://')[0]}://… is invalid. Use SCHEME://BUCKET/FOLDER") from None
    endpoint = str(config.get("endpoint") or (os.environ.get("AWS_ENDPOINT_URL", "") if parts.scheme == "s3" else ""))
    if ("endpoint" in config or endpoint) and not _ADDRESS.fullmatch(endpoint):
        raise ConfigurationError(f"{url}: the endpoint must be http(s)://HOST or http(s)://HOST:PORT. Correct it")
    if parts.scheme == "s3":
        config |= _shared_profile()
    client = patience["client_options"] | {"allow_http": endpoint.startswith("http://")}
    return parts, config, {**patience, "client_options": client}


def _shared_profile() -> dict[str, str]:
    """The keys of an AWS profile, if the environment has none; obstore itself looks in all other places.

    Raises:
        ConfigurationError: the credentials file is not valid, or the profile that ``AWS_PROFILE`` names has no keys.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    # A missing file or home directory is not an error.
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    file = os.path.expanduser(file)  # noqa: PTH111 Path raises if there is no home
    named = os.environ.get("AWS_PROFILE")
    profiles = ConfigParser(interpolation=None)
    try:
        profiles.read(file, encoding="utf-8")
    except (ParserError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file} is not a valid AWS credentials file: {type(exc).__name__}") from None
    profile = profiles[named or "default"] if profiles.has_section(named or "default") else {}
    if named and "aws_access_key_id" not in profile:
        raise ConfigurationError(
            f"the profile {named} in {file} has no keys. To set them, run "
            f'eval "$(aws configure export-credentials --profile {named} --format env)"'
        )
    names = ("access_key_id", "secret_access_key", "session_token")
    return {name: profile[f"aws_{name}"] for name in names if f"aws_{name}" in profile}


class ConflictError(DestinationError):
    """The object is not what was to be replaced: another program changed, made or removed it."""


class StoreFailedError(DestinationError):
    """The store gave no usable answer, however often the request was repeated; the object may be anything."""


def no_answer(url: str) -> StoreFailedError:
    """The error for a store that was not waited for any longer."""
    return StoreFailedError(f"{url} cannot be reached, or is too slow. Check the network and the endpoint")


def is_cut_off(exc: Exception) -> bool:
    """Whether the connection failed: the store was not reached, or its answer did not arrive."""
    return _NO_ANSWER in str(exc) and not any(address in str(exc) for address in _METADATA_ADDRESSES)


def store_error(exc: Exception, url: str, path: str, kind: str) -> DestinationError:  # noqa: PLR0911
    """The error for what obstore raised when it should ``kind`` (get, put, …) the object below the URL."""
    where = f"{url}/{path}" if path else url
    text = str(exc).split("\n\nDebug source")[0]
    if isinstance(exc, AlreadyExistsError | PreconditionError):
        return ConflictError(f"another program changed {where} after it was read, but nothing was lost. Run again")
    if any(address in text for address in _METADATA_ADDRESSES):
        return DestinationError(f"{url}: no credentials were found. {_NO_CREDENTIALS[urlsplit(url).scheme]}")
    if _NO_ANSWER in text:
        return no_answer(url)
    if meaning := refusal(text):
        return DestinationError(f"{url}: {meaning}")
    if _NO_STORE.search(text):
        return StoreFailedError(f"{url}: the server is not an object store. Check the endpoint")
    if isinstance(exc, FileNotFoundError):
        if kind == "put":
            return ConflictError(f"another program removed {where} after it was read, so nothing was saved. Run again")
        return FileMissingError(f"there is no object {where}")
    if is_denied(text):
        payer = ". If requesters pay, set request_payer in the options" if url.startswith("s3://") else ""
        return DestinationError(f"no permission to {kind} {where}. Allow this for all objects below {url}{payer}")
    if code := tag("Code", text):
        text = ": ".join(filter(None, [f"the store returned {code}", tag("Message", text)]))
    kind_of_error = DestinationError if code and code not in _OUTAGES else StoreFailedError
    return kind_of_error(f"{where}: {re.sub(_QUERY, '', ' '.join(text.split()))[:300]}")
