"""The columns as the command prints them, in each of its forms."""

import json

import pytest

from etl.cli.show_schema import print_schema
from etl.model.schema import TABLES


@pytest.mark.parametrize("output", ["table", "json"])
def test_every_form_names_every_column_with_its_type(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_schema([TABLES["evals"]], output)

    printed = capsys.readouterr().out
    for column in TABLES["evals"].columns:
        assert column.name in printed
        assert column.type_name in printed


def test_json_says_null_where_a_column_has_no_unit_or_source(capsys: pytest.CaptureFixture[str]) -> None:
    print_schema([TABLES["calls"]], "json")

    [table] = json.loads(capsys.readouterr().out)
    columns = {column["name"]: column for column in table["columns"]}
    assert table["key"] == ["call_execution_id"]
    assert (columns["duration_seconds"]["unit"], columns["duration_seconds"]["source"]) == ("s", "duration_seconds")
    assert (columns["metrics_from"]["unit"], columns["metrics_from"]["source"]) == (None, None)


@pytest.mark.parametrize("width", [50, 80, 200])
def test_text_fits_the_width_and_tells_sources_and_nulls(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_schema([TABLES["calls"]], "table")

    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for column in TABLES["calls"].columns:
        for text in (column.name, column.meaning, *column.source.split("|"), column.null_rule[1:]):
            assert "".join(text.split()) in "".join(printed.split())
