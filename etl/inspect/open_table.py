"""One table as a pyarrow dataset, for engines that read in pieces: nothing is read here but names, and the ends of files."""

import os
from functools import partial

import pyarrow as pa
import pyarrow.dataset as ds

from etl.errors import DestinationError
from etl.inspect.tables import declared_table, open_dataset, parts_of
from etl.load.files.contract import Files, read_each
from etl.load.layout import Part
from etl.load.parquet import read_footer
from etl.model import schema
from etl.model.locations import Options


def open_table(path: str | os.PathLike[str], table: str, *, options: Options | None = None) -> ds.Dataset:
    """The files that one table has now, with exactly the declared columns and types, and ``run_test`` and ``month`` as text.

    DuckDB and Polars take it as it is, others its fragments. A filter on ``run_test`` or ``month`` opens only the files that match.
    Rows that the source no longer has are there: those with a ``deleted_at``, in any table, without a join.

    It is what the table has now: open it again after an export. It can be pickled, for workers to whom the path means the same; the
    options of a bucket go with it, and so do the keys of an AWS profile.

    Args:
        path: The folder of the dataset, or its URL in a bucket, as in ``[destination] path``.
        table: executions, calls, evals, errors or runs. A table without files has no rows.
        options: Of a bucket, as in ``[destination.options]``; credentials come from their usual places.

    Raises:
        ConfigurationError: no such table.
        DestinationError: there is no dataset, or a file of it cannot be read, or was written by a newer version.
    """
    declared = declared_table(table)
    files = open_dataset(path, options)
    return _dataset(files, declared, parts_of(files, declared))


def _dataset(files: Files, table: schema.Table, parts: dict[str, Part]) -> ds.Dataset:
    filesystem, root = files.arrow()
    parquet = ds.ParquetFileFormat()
    in_path = [] if table is schema.RUNS_TABLE else ["run_test"]
    columns = pa.schema([*table.arrow_schema, *((name, schema.STRING) for name in (*in_path, "month"))])
    for path, footer in zip(parts, read_each(files, partial(read_footer, files), parts), strict=True):
        if others := set(footer.schema.names).difference(table.names):
            raise DestinationError(
                f"{files.where(path)}: unknown columns {sorted(others)}: written by a newer version; upgrade the exporter"
            )
    fragments = []
    for path, part in parts.items():
        is_here = ds.field("month") == part.folder.removeprefix("month=")
        if in_path:
            is_here &= ds.field("run_test") == part.run_test_key
        fragments.append(parquet.make_fragment(f"{root}/{path}", filesystem, is_here))
    return ds.FileSystemDataset(fragments, columns, parquet, filesystem)
