"""Every sentence that the product can show, taken from the code, for somebody to read: ``python -m tests.messages``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from etl import errors
from etl.cli.commands import app
from etl.model.findings import Kind

ROOT = Path(__file__).parents[1]
ERRORS = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
_NOT_SHOWN = ("sandbox", "model/findings.py", "load/warehouse/external_tables.py", "load/warehouse/statements.py")
_CODE = re.compile(r"^[A-Z]{2,} ?[A-Z(]|\n|\{\w+\}|^[\w.]+ \| None$|^bold |^\w+\[.*\]$")


def messages() -> Iterator[tuple[str, str]]:
    """Where each is, and how it reads: the name of what is filled in stands in angle brackets."""
    for kind in Kind:
        yield f"{kind} ({kind.severity})", f"{kind.meaning}. next: {kind.next_step}"
    for command in app.registered_commands:
        yield f"{command.callback.__name__} --help", str(command.help)  # type: ignore[union-attr]
    for path in modules():
        name = path.relative_to(ROOT / "etl").as_posix()
        if not name.startswith(_NOT_SHOWN):
            for text in texts(parsed(path), has_meanings=name == "settings/sections.py"):
                if is_sentence(text):
                    yield name, text


def is_sentence(text: str) -> bool:
    return bool(re.search("[a-z]{3}.* | .*[a-z]{3}", re.sub("<.+?>", "", text))) and not _CODE.search(text)


def modules() -> list[Path]:
    return sorted((ROOT / "etl").rglob("*.py"))


def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(node: ast.AST, *, has_meanings: bool = False) -> Iterator[str]:
    """The texts of the node and below, in order; texts that stand alone, as docstrings do, only with ``has_meanings``."""
    if _is_text(node):
        yield as_read(node)
        return
    for each in ast.iter_child_nodes(node):
        if has_meanings or not (isinstance(each, ast.Expr) and _is_text(each.value)):
            yield from texts(each, has_meanings=has_meanings)


def as_read(node: ast.AST) -> str:  # noqa: PLR0911 one for each kind of node
    """The text as a reader sees it."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(as_read, node.values))
        case ast.FormattedValue():
            return as_read(node.value) if node.conversion < 0 else f"'{as_read(node.value)}'"
        case ast.Call(func=ast.Name(id="quoted"), args=[thing]):
            return f"'{as_read(thing)}'"
        case ast.Call(func=ast.Name(id="counted"), args=[_, thing]):
            return f"3 {as_read(thing)}s"
        case ast.IfExp():
            return f"[{as_read(node.body)}|{as_read(node.orelse)}]"
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return f"<{name}>"
        case _:
            return "<…>"


def raised() -> Iterator[tuple[str, list[str]]]:
    """The module of each error of ours that is made, and its sentences: in the call, or in what its names were set to."""
    for path in modules():
        for function in ast.walk(parsed(path)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                nodes = list(ast.walk(function))
                values = [
                    (target, each.value) for each in nodes if isinstance(each, ast.Assign) for target in each.targets
                ]
                given = {target.id: value for target, value in values if isinstance(target, ast.Name)}
                for call in nodes:
                    if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ERRORS and call.args:
                        used = [
                            given[each.id] for each in ast.walk(call) if isinstance(each, ast.Name) and each.id in given
                        ]
                        yield (
                            path.name,
                            [text for part in [call.args[0], *used] for text in texts(part) if is_sentence(text)],
                        )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


if __name__ == "__main__":
    for number, (where, text) in enumerate(dict.fromkeys(messages()), start=1):
        print(f"{number:4}  {where:<34}  {' '.join(text.split())}")  # noqa: T201 this is what it is for
