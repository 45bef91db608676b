"""The obstore store of a URL: options, credentials, patience. Nothing here is called unless the dataset is in a bucket."""

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from etl.errors import ConfigurationError
from etl.model.locations import Options

if TYPE_CHECKING:
    from obstore.fsspec import FsspecStore as FileSystem
    from obstore.store import ObjectStore

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
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[^?#@\s]*)?")


def open_store(url: str, options: Options, *, is_hasty: bool = False) -> "ObjectStore":
    """The store of the URL; asks nothing of it yet. A hasty one gives a request up after some seconds, not minutes.

    Raises:
        ConfigurationError: obstore is not installed, or the options, the profile or the endpoint are no good.
    """
    try:
        from obstore import store  # noqa: PLC0415
        from obstore.exceptions import BaseError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(f"{url} needs obstore: pip install 'simulation-metrics-etl[bucket]'") from None
    parts, settings, common = _arguments(url, options, _HASTY if is_hasty else _PATIENT)
    common["prefix"] = parts.path.strip("/") or None
    try:
        match parts.scheme:
            case "s3":
                # One object in each request: not every store knows the other way.
                return store.S3Store(parts.netloc, config=settings | {"disable_bulk_delete": True}, **common)
            case "gs":
                return store.GCSStore(parts.netloc, config=settings, **common)
            case _:
                return store.AzureStore(parts.netloc, config=settings, **common)
    except (BaseError, ValueError) as exc:
        reason = str(exc).split("\n\nDebug source")[0]
        raise ConfigurationError(f"{url}: {reason}: set it in [destination.options] or the environment") from exc


def open_filesystem(url: str, options: Options) -> tuple["FileSystem", str]:
    """The file system of the URL's store for fsspec, and the folder of the URL in it; for engines that read by themselves.

    It can be pickled, with the options, and the keys of an AWS profile if they come from one.

    Raises:
        ConfigurationError: as ``open_store``.
    """
    try:
        from obstore.fsspec import FsspecStore  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            f"{url} needs obstore and fsspec: pip install 'simulation-metrics-etl[bucket]'"
        ) from None
    parts, settings, common = _arguments(url, options, _PATIENT)
    scheme: Any = parts.scheme
    return FsspecStore(scheme, config=settings, **common), f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")


def _arguments(url: str, options: Options, patience: Mapping[str, Any]) -> tuple[SplitResult, Any, dict[str, Any]]:
    """The parts of the URL, and of obstore's arguments the settings and the others.

    Raises:
        ConfigurationError: the URL, the options, the profile or the endpoint are no good.
    """
    config = dict[str, Any](options)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{url.partition('://')[0]}://…: give SCHEME://BUCKET/FOLDER") from None
    endpoint = str(config.get("endpoint") or (os.environ.get("AWS_ENDPOINT_URL", "") if parts.scheme == "s3" else ""))
    if ("endpoint" in config or endpoint) and not _is_address(endpoint):
        raise ConfigurationError(
            f"{url}: the endpoint must be http(s)://HOST or http(s)://HOST:PORT, got another value"
        )
    if parts.scheme == "s3":
        config |= _shared_profile()
    return (
        parts,
        config,
        {
            "client_options": patience["client_options"] | {"allow_http": endpoint.startswith("http://")},
            "retry_config": patience["retry_config"],
        },
    )


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return bool(_ADDRESS.fullmatch(endpoint) and parts.hostname and (parts.port is None or parts.port))
    except ValueError:
        return False


def _shared_profile() -> dict[str, str]:
    """The keys of a shared profile, where the environment gives none; obstore itself knows all other places.

    Raises:
        ConfigurationError: the profile that AWS_PROFILE names has no keys: they may come from a login or another program.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    file, named = (
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"),
        os.environ.get("AWS_PROFILE"),
    )
    try:
        file = file.expanduser()
        is_there = file.is_file()
    except (RuntimeError, OSError):  # nobody's home, or a closed one
        is_there = False
    if not (named or is_there):
        return {}
    profiles = ConfigParser(interpolation=None)
    try:
        profiles.read(file, encoding="utf-8")
    except (ParserError, UnicodeDecodeError, OSError) as exc:
        raise ConfigurationError(f"{file}: no profiles can be read from it: {type(exc).__name__}") from None
    profile = profiles[named or "default"] if profiles.has_section(named or "default") else {}
    if named and "aws_access_key_id" not in profile:
        raise ConfigurationError(
            f'{file}: the profile {named} has no keys: eval "$(aws configure export-credentials --profile {named} --format env)" '
            "sets them"
        )
    names = ("access_key_id", "secret_access_key", "session_token")
    return {name: profile[f"aws_{name}"] for name in names if f"aws_{name}" in profile}
