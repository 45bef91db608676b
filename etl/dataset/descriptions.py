"""Write what lists of run tests say of executions into their rows, which stay as they are otherwise."""

from collections.abc import Mapping

from etl.dataset.layout import Part
from etl.dataset.parts import Dataset
from etl.model import schema
from etl.model.arrow import with_values
from etl.transform.frames import ExportStamp


def write_descriptions(
    dataset: Dataset, part: Part, descriptions: Mapping[str, Mapping[str, str | None]], stamp: ExportStamp
) -> None:
    """Fill the columns ``schema.DESCRIBED`` of executions of the part, by execution_id and then by column.

    No digest is over them. A value that is stored stays: the source gives what holds now.
    """
    rows = dataset.rows(schema.EXECUTIONS, part)
    values = {name: dict.fromkeys(descriptions, value) for name, value in stamp.columns.items()}
    ids = rows["execution_id"].to_pylist()
    for name in (column.name for column in schema.DESCRIBED):
        stored = zip(ids, rows[name].to_pylist(), strict=True)
        values[name] = {key: old or descriptions[key].get(name) for key, old in stored if key in descriptions}
    dataset.write(schema.EXECUTIONS, part, with_values(rows, values))
    dataset.receipt.note(part.run_test_key, "replaced", descriptions.keys())
