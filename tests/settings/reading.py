"""Settings that are read from a text."""

from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings import Settings


def read_settings(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return Settings.load(file)


def mistake(file: Path, text: str) -> str:
    """The message, without the folder; always one line and never with a key in it."""
    with pytest.raises(ConfigurationError) as raised:
        read_settings(file, text)
    message = str(raised.value)
    assert "\n" not in message
    assert "canary" not in message
    assert raised.value.exit_code == 2
    return message.replace(f"{file.parent}/", "")
