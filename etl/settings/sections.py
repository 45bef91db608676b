"""The sections of the settings file: each key with its type, its default and its bounds, and below it what it means.

``docs/settings.md`` and editors show these meanings, and the first text of each section; the schema for editors is made
by ``tests/settings/json_schema.py``. This module reads no file and no environment variable.
"""

import re
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    HttpUrl,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from etl.errors import ConfigurationError
from etl.model import leave_out, locations
from etl.model.keys import default_key, is_key, is_listable
from etl.model.wording import nearest, quoted

HOSTED_API = "https://api.futureagi.com"
_BUCKET_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[^/?#]+)*")
_NAMESPACE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Section(BaseModel):
    """Base class of the sections: unknown keys are mistakes, and true or false is not taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"must be a number or text in quotes, got {str(value).lower()}")
        return value


def refuse_day_to_come(since: date | None) -> date | None:
    """The day as it is: a mistyped year would export nothing, and still count as complete.

    Tomorrow is allowed, since clocks may differ by a day.

    Raises:
        ValueError: the day has not come yet.
    """
    if since and since > datetime.now(UTC).date() + timedelta(days=1):
        raise ValueError(f"must not be in the future by this machine's clock, got {since}")
    return since


class RunTest(Section):
    """One run test to export: its name in the API, the key that names its partition, and the first day to export."""

    name: str = Field(min_length=1)
    """name of the run test in the API"""
    key: str = ""
    """what the folder is called, as in run_test=KEY: lower-case letters and digits, joined by - or _, starting with a
    letter; by default, derived from the name
    """
    since: Annotated[date | None, AfterValidator(refuse_day_to_come)] = None
    """skip executions created before this day (UTC)"""

    @model_validator(mode="before")
    @classmethod
    def _with_key(cls, value: Any) -> Any:
        """A text is the name of a run test. A key that is missing or empty is derived from the name."""
        fields = {"name": value} if isinstance(value, str) else value
        if isinstance(fields, dict) and isinstance(fields.get("name"), str) and fields.get("key", "") == "":
            return fields | {"key": default_key(fields["name"])}
        return fields

    @model_validator(mode="after")
    def _refuse_name_or_key_that_would_be_misread(self) -> Self:
        if not is_listable(self.name):
            raise ValueError(f"name must not begin or end with a space, which the API strips, got {self.name!r}")
        if not is_key(self.key):
            raise ValueError(
                f"key must consist of lower-case letters and digits, joined by - or _, must begin with a letter, and "
                f"must not look like a value (true, null, nan, …), got {self.key!r}"
            )
        return self


def http_url(value: str) -> HttpUrl | None:
    """The address of an HTTP server, taken apart; None if the text is none."""
    try:
        return HttpUrl(value)
    except ValidationError:
        return None


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by any of its own names."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _source_address(value: str) -> str:
    url = http_url(value)
    if url is None:
        raise ValueError(f"must be an https:// address, got {locations.without_secrets(value)}")
    if {url.username, url.password, url.query, url.fragment} != {None}:
        raise ValueError("must contain only scheme, host and path")
    if url.scheme == "http" and not is_loopback(url.host or ""):
        raise ValueError(f"must be https:// (plain http:// is allowed for this machine only), got {value!r}")
    return str(url).rstrip("/")


def _proxy_address(value: str, others: ValidationInfo) -> str:
    if "@" in value:
        # The value is not repeated: it may hold a password.
        raise ValueError("must not contain credentials. Set FI_PROXY_USER and FI_PROXY_PASSWORD")
    url = http_url(value)
    if url is None or url.scheme != "http" or url.path != "/" or {url.query, url.fragment} != {None}:
        raise ValueError("must be http://HOST:PORT, e.g. http://proxy.example:3128 (no path, TLS or SOCKS)")
    if not others.data.get("base_url", "https:").startswith("https:"):
        raise ValueError("cannot be used with an http:// base_url, because the proxy would see the keys")
    return str(url).rstrip("/")


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"must be a power of two, got {value}")
    return value


class Api(Section):
    """Where the API is, and how many requests it gets."""

    base_url: Annotated[str, AfterValidator(_source_address)] = HOSTED_API
    """address of the API, which FI_BASE_URL overrides; plain http:// is allowed for this machine only"""
    concurrency: int = Field(32, ge=1, le=256)
    """how many requests to send at once, 1 to 256"""
    requests_per_minute: Annotated[
        Annotated[int, Field(ge=1, le=10_000_000)] | None,
        BeforeValidator(lambda value: None if value == "auto" else value),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 10_000_000}]}),
    ] = Field(None, json_schema_extra={"default": "auto", "type": ["string", "integer"]})
    """rate limit to stay within: a number, or "auto" to learn the limit from the API's answers"""
    quota_share: float = Field(1.0, gt=0, le=1)
    """share of the rate limit to use, above 0, at most 1; the rest is left for other programs"""
    page_limit: Annotated[int, Field(ge=1, le=16384), AfterValidator(_power_of_two)] = 1024
    """how many rows to request for a list's first page, a power of two up to 16384; later pages may be larger"""
    connect_timeout_seconds: float = Field(10, gt=0, le=600)
    """longest wait for a connection"""
    read_timeout_seconds: float = Field(60, gt=0, le=3600)
    """longest wait for an answer, or for its next bytes; a whole request may take 5 times as long"""
    max_tries: int = Field(6, ge=1, le=20)
    """how often to try each request; a try on a reused connection that turned out to be closed does not count"""
    max_response_mb: int = Field(64, ge=1, le=4096)
    """largest response to accept, in MiB; memory may hold `concurrency` such responses at once"""
    ca_file: FilePath | None = None
    """file with the certificates to trust instead of the system's"""
    proxy: Annotated[str, AfterValidator(_proxy_address)] | None = None
    """proxy through which to reach the API, such as http://proxy.example:3128; set its credentials in FI_PROXY_USER and
    FI_PROXY_PASSWORD (or …_FILE)
    """


def _columns_to_leave_out(names: list[str]) -> list[str]:
    for name in names:
        if name not in leave_out.COLUMNS:
            raise ValueError(f"must not contain {quoted(name)}. {nearest(name, leave_out.COLUMNS)}")
    return names


class Export(Section):
    """What to export, and when an execution counts as settled."""

    metrics: Literal["exact", "calls", "listed"] = "exact"
    """where metrics come from. "exact" reads them from the API's list of an execution's calls if the list has all
    metrics of voice calls, and otherwise requests each call's metrics; "calls" always requests each call's metrics;
    "listed" reads only lists, which leaves some columns empty
    """
    settle_hours: float = Field(24, ge=0, le=24 * 365)
    """check a finished execution again until it is this old, because costs and evals may arrive late"""
    settle_by: Literal["detail", "refetch"] = "detail"
    """how to check an execution again. "detail" checks it with two requests, and fetches changed calls; "refetch"
    fetches every call again
    """
    sweep_days: int = Field(30, ge=0, le=3650)
    """after an execution has settled, compare it with the API again every so many days; 0 means never"""
    max_runtime_minutes: float | None = Field(None, gt=0, le=60 * 24 * 7)
    """stop cleanly after this many minutes; the next run continues"""
    since: Annotated[date | None, AfterValidator(refuse_day_to_come)] = None
    """skip executions created before this day (UTC); a run test may set its own day"""
    calls: Literal["finished", "all"] = "finished"
    """which calls to export: "finished" for calls of finished executions only, "all" for those of running ones, too"""
    commit_interval_seconds: float = Field(30, gt=0, le=3600)
    """how often to save; a crash loses at most about this much work"""
    leave_out: Annotated[list[str], AfterValidator(_columns_to_leave_out)] = Field(
        [], json_schema_extra={"items": {"enum": [*leave_out.COLUMNS]}}
    )
    """columns whose values never enter the dataset, such as ["evals.reason", "calls.tool_outputs"]. These columns are
    possible: evals.reason, executions.error_reason, calls.ended_reason, calls.agent_version, calls.provider,
    calls.agent_definition_used_id, calls.agent_definition_used_name, calls.simulator_agent_id,
    calls.simulator_agent_name, calls.scenario_columns, calls.tool_outputs. Without calls.ended_reason, failures of the
    telephone line count as the agent's. To empty columns in stored rows, run --full-refresh, but see docs/security.md
    """
    include_raw: bool = False
    """whether to keep each payload as JSON text in the column raw; --full-refresh fills this column in older rows"""


def _dataset_place(value: str) -> str:
    scheme = locations.scheme_of(value)
    if locations.has_few_slashes(value) or (scheme is not None and scheme not in locations.BUCKETS):
        urls = ", ".join(f"{known}://BUCKET/FOLDER" for known in locations.BUCKETS)
        raise ValueError(f"must be a folder, or {urls}, got {locations.without_secrets(value)}")
    if scheme is None:
        return value
    if not _BUCKET_FOLDER.fullmatch(value.rstrip("/").partition("://")[2]):
        raise ValueError(f"must be {scheme}://BUCKET/FOLDER, got {locations.without_secrets(value)}")
    return value.rstrip("/")


class Destination(Section):
    """Where the dataset is; ``options`` are for a bucket."""

    path: Annotated[str, Field(min_length=1), AfterValidator(_dataset_place)] = "data"
    """folder of the dataset, or a bucket: "s3://BUCKET/FOLDER", "gs://BUCKET/FOLDER", "az://CONTAINER/FOLDER" (needs
    the "bucket" extra). By default, a folder named data next to the settings file, or one folder up if the settings
    file is in a folder named config
    """
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    """how to compress the files: "zstd", "snappy", "gzip", or "none" for no compression"""
    options: dict[str, str | bool] = {}
    """options of the bucket, such as { region = "eu-central-1" }, but never credentials"""

    @field_validator("options", mode="before")
    @classmethod
    def _options(cls, value: Any, others: ValidationInfo) -> Any:
        if not isinstance(value, dict) or not all(isinstance(option, str | bool) for option in value.values()):
            # No value is ever repeated: it may be a key.
            raise ValueError("must be a table whose values are text, true or false")
        known = locations.BUCKETS.get(locations.scheme_of(others.data.get("path", "")) or "", frozenset())
        for name in value.keys() - known:
            hint = nearest(name, known) if known else "Only s3:// and az:// have options"
            raise ValueError(f"must not contain {name}, which is unknown or a credential. {hint}")
        return value


class Engine(Section):
    """Where fetching happens: in this process, or on a Dask cluster."""

    kind: Literal["asyncio", "dask"] = "asyncio"
    """what fetches: "asyncio" for this process, "dask" for the workers of a Dask cluster (needs the "dask" extra)"""
    address: str | None = None
    """address of the Dask scheduler, such as tcp://scheduler:8786"""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "dask") != bool(self.address):
            raise ValueError('kind = "dask" and an address such as "tcp://host:8786" go together. Set both or neither')
        return self


def _warehouse_url(value: str) -> str:
    value = re.sub("^postgres://", "postgresql://", value)
    scheme = locations.scheme_of(value)
    rest = value.partition("://")[2]
    if scheme not in locations.WAREHOUSES or not rest.strip("/") or not value.isprintable():
        urls = ", ".join(f"{known}://…" for known in locations.WAREHOUSES)
        raise ValueError(f"must be one of {urls}, got {locations.without_secrets(value)}")
    server, _, options = rest.partition("?")
    # Up to the last @, since a password may hold one, too. No message repeats any of it.
    user, at, _ = rest.rpartition("@")
    if (at and ":" in user) or "password" in options.lower():
        raise ValueError("must not contain a password. Set PGPASSWORD, or use a credentials file, such as ~/.pgpass")
    if scheme == "postgresql" and not server.partition("/")[2] and "dbname=" not in options:
        raise ValueError("must name a database, as in postgresql://user@host/database, got none")
    if scheme == "duckdb" and rest.rpartition("/")[2].startswith(("md:", "motherduck:")):
        raise ValueError("must name a file, because MotherDuck (md:) is not supported, got duckdb://md:…")
    if scheme == "duckdb" and rest.rpartition("/")[2].startswith(":memory:"):
        raise ValueError("must name a file, because a database in memory would not last, got duckdb://:memory:")
    return value


def _schema_name(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError(f"must be at most 63 lower-case letters, digits and _, with no digit first, got {value!r}")
    return value


class WarehouseSettings(Section):
    """Which warehouse the dataset is loaded into, and the schema of its tables there."""

    url: Annotated[str, AfterValidator(_warehouse_url)] | None = None
    """URL of the warehouse to keep in sync with the dataset, such as duckdb://metrics.duckdb, but without a password.
    For other warehouses, see docs/warehouses.md
    """
    namespace: Annotated[str, AfterValidator(_schema_name)] = Field(locations.DEFAULT_NAMESPACE, alias="schema")
    """schema of the tables in the warehouse, which a load creates if it is missing"""

    @property
    def named_url(self) -> str:
        """The URL, for a command that needs one.

        Raises:
            ConfigurationError: the settings name no warehouse.
        """
        if self.url is None:
            raise ConfigurationError('no warehouse is set. Name one, e.g. [warehouse] url = "duckdb://metrics.duckdb"')
        return self.url

    @property
    def place(self) -> str | None:
        """Where its tables are, in words; None if there is no warehouse. Two places may hold different rows."""
        is_delta = locations.WAREHOUSES.get(locations.scheme_of(self.url or "") or "") == "delta"
        return f"{self.url}, schema {self.namespace}" if self.url and not is_delta else self.url

    @property
    def is_experimental(self) -> bool:
        """Whether this kind of warehouse was tested with an emulator only, never with the real service."""
        return locations.scheme_of(self.url or "") in locations.EXPERIMENTAL


class Log(Section):
    """How messages are written."""

    format: Literal["auto", "console", "json"] = "auto"
    """form of the log. "auto" shows progress on a terminal, and writes JSON lines elsewhere; "console" writes readable
    lines; "json" writes only JSON lines
    """
    level: Literal["debug", "info", "warning", "error"] = "info"
    """which messages to log: "debug", "info", "warning", or "error" for errors alone"""
