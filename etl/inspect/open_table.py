"""One table as a pyarrow dataset, for engines that read in pieces. It lists files, and reads none."""

import os

import pyarrow as pa
import pyarrow.dataset as ds

from etl.inspect.read_tables import declared_table, open_dataset, parts_of
from etl.model.locations import Options


def open_table(path: str | os.PathLike[str], table: str, *, options: Options | None = None) -> ds.Dataset:
    """One table as a pyarrow dataset, without reading its rows.

    For DuckDB, Polars, Dask, or data that does not fit in memory.

    It has exactly the declared columns and types, and ``run_test`` and ``month`` as text. A filter on these two opens
    only the files that match. Rows that the source no longer has are included; they have a ``deleted_at``.

    A snapshot: reopen it after an export. It can be pickled for workers that find the dataset at the same path. The
    options of a bucket are in the pickle, and so are the keys of an AWS profile.

    Args:
        path: The dataset's folder, or its URL in a bucket, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs. A table without files has no rows.
        options: Those of a bucket, as in ``[destination.options]``; credentials come from their usual places.

    Raises:
        ConfigurationError: no such table.
        DestinationError: there is no dataset.
    """
    declared = declared_table(table)
    files = open_dataset(path, options)
    filesystem, root = files.arrow()
    parquet = ds.ParquetFileFormat()
    columns = pa.schema([*declared.arrow_schema, *((column.name, column.type) for column in declared.partitions)])
    fragments = []
    for path_in_dataset, part in parts_of(files, declared).items():
        values = ds.field("month") == part.month
        if part.run_test_key:
            values &= ds.field("run_test") == part.run_test_key
        fragments.append(parquet.make_fragment(f"{root}/{path_in_dataset}", filesystem, values))
    return ds.FileSystemDataset(fragments, columns, parquet, filesystem)
