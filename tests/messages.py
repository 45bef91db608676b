"""Every sentence that the product can show, taken from the code, for somebody to read: ``python -m tests.messages``."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from etl import errors
from etl.cli.commands import app
from etl.model.findings import Kind

ROOT = Path(__file__).parents[1]
ERRORS = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
_NOT_SHOWN = ("sandbox", "model/findings.py", "load/external_tables.py", "load/statements.py")
_CODE = re.compile(
    r"^[A-Z]{2,} ?[A-Z(]|\n|\{\w+\}|^\w[\w.]+(\[.*\]| \| None)+$|^(bold|import|Basic) |^(set_config|pa|pl)\b|\|4"
)


_SECTIONS = ("settings/results.py", "settings/sections.py")


def messages() -> Iterator[tuple[str, str]]:
    """Where each is, and how it reads; what is filled in stands in angle brackets."""
    for kind in Kind:
        yield f"{kind} ({kind.severity})", f"{kind.meaning}. next: {kind.next_step}"
    for command in app.registered_commands:
        yield f"{command.callback.__name__} --help", str(command.callback.__doc__)  # type: ignore[union-attr]
    for path in modules():
        name = path.relative_to(ROOT / "etl").as_posix()
        if not name.startswith(_NOT_SHOWN):
            for text in texts(parsed(path), has_meanings=name in _SECTIONS):
                if is_sentence(text):
                    yield name, text


def is_sentence(text: str) -> bool:
    return bool(re.search("[a-z]{3}.* | .*[a-z]{3}", re.sub("<.+?>", "", text))) and not _CODE.search(text)


def modules() -> list[Path]:
    return sorted((ROOT / "etl").rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(node: ast.AST, *, has_meanings: bool = False) -> Iterator[str]:
    """The texts of the node and below, in order.

    Texts that stand alone, as docstrings do, are among them only with ``has_meanings``.
    """
    if _is_text(node):
        yield as_read(node)
        return
    for each in ast.iter_child_nodes(node):
        if has_meanings or not (isinstance(each, ast.Expr) and _is_text(each.value)):
            yield from texts(each, has_meanings=has_meanings and not isinstance(each, ast.FunctionDef))


def as_read(node: ast.AST) -> str:
    """The text as a reader sees it: what is filled in by the last word of its expression."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(as_read, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"<{re.findall('[A-Za-z]+', ast.unparse(node.value))[-1]}>"
    return str(getattr(node, "value", "")).replace("{{", "{").replace("}}", "}")


def raised() -> Iterator[tuple[str, list[str]]]:
    """The module of each error of ours that is made, and the sentences in the call."""
    for path in modules():
        for call in ast.walk(parsed(path)):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ERRORS and call.args:
                yield path.name, [text for text in texts(call.args[0]) if is_sentence(text)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


if __name__ == "__main__":
    for number, (where, text) in enumerate(dict.fromkeys(messages()), start=1):
        print(f"{number:4}  {where:<34}  {' '.join(text.split())}")  # noqa: T201 this is what it is for
