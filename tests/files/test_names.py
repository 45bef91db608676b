"""Everything that lies under ``_state`` has a name of its own, and a line in the manual."""

import re
from pathlib import Path

from etl.files import names

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_every_file_of_the_state_is_explained() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    section = page.partition("\n## What may I delete in `_state`?\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_./]+)` \|", section, re.MULTILINE)
    assert {f"{names.STATE}/{name.rstrip('/')}" for name in rows} == {
        value for name, value in vars(names).items() if name.isupper() and str(value).startswith(f"{names.STATE}/")
    }
