"""The sections of the settings file: each key with its type, default, bounds and meaning. Reads no file.

The meanings are those in ``config/example.toml``; an editor shows them, see ``json_schema``.
"""

import re
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from yarl import URL

from etl.errors import ConfigurationError
from etl.model.keys import default_key, is_key, is_listable
from etl.model.locations import BUCKETS, DEFAULT_NAMESPACE, WAREHOUSES, has_few_slashes, scheme_of, without_secrets
from etl.model.metrics import Limit, limits_of

MOST_REQUESTS_PER_MINUTE = 10_000_000
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAMESPACE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunTest(_Section):
    """One run test to export: its name at the API, the key that names its partition, and the first day to export."""

    name: str = Field(min_length=1, description="name at the API")
    key: str = Field(
        "",
        description="names the partition, run_test=KEY: lower-case letters and digits, joined by - or _, starting with a letter; "
        "by default made from the name",
    )
    since: date | None = Field(None, description="skip executions created before this day (UTC)")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _keyed(self) -> Self:
        if not is_listable(self.name):
            raise ValueError(f"name must not begin or end with a space, which the API strips, got {self.name!r}")
        if not self.key:
            return self.model_copy(update={"key": default_key(self.name)})
        if not is_key(self.key):
            raise ValueError(
                f"key must be lower-case letters and digits, joined by - or _, begin with a letter, and not look like a value "
                f"(true, null, nan, …), got {self.key!r}"
            )
        return self


def _requests_per_minute(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is int and 1 <= value <= MOST_REQUESTS_PER_MINUTE:
        return value
    raise ValueError(f'must be "auto" or a whole number from 1 to {MOST_REQUESTS_PER_MINUTE:,}')


def _address(value: str) -> SplitResult | None:
    """The parts of an address in ASCII to which a client could connect; None when it is none."""
    try:
        url = URL(value, encoded=True)
        _ = url.port, (url.host or "").encode("idna")  # a port that is a number, a host with no empty or too long label
        parts = urlsplit(value)
    except ValueError:
        return None
    is_plain = value.isascii() and value.isprintable() and " " not in value
    return parts if is_plain and parts.hostname else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Api(_Section):
    """The source, and how many requests it gets."""

    base_url: str = Field(
        "https://api.futureagi.com",
        description="address of the API; FI_BASE_URL overrides it; plain http:// only to this machine",
    )
    concurrency: int = Field(32, ge=1, le=256, description="requests at the same time, 1 to 256")
    requests_per_minute: Annotated[int | None, BeforeValidator(_requests_per_minute)] = Field(
        None, description='rate limit to keep: a number, or "auto" to learn it from the API\'s answers'
    )
    quota_share: float = Field(
        1.0, gt=0, le=1, description="share of the rate limit to use, above 0 up to 1; the rest is left for others"
    )
    page_limit: int = Field(1024, ge=1, le=16384, description="rows to request per page, a power of two up to 16384")
    connect_timeout_seconds: float = Field(10, gt=0, le=600, description="longest wait for a connection")
    read_timeout_seconds: float = Field(
        60,
        gt=0,
        le=3600,
        description="longest wait for an answer or for more of it; a whole request may take 5 times as long",
    )
    max_tries: int = Field(6, ge=1, le=20, description="attempts per request")
    max_response_mb: int = Field(64, ge=1, le=4096, description="largest answer to accept, in MiB")
    ca_file: Path | None = Field(None, description="certificates to trust instead of the system's")
    proxy: str | None = Field(
        None, description="proxy to the API; its credentials: FI_PROXY_USER, FI_PROXY_PASSWORD (or …_FILE)"
    )

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        parts = _address(value)
        if parts is None or parts.scheme not in ("https", "http"):
            raise ValueError(f"must be an https:// address, got {value!r}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must be only scheme, host and path, got more than that")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError(f"must be https:// (plain http:// is allowed for this machine only), got {value!r}")
        return value.rstrip("/")

    @field_validator("ca_file")
    @classmethod
    def _ca_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"must be a file of certificates, got {str(value)!r}")
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, value: str | None, others: ValidationInfo) -> str | None:
        if value is None:
            return None
        # The value is never repeated: it may hold a password.
        if "@" in value:
            raise ValueError("must hold no credentials: set FI_PROXY_USER and FI_PROXY_PASSWORD, got some")
        parts = _address(value)
        if parts is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(
                "must be an http:// address, e.g. http://proxy.example:3128 (no TLS to the proxy, no SOCKS), got another value"
            )
        if not others.data.get("base_url", "https:").startswith("https:"):
            raise ValueError("cannot be used with an http:// base_url: the proxy would see the keys, got both")
        return value.rstrip("/")

    @field_validator("page_limit")
    @classmethod
    def _page_limit(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, got {value}")
        return value


class Export(_Section):
    """What to export, and when an execution counts as settled."""

    settle_hours: float = Field(
        24,
        ge=0,
        le=24 * 365,
        description="check a finished execution again until it is this old: costs and evals may arrive late",
    )
    settle_by: Literal["detail", "refetch"] = Field(
        "detail",
        description='"detail": compare with two requests, fetch what differs; "refetch": fetch every call again',
    )
    scrub_requests: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="requests per run for verifying final executions again, longest unverified first",
    )
    max_runtime_minutes: float | None = Field(
        None, gt=0, le=60 * 24 * 7, description="stop cleanly after this time; the next run continues"
    )
    calls: Literal["finished", "all"] = Field(
        "finished", description='"finished": calls of finished executions; "all": also of running ones'
    )
    commit_interval_seconds: float = Field(
        30, gt=0, le=3600, description="how often to save; a crash loses at most about this much work"
    )
    include_raw: bool = Field(
        default=False,
        description="true: keep each payload as JSON text in the column raw; --full-refresh fills it for older rows",
    )


class Destination(_Section):
    """Where the dataset is; ``options`` are for a bucket."""

    path: str = Field(
        "data",
        min_length=1,
        description="folder of the dataset; default: data, next to this file or to its folder config; "
        'or a bucket: "s3://BUCKET/FOLDER", "gs://BUCKET/FOLDER", "az://CONTAINER/FOLDER" (needs the extra bucket)',
    )
    compression: Literal["zstd", "snappy", "gzip", "none"] = Field(
        "zstd", description='"zstd", "snappy", "gzip" or "none"'
    )
    options: dict[str, str | bool] = Field({}, description="options of the bucket, never credentials")

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        scheme = scheme_of(value)
        if "\0" in value or has_few_slashes(value) or (scheme is not None and scheme not in BUCKETS):
            urls = ", ".join(f"{each}://BUCKET/FOLDER" for each in BUCKETS)
            raise ValueError(f"must be a folder, or {urls}, got {without_secrets(value)}")
        if scheme is None:
            return value
        bucket, *folders = value.rstrip("/").partition("://")[2].split("/")
        if not _BUCKET.fullmatch(bucket) or not all(folders) or {".", "..", "?", "#"} & {*folders, *"".join(folders)}:
            raise ValueError(f"must be {scheme}://BUCKET/FOLDER, got {without_secrets(value)}")
        return value.rstrip("/")

    @field_validator("options", mode="before")
    @classmethod
    def _options(cls, value: Any, others: ValidationInfo) -> Any:
        if not isinstance(value, dict) or not all(isinstance(each, str | bool) for each in value.values()):
            # No value is ever repeated: it may be a key.
            raise ValueError("must be a table of text, true and false, got something else")
        if "path" not in others.data:
            return value
        scheme = scheme_of(others.data["path"])
        known = BUCKETS[scheme] if scheme else frozenset[str]()
        for name in value.keys() - known:
            if not known:
                raise ValueError(f"must be left out for {f'{scheme}://' if scheme else 'a folder'}, got {name}")
            raise ValueError(
                f"must be of {', '.join(sorted(known))}, while credentials stay in their usual places, got {name}"
            )
        return value


class Engine(_Section):
    """Who fetches."""

    kind: Literal["asyncio", "dask"] = Field(
        "asyncio",
        description='"asyncio": this process fetches; "dask": the workers of a Dask cluster do (needs the extra dask)',
    )
    address: str | None = Field(None, description="address of the Dask scheduler")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "dask") != bool(self.address):
            raise ValueError(
                'kind "dask" needs the address of its scheduler, such as "tcp://scheduler:8786", and no other does'
            )
        return self


class Warehouse(_Section):
    """Which warehouse the dataset is loaded into, and the schema of its tables there."""

    url: str | None = Field(None, description="warehouse to keep equal to the dataset, see docs/warehouses.md")
    namespace: str = Field(DEFAULT_NAMESPACE, alias="schema", description="schema of its tables; created if missing")

    @property
    def named_url(self) -> str:
        """The URL.

        Raises:
            ConfigurationError: there is none.
        """
        if self.url is None:
            raise ConfigurationError('no warehouse: name one, e.g. [warehouse] url = "duckdb://metrics.duckdb"')
        return self.url

    @property
    def place(self) -> str | None:
        """Where its tables lie, in words; two that differ may hold other rows."""
        return f"{self.url}, schema {self.namespace}" if self.url and not self.is_delta else self.url

    @property
    def is_delta(self) -> bool:
        """Whether its tables are Delta tables."""
        return WAREHOUSES.get(scheme_of(self.url or "") or "") == "delta"

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, rest = scheme_of(value), value.partition("://")[2]
        if scheme not in WAREHOUSES or not rest.strip("/") or not value.isprintable():
            known = ", ".join(f"{each}://…" for each in WAREHOUSES)
            raise ValueError(f"must be one of {known}, got {without_secrets(value)}")
        # The value is never repeated: it may hold a password.
        user, at, _ = rest.rpartition("@")  # whatever a password holds
        if (at and ":" in user) or "password" in rest.partition("?")[2].lower():
            raise ValueError("must hold no password: it comes from PGPASSWORD or the driver's usual places, got one")
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        if not NAMESPACE.fullmatch(value):
            raise ValueError(f"must be lower-case letters, digits and _, at most 63, got {value!r}")
        return value


class Compare(_Section):
    """How much worse a metric may get before ``metrics-etl compare`` says so by its exit code."""

    max_regression: dict[str, str] = Field(
        {}, description='limits for compare, by metric: "10%" of the baseline, or "2pp" (percentage points) for a rate'
    )

    @property
    def limits(self) -> dict[str, Limit]:
        """The limits by the name of their metric."""
        return limits_of(self.max_regression)

    @field_validator("max_regression")
    @classmethod
    def _max_regression(cls, value: dict[str, str]) -> dict[str, str]:
        limits_of(value)
        return value


class Log(_Section):
    """How messages are written."""

    format: Literal["auto", "console", "json"] = Field(
        "auto",
        description='"auto": progress on a terminal, JSON lines elsewhere; "console": readable lines; '
        '"json": JSON lines only',
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description='"debug", "info", "warning" or "error"'
    )
