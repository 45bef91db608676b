"""One table as a pyarrow dataset, for engines that read in pieces: nothing is read here but names."""

import os

import pyarrow as pa
import pyarrow.dataset as ds

from etl.inspect.tables import declared_table, open_dataset, parts_of
from etl.model import schema
from etl.model.locations import Options


def open_table(path: str | os.PathLike[str], table: str, *, options: Options | None = None) -> ds.Dataset:
    """The files that one table has now, with exactly the declared columns and types, and ``run_test`` and ``month`` as text.

    DuckDB and Polars take it as it is, others its fragments. A filter on ``run_test`` or ``month`` opens only the files that match.
    Rows that the source no longer has are there: those with a ``deleted_at``, in any table, without a join.

    A snapshot: reopen it after an export. It can be pickled, for workers to whom the path means the same; the
    options of a bucket go with it, and so do the keys of an AWS profile.

    Args:
        path: The folder of the dataset, or its URL in a bucket, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs. A table without files has no rows.
        options: Of a bucket, as in ``[destination.options]``; credentials come from their usual places.

    Raises:
        ConfigurationError: no such table.
        DestinationError: there is no dataset.
    """
    declared = declared_table(table)
    files = open_dataset(path, options)
    filesystem, root = files.arrow()
    parquet = ds.ParquetFileFormat()
    in_path = ["month"] if declared is schema.RUNS_TABLE else ["run_test", "month"]
    columns = pa.schema([*declared.arrow_schema, *((name, schema.STRING) for name in in_path)])
    fragments = []
    for name, part in parts_of(files, declared).items():
        is_here = ds.field("month") == part.month
        if "run_test" in in_path:
            is_here &= ds.field("run_test") == part.run_test_key
        fragments.append(parquet.make_fragment(f"{root}/{name}", filesystem, is_here))
    return ds.FileSystemDataset(fragments, columns, parquet, filesystem)
