"""Read JSON without losing a digit or a field. Pure.

What comes out holds exactly what was sent. A fast reader goes first: if what it read looks the same when it is written
again, nothing was lost. Any other body is read a second time by Python's own reader, which is slow and shows every
field.
"""

import json
import re
from typing import Any

import msgspec

from etl.model.records import NumberLiteral

_SAFE_CHARACTERS = 16  # a fraction of at most 15 digits comes back from a double as it was written
_WHOLE = 2**53  # from here on what a double prints need not be the whole number that it is
_ZEROS = re.compile(rb"(\.[0-9]+?)0+(?=[],}])")
_INT_DIGITS = 4000  # below the limit at which Python refuses to convert


def parse_json(body: bytes) -> Any:
    """The JSON document; a number that a Python number might not hold digit by digit becomes a ``NumberLiteral``.

    Raises:
        ValueError: It is not JSON in UTF-8, or an object has two fields with the same name.
        RecursionError: It is nested too deeply.
    """
    try:
        document = _decode(body)
    except msgspec.DecodeError:
        return _decode_slowly(body)
    # What is the same when it is written again has no field twice, and no number of it lost a digit.
    text = _encode(document)
    return document if text == body or _is_same(text, body) else _decode_slowly(body)


def _is_same(text: bytes, body: bytes) -> bool:
    """Whether the two differ only in spaces and in zeros at the end of fractions."""
    text, body = text.translate(None, b" \t\r\n"), body.translate(None, b" \t\r\n")
    # Joining what ``split`` leaves, its group included, takes a third of the time of ``sub``.
    return text == body or text == b"".join(_ZEROS.split(body))


def _decode_slowly(body: bytes) -> Any:
    """As Python reads JSON: with NaN, integers of any length and lone surrogates, and each field is shown to us."""
    return json.loads(
        body.decode("utf-8-sig"),  # json.loads would guess the encoding of bytes and let through what is not UTF-8
        object_pairs_hook=_object,
        parse_constant=NumberLiteral,
        parse_float=_parse_float,
        parse_int=_parse_int,
    )


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(fields)
    if len(document) < len(fields):
        raise ValueError("one of its objects has two fields with the same name")
    return document


def _parse_float(literal: str) -> float | NumberLiteral:
    number = float(literal)
    if len(literal) <= _SAFE_CHARACTERS and "e" not in literal and "E" not in literal:
        return number
    return number if abs(number) < _WHOLE and repr(number) == literal else NumberLiteral(literal)


def _parse_int(literal: str) -> int | NumberLiteral:
    return int(literal) if len(literal) <= _INT_DIGITS else NumberLiteral(literal)


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
