"""Settings that are read from a text."""

from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings import Settings


def read_settings(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return Settings.load(file)


def mistake(file: Path, text: str) -> str:
    """The only mistake."""
    (only,) = mistakes(file, text)
    return only


def mistakes(file: Path, text: str) -> list[str]:
    """The lines of the message, without the folder; never with a key in them."""
    with pytest.raises(ConfigurationError) as raised:
        read_settings(file, text)
    message = str(raised.value)
    assert "canary" not in message
    assert raised.value.exit_code == 2
    return message.replace(f"{file.parent}/", "").split("\n")
