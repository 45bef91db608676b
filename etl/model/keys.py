"""The key of a run test, which names its folder, and the names that the API can list. Pure.

Keys are lower-case ASCII and start with a letter: no reader takes them for numbers, dates or null, and a file system
that ignores case keeps them apart.
"""

import re
import unicodedata
from collections.abc import Iterator
from hashlib import sha256
from itertools import count

KEY_MAX_BYTES = 80
KEY = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", re.ASCII)
_READ_AS_VALUES = {"true", "false", "null", "none", "nan", "inf", "infinity", "na", "nat", "t", "f", "epoch"}
"""Words that a reader of partitions takes for a value of another type, or for no value."""
_HASH_DIGITS = 8


def is_key(text: str) -> bool:
    """Whether the text can name the folder of a run test."""
    return len(text) <= KEY_MAX_BYTES and bool(KEY.fullmatch(text)) and text not in _READ_AS_VALUES


def default_key(run_test_name: str) -> str:
    """A readable slug of the name with the first digits of its SHA-256: ``Checkout flow`` → ``checkout-flow-858f2c8d``.

    Names that differ in any way (case, normalization, spaces) have different keys.
    """
    digest = sha256(run_test_name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    plain = unicodedata.normalize("NFKD", run_test_name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"run-test-{slug}".rstrip("-")
    return f"{slug[: KEY_MAX_BYTES - _HASH_DIGITS - 1].rstrip('-')}-{digest}"


def numbered_keys(key: str) -> Iterator[str]:
    """The key itself, then others like it, without an end: ``checkout``, ``checkout-2``, and so on."""
    yield key
    for suffix in map("-{}".format, count(2)):
        yield key[: KEY_MAX_BYTES - len(suffix)] + suffix


def is_listable(run_test_name: str) -> bool:
    """Whether the API can list the executions of a run test with this name.

    It cannot if the name is empty, is not valid Unicode, or begins or ends with a space: the API strips spaces, and
    would list another run test.
    """
    try:
        return bool(run_test_name.encode()) and run_test_name == run_test_name.strip()
    except UnicodeEncodeError:
        return False
