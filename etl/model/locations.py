"""Where a dataset may be (a folder or a bucket), which warehouses it can be loaded into, and what reads it in place.

Pure: it knows the schemes of URLs, and opens nothing. ``files/open`` and ``load/open`` do.
"""

from collections.abc import Mapping
from typing import Literal

Options = Mapping[str, str | bool]
"""The options of a bucket, by name."""

_S3_ACCESS = {"endpoint", "region", "virtual_hosted_style_request", "request_payer"}
_S3_ENCRYPTION = {"server_side_encryption", "sse_kms_key_id", "sse_bucket_key_enabled"}
BUCKETS: Mapping[str, frozenset[str]] = {
    "s3": frozenset(_S3_ACCESS | _S3_ENCRYPTION),
    "gs": frozenset(),
    "az": frozenset({"account_name", "endpoint", "tenant_id", "client_id", "use_azure_cli"}),
}
"""By URL scheme, the names that ``[destination.options]`` may hold. No secret is among them: see docs/buckets.md."""

WAREHOUSES: Mapping[str, str] = {
    "duckdb": "duckdb",
    "postgresql": "postgresql",
    "delta": "delta",
    "delta+s3": "delta",
    "snowflake": "snowflake",
    "bigquery": "bigquery",
}
"""By URL scheme, the kind of the warehouse: the name of its extra, and of its module in ``load``."""
EXPERIMENTAL = frozenset({"snowflake", "bigquery"})
"""Schemes of warehouses that were tested with an emulator only."""
IN_FILES = frozenset({"duckdb", "delta"})
"""Schemes of warehouses whose URL holds a path on this machine."""
DEFAULT_NAMESPACE = "simulation_metrics"
"""The schema of a warehouse's tables, unless the settings name another one."""

QueryEngineName = Literal[
    "pandas", "duckdb", "polars", "spark", "bigquery", "snowflake", "athena", "trino", "postgresql"
]
"""An engine as typed on the command line: a key of ``ddl.QUERY_ENGINES``, or PostgreSQL, which reads no Parquet."""


def scheme_of(location: str) -> str | None:
    """The scheme of a URL, such as ``s3``; None if the location is a folder."""
    scheme, separator, _ = location.partition("://")
    return scheme if separator and scheme else None


def has_few_slashes(location: str) -> bool:
    """Whether the location begins like the URL of a bucket or a warehouse, without its slashes, as ``s3:/bucket``."""
    scheme, colon, rest = location.partition(":")
    return bool(colon) and scheme in {*BUCKETS, *WAREHOUSES} and not rest.startswith("//")


def without_secrets(location: str) -> str:
    """The location in quotes, for a message; its scheme alone if the rest may hold a key or a signature."""
    may_hold_secret = "@" in location or "?" in location
    return f"{location.partition(':')[0]}://…" if may_hold_secret else repr(location)
