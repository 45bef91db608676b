"""Read the API's keys and the proxy's credentials, from the environment or from files that only their owner can read.

Values leave this module as ``SecretStr``, and no message holds one.
"""

import os
import stat
from pathlib import Path

from pydantic import SecretStr

from etl.errors import ConfigurationError

KEYS_FILE = Path("keys.env")
"""Where ``init`` saves the keys, in the working directory. A shell loads it, never this program."""


def read_api_key(variable: str, *, kind: str = "key") -> SecretStr:
    """The key in the environment variable, or in the file that ``<variable>_FILE`` names, without space around it.

    Messages call it by its ``kind``.

    Raises:
        ConfigurationError: there is none, or both variables are set; its file cannot be read or is open to others; or
            it holds a character that no key has. The message is one line that names the variable and the fix.
    """
    where = variable
    value = os.environ.get(variable)
    path = os.environ.get(f"{variable}_FILE")
    if value and path:
        raise ConfigurationError(f"{variable} and {variable}_FILE are both set. Unset one of them")
    if path:
        where = f"{variable}_FILE ({path})"
        try:
            if _is_open_to_others(Path(path).stat()):
                raise ConfigurationError(f"{where}: other users can read this file. Run chmod 600 {path}")
            value = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"cannot read {where}: {getattr(exc, 'strerror', 'it is not text')}") from None
    key = (value or "").strip()
    if not key and kind == "key" and KEYS_FILE.exists():
        raise ConfigurationError(f"there is no {kind}, because {KEYS_FILE} is not loaded. Run '. ./{KEYS_FILE}' first")
    if not key:
        raise ConfigurationError(f"there is no {kind}. Set {variable}, or {variable}_FILE to the path of a {kind} file")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"{where}: it contains a character that cannot be in a {kind}. Copy the {kind} again")
    return SecretStr(key)


def read_proxy_credentials() -> dict[str, SecretStr]:
    """The fields ``proxy_user`` and ``proxy_password`` of the settings; empty if the environment names neither.

    Raises:
        ConfigurationError: one is given without the other, or one cannot be read.
    """
    kinds = {"FI_PROXY_USER": "user name", "FI_PROXY_PASSWORD": "password"}
    if not any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in kinds):
        return {}
    user, password = (read_api_key(name, kind=kind) for name, kind in kinds.items())
    return {"proxy_user": user, "proxy_password": password}


def _is_open_to_others(status: os.stat_result) -> bool:
    """Whether anybody but the owner, or but us, may read or change the file."""
    # Kubernetes (fsGroup) and systemd (access lists) let us read a file of root's in a way that shows as group access.
    allowed = stat.S_IRGRP if status.st_uid == 0 and os.geteuid() != 0 else 0
    return bool(stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed)
