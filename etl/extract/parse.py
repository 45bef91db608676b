"""JSON in, Python values out, with every digit and every field. Pure.

What comes out says exactly what was sent; a body of which that cannot be said is refused.
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
    """The JSON document; numbers of which Python's own might not hold every digit as ``NumberLiteral``.

    Raises:
        ValueError, RecursionError: it is not JSON in UTF-8, is nested too deeply, or an object has two fields with the same name.
    """
    try:
        document = _decode(body)
    except msgspec.DecodeError:
        return _decode_slowly(body)
    # What reads the same when it is written again has no field twice, and no number of it lost a digit.
    text = _encode(document)
    return document if text == body or _is_same(text, body) else _decode_slowly(body)


def _is_same(text: bytes, body: bytes) -> bool:
    """Whether the body is the text but for spaces and for zeros at the end of a fraction."""
    text, body = (each.translate(None, b" \t\r\n") for each in (text, body))
    return text == body or text == b"".join(_ZEROS.split(body))  # its group stays; ``sub`` takes three times as long


def _decode_slowly(body: bytes) -> Any:
    """As Python reads JSON: NaN, integers of any length and lone surrogates too, and it shows each field to us."""
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
        raise ValueError("an object has two fields with the same name")
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
