"""Where a dataset may be, a folder or a bucket, and what reads it there or is loaded from it. Pure."""

from collections.abc import Mapping
from typing import Literal

Options = Mapping[str, str | bool]
"""Of a bucket, by name."""

BUCKETS: Mapping[str, frozenset[str]] = {
    "s3": frozenset(
        {
            "endpoint", "region", "virtual_hosted_style_request", "request_payer", "server_side_encryption", "sse_kms_key_id",
            "sse_bucket_key_enabled",
        }
    ),
    "gs": frozenset(),
    "az": frozenset({"account_name", "endpoint", "tenant_id", "client_id", "use_azure_cli"}),
}  # fmt: skip
"""By URL scheme, what ``[destination.options]`` may hold. Credentials are in none: they have usual places of their own."""

WAREHOUSES: Mapping[str, str] = {
    "duckdb": "duckdb",
    "postgresql": "postgresql",
    "delta": "delta",
    "delta+s3": "delta",
    "snowflake": "snowflake",
    "bigquery": "bigquery",
}
"""By URL scheme, the extra and the module of a warehouse."""
EXPERIMENTAL = frozenset({"snowflake", "bigquery"})
"""Schemes of warehouses that were tested with an emulator only."""
IN_FILES = frozenset({"duckdb", "delta"})
"""Schemes of warehouses whose URL holds a path on this machine."""
DEFAULT_NAMESPACE = "simulation_metrics"
"""The schema of a warehouse's tables."""


QueryEngineName = Literal[
    "pandas", "duckdb", "polars", "spark", "bigquery", "snowflake", "athena", "redshift", "trino", "clickhouse", "postgresql",
]  # fmt: skip
"""As typed on the command line: every key of ``ddl.QUERY_ENGINES``, and PostgreSQL, which reads no Parquet."""


def scheme_of(location: str) -> str | None:
    """The scheme of a URL; None for a folder."""
    scheme, separator, _ = location.partition("://")
    return scheme if separator and scheme else None


def has_few_slashes(location: str) -> bool:
    """Whether it begins like the URL of a bucket or a warehouse, but is none, as s3:/bucket."""
    scheme, colon, rest = location.partition(":")
    return bool(colon) and scheme in {*BUCKETS, *WAREHOUSES} and not rest.startswith("//")


def without_secrets(location: str) -> str:
    """The location, or its scheme alone when it may hold a key or a signature."""
    return f"{location.partition(':')[0]}://…" if {"@", "?"} & {*location} else repr(location)
