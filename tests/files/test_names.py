"""Everything that lies under ``_state`` has a name of its own, and a line in the manual."""

import re
from pathlib import Path

from etl.files import names

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def test_every_file_of_the_state_is_explained() -> None:
    page = FORMAT.read_text(encoding="utf-8")
    section = page.partition("\n## What may I delete in `_state`?\n")[2].partition("\n## ")[0]
    first_columns = " ".join(line[:17] for line in section.split("```")[1].splitlines()[1:])
    assert {f"{names.STATE}/{name}" for name in re.findall(r"[a-z_.]+", first_columns)} == {
        value for name, value in vars(names).items() if name.isupper() and str(value).startswith(f"{names.STATE}/")
    }
