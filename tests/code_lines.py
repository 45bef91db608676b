"""How large the code is: ``python -m tests.code_lines`` prints it, and ``test_structure.py`` holds its limits.

A line counts if it has a token that is neither a comment nor part of a docstring. So words and blank lines are free.
"""

import ast
import functools
import tokenize
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMITS = {"etl": 18_500, "tests": 29_000}
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@functools.cache
def code_lines(path: Path) -> int:
    """The number of code lines of a module."""
    counted: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in _NO_CODE:
                counted.update(range(token.start[0], token.end[0] + 1))
    return len(counted - docstring_lines(ast.parse(path.read_bytes())))


def docstring_lines(tree: ast.Module) -> set[int]:
    """The lines of strings that stand alone in the body of a module, class or function."""
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    statements = (statement for node in ast.walk(tree) if isinstance(node, bodies) for statement in node.body)
    return {
        line
        for statement in statements
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }


def modules(folder: str) -> Iterable[Path]:
    """Every module below a folder of the checkout."""
    return (ROOT / folder).rglob("*.py")


def size(folder: str) -> int:
    """The number of code lines below a folder of the checkout."""
    return sum(map(code_lines, modules(folder)))


if __name__ == "__main__":
    print(", ".join(f"{folder}: {size(folder):,} code lines of {limit:,}" for folder, limit in LIMITS.items()))
