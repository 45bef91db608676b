"""The JSON schema of the settings file, by which an editor completes keys, shows what they mean, and marks mistakes.

The schema knows types and bounds. What a text holds (an address, a path, a URL, a name, a limit) is left to ``check``.
In one way it is stricter than the settings: a number that is written as text, as an environment variable has it, is a
mistake in a file.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from etl.settings.read import Settings
from etl.settings.sections import RunTest


def settings_schema() -> dict[str, Any]:
    """The schema, in draft 7, which every editor knows."""
    generated = Settings.model_json_schema()["$defs"]
    sections = {
        name: _section(model, generated)
        for name, field in Settings.model_fields.items()
        for model in (field.annotation, *get_args(field.annotation))
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    run_test = {"anyOf": [{"type": "string", "minLength": 1}, _section(RunTest, generated)]}
    run_tests = {
        "description": 'names of the run tests to export, or "all" for every run test that the key can see',
        "anyOf": [{"const": "all"}, {"type": "array", "minItems": 1, "uniqueItems": True, "items": run_test}],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of metrics-etl",
        "type": "object",
        "properties": sections | {"run_tests": run_tests},
        "required": ["run_tests"],
        "additionalProperties": False,
    }


def _section(model: type[BaseModel], generated: dict[str, Any]) -> dict[str, Any]:
    """The schema of one section, from what pydantic generated for all of them, with the meaning of each key."""
    section = {name: value for name, value in generated[model.__name__].items() if name != "title"}
    section["description"] = " ".join(section["description"].split()).replace("``", "`")
    for name, meaning in _meanings(model).items():
        section["properties"][model.model_fields[name].alias or name]["description"] = " ".join(meaning.split())
    section["properties"] = {name: _key(key) for name, key in section["properties"].items()}
    return section


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The text below each key of a section, by the key's name.

    Read from the source here and not by pydantic, which would do so for all sections at every start of a command.
    """
    section: Any = ast.parse(inspect.getsource(model)).body[0]
    pairs: Any = pairwise(section.body)
    is_key_and_text = (ast.AnnAssign, ast.Expr)
    return {key.target.id: text.value.value for key, text in pairs if (type(key), type(text)) == is_key_and_text}


def _key(generated: dict[str, Any]) -> dict[str, Any]:
    """The schema of one key, without null, which is not in TOML, and without titles and formats, which say nothing."""
    kinds = [kind for kind in generated.get("anyOf", [{}]) if kind != {"type": "null"}]
    merged = {name: value for name, value in sorted(generated.items()) if name != "anyOf"}
    merged |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if "default" in merged and merged["default"] is None:
        del merged["default"]
    return {name: value for name, value in merged.items() if name != "title" and value != "file-path"}
