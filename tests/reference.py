"""The reference pages of the manual, made of the code: ``python -m tests.reference`` writes them."""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from etl.cli.commands import app
from etl.compare.statistics import Outcome, Verdict
from etl.errors import ExitCode
from etl.extract.plan import Reason
from etl.model.findings import Kind
from etl.model.locations import BUCKETS, EXPERIMENTAL, WAREHOUSES
from etl.model.metrics import METRICS
from etl.model.schema import TABLES
from tests.meanings import EVENTS, FIELDS, HEADS, PURPOSE_MEANINGS, SUBJECT_MEANINGS
from tests.settings.json_schema import settings_schema

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCREENS = Path(__file__).parent / "e2e" / "screens"
"""What commands print; an end-to-end test holds each to its command."""
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
_SECRETS = {
    "FI_API_KEY": "the API key",
    "FI_SECRET_KEY": "the secret key",
    "FI_PROXY_USER": "the user name for the proxy, if it needs one",
    "FI_PROXY_PASSWORD": "the password for the proxy",
}
PACKAGES = {
    "extract": "the source",
    "transform": "payloads to rows",
    "dataset": "what the files of a dataset say",
    "files": "where bytes go",
    "load": "warehouses",
    "pipeline": "the steps of a run",
    "inspect": "reading back",
    "compare": "whether an agent got worse",
    "report": "the page",
    "notify": "the webhook",
    "cli": "the command line",
    "settings": "the settings file",
    "model": "what all of them speak of",
    "sandbox": "the simulated API",
}
"""The packages of the exporter, as the list of modules introduces them."""
_GROUPS = ("", "Answers", "Selection", "What to compare", "Gate", "Made-up data", "Behavior of the server", "Output")
"""As ``--help`` groups options."""
_EVAL_METRICS = (
    (
        "`eval_NAME_pass_rate`",
        "NAME, pass rate",
        "share",
        "lower",
        "share of the outputs of a Pass/Fail eval that passed",
    ),
    ("`eval_NAME_mean`", "NAME, mean", "score", "lower", "mean score of an eval"),
)
_TYPES = {"string": "text", "object": "table", "integer": "whole number", "boolean": "true or false"}


def json_paths(value: Any, fields: Mapping[str, str], path: str = "") -> Iterator[str]:
    """The paths in a JSON document, as ``fields`` name them: ``run_tests[].name``.

    A value that no field names is not searched.
    """
    has_fields = any(name.startswith((f"{path}.", f"{path}[]")) for name in fields)
    if path in fields or (path and not has_fields):
        yield path
    if isinstance(value, list) and has_fields:
        for each in value:
            yield from json_paths(each, fields, f"{path}[]")
    elif isinstance(value, dict) and (has_fields or not path):
        for name, each in value.items():
            yield from json_paths(each, fields, f"{path}.{name}".removeprefix("."))


def _dictionary() -> Iterator[str]:
    """A section for each table."""
    for table in TABLES.values():
        yield f"## {table.name}"
        yield ""
        source = f" Source: `GET {table.endpoint}`." if table.endpoint else ""
        yield f"One row per {table.one_row_per}. Key: {', '.join(f'`{name}`' for name in table.key)}.{source}"
        yield ""
        yield "| column | type | unit | meaning | source | null |"
        yield "|---|---|---|---|---|---|"
        for column in table.columns:
            paths = " or ".join(f"`{path}`" for path in column.source.split("|")) if column.source else ""
            cells = (f"`{column.name}`", column.type_name, column.unit, column.meaning, paths, column.null_rule)
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
        yield ""


def _page(lines: Iterable[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _table(heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield ""
    for cells in (heading, ["---"] * len(heading), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""


def _coded(meanings: Mapping[Any, str]) -> Iterator[tuple[str, str]]:
    return ((f"`{word}`", meaning) for word, meaning in meanings.items())


def _commands_page() -> Iterator[str]:
    yield HEADS["commands"]
    exits = ((f"{code}", code.outcome, code.meaning) for code in ExitCode)
    yield from _table(("code", "outcome", "meaning"), exits)
    for name, command in COMMANDS.items():
        yield from _command(name, command)
        for heading, rows in _words(name):
            yield from _table(heading, rows)
    yield from ("## Findings", "", HEADS["findings"])
    yield from _table(
        ("finding", "severity", "meaning", "next step"),
        ((f"`{each}`", each.severity.value, each.meaning, each.next_step) for each in Kind),
    )
    yield from ("## Log events", "", HEADS["log"])
    yield from _table(("event", "meaning", "fields"), ((f"`{name}`", *texts) for name, texts in EVENTS.items()))


def _command(name: str, command: Any) -> Iterator[str]:
    *paragraphs, example = command.help.split("\n\n")
    yield from (f"## {name}", "")
    for paragraph in paragraphs:
        yield from (" ".join(paragraph.split()), "")
    yield from ("```sh", example.removeprefix("Example: "), "```", "")
    shown = [parameter for parameter in command.params if not parameter.hidden]
    for group in sorted({parameter.rich_help_panel or "" for parameter in shown}, key=_GROUPS.index):
        rows = [_option(parameter) for parameter in shown if (parameter.rich_help_panel or "") == group]
        yield from _table((group.lower() or "option", "meaning", "default"), rows)
    if (screen := SCREENS / f"{name}.txt").exists():
        yield from ("It prints, for example:", "", "```text", screen.read_text(encoding="utf-8").rstrip(), "```", "")


def _option(parameter: Any) -> tuple[str, str, str]:
    is_flag = getattr(parameter, "is_flag", False)
    names = ", ".join(f"`{name}`" for name in parameter.opts if name.startswith("-"))
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    shown = "required" if parameter.required else "" if is_flag or default is None else f"{default}"
    return f"{names} {parameter.metavar or ''}".strip(), parameter.help, shown


def _words(command: str) -> Iterator[tuple[tuple[str, ...], Iterable[tuple[str, ...]]]]:
    """The tables of a command: the fields of its JSON, and the words in it."""
    if command in FIELDS:
        yield ("JSON field", "meaning"), _coded(FIELDS[command])
    if command == "plan":
        yield ("reason", "meaning"), _coded({each: each.meaning for each in Reason})
        yield ("purpose", "requests for"), _coded(PURPOSE_MEANINGS)
    if command == "check":
        yield ("subject", "fine when"), _coded(SUBJECT_MEANINGS)
    if command == "compare":
        metrics = (
            (f"`{each.name}`", each.title, each.unit, "higher" if each.is_higher_worse else "lower", each.meaning)
            for each in METRICS.values()
        )
        yield ("metric", "in the report", "unit", "worse when", "meaning"), (*metrics, *_EVAL_METRICS)
        yield ("verdict", "meaning"), _coded({each: each.meaning for each in Verdict})
        yield ("limit", "meaning"), _coded({each: each.meaning for each in Outcome})


def _settings_page() -> Iterator[str]:
    yield HEADS["settings"]
    yield from _table(("environment variable", "meaning"), _coded(_SECRETS))
    sections = settings_schema()["properties"]
    run_tests = sections.pop("run_tests")
    yield from ("## run_tests", "", _sentence(run_tests["description"]), HEADS["run_tests"])
    yield from _keys(run_tests["anyOf"][1]["items"]["anyOf"][1]["properties"])
    for name, section in sections.items():
        yield from (f"## {name}", "", section["description"])
        yield from _keys(section["properties"], f"METRICS_ETL_{name.upper()}__")
        if name == "destination":
            options = {scheme: ", ".join(f"`{each}`" for each in sorted(known)) for scheme, known in BUCKETS.items()}
            yield from _table(
                ("bucket", "options"), _coded({f"{name}://": each or "none" for name, each in options.items()})
            )
        if name == "warehouse":
            notes = {name: " (experimental)" if name in EXPERIMENTAL else "" for name in WAREHOUSES}
            extras = {f"{name}://": f"`{extra}`{notes[name]}" for name, extra in WAREHOUSES.items()}
            yield from _table(("url", "extra"), _coded(extras))


def _keys(keys: Mapping[str, Any], prefix: str | None = None) -> Iterator[str]:
    rows = [(f"`{name}`", _type(key), _default(key), key["description"]) for name, key in keys.items()]
    heading: tuple[str, ...] = ("key", "type", "default", "meaning")
    if prefix is None:
        yield from _table(heading, rows)
    else:
        variables = [f"`{prefix}{name.upper()}`" for name in keys]
        yield from _table(
            (*heading, "environment variable"), [(*row, each) for row, each in zip(rows, variables, strict=True)]
        )


def _type(key: Mapping[str, Any]) -> str:
    kinds = key.get("type", "string")
    shown = " or ".join(_TYPES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    return "date" if key.get("format") == "date" else shown


def _default(key: Mapping[str, Any]) -> str:
    default = key.get("default")
    return "" if default in (None, "", {}) else f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _modules() -> Iterator[str]:
    """Each module with the first sentence of its docstring, package by package, as the data flows."""
    for package, names in PACKAGES.items():
        yield from (f"**{package}/**: {names}", "")
        paths = sorted((ROOT / "etl" / package).rglob("*.py"))
        modules = [path for path in paths if path.stem != "__init__"]
        yield from _table(
            ("module", "owns"),
            ((f"`{path.relative_to(ROOT / 'etl' / package).as_posix()}`", _first_sentence(path)) for path in modules),
        )


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split()).replace("``", "`")
    return paragraph.partition(". ")[0].rstrip(".")


def _with_modules(page: str) -> str:
    head, begin, rest = page.partition("<!-- modules -->\n")
    _, end, tail = rest.partition("<!-- end of modules -->")
    return f"{head}{begin}\n{_page(_modules())}\n{end}{tail}"


def written() -> dict[str, str]:
    """What each file of the manual has that the code says.

    Of the data dictionary the tables are generated, and of the architecture page the list of modules.
    """
    head, *_ = (DOCS / "data-dictionary.md").read_text(encoding="utf-8").partition("\n\n## ")
    return {
        "architecture.md": _with_modules((DOCS / "architecture.md").read_text(encoding="utf-8")),
        "commands.md": _page(_commands_page()),
        "settings.md": _page(_settings_page()),
        "data-dictionary.md": _page([head, "", *_dictionary()]),
        "metrics-etl.schema.json": json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for name, text in written().items():
        (DOCS / name).write_text(text, encoding="utf-8")
