"""Executions as the list of their run test gives them, in little memory: what a plan needs, and the payload packed. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from etl.model.digest import fingerprint
from etl.model.records import DeadLetter, Execution, NumberLiteral
from etl.model.values import MISFIT, timestamp_or_none, to_int


class ListedExecution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One listed execution; ``fingerprint`` is that of its payload.

    ``calls`` is the number of its calls according to the list, None if the list does not say. ``packed`` is the payload, or None
    if it was dropped: as MessagePack, which takes a tenth of the memory, or as a dict where MessagePack cannot hold it exactly.
    """

    execution_id: str
    status: str
    fingerprint: str
    started_at: datetime | None
    calls: int | None
    packed: bytes | dict[str, Any] | None

    @classmethod
    def of(cls, execution: Execution) -> "ListedExecution":
        """The execution without its payload."""
        return cls(
            execution_id=execution.execution_id,
            status=execution.status,
            fingerprint=fingerprint(execution.payload),
            started_at=timestamp_or_none(execution.payload.get("started_at")),
            calls=next(iter(call_counts(execution.payload)), None),
            packed=None,
        )

    def with_payload(self, payload: dict[str, Any]) -> "ListedExecution":
        """The same execution with its payload."""
        return msgspec.structs.replace(self, packed=_pack(payload))

    def unpack(self) -> Execution:
        """The execution as it was listed.

        Raises:
            ValueError: its payload was dropped.
        """
        if self.packed is None:
            raise ValueError(f"execution {self.execution_id}: its payload was dropped")
        payload = self.packed if isinstance(self.packed, dict) else _decode(self.packed)
        return Execution(execution_id=self.execution_id, status=self.status, payload=payload)


@dataclass(frozen=True, slots=True)
class ExecutionList:
    """One run test's executions by id.

    ``is_complete`` is proved: no execution is missing. ``heads`` says of which executions only the head could be read (status,
    times, counters), and why. ``unreadable`` has a line for each row of the list that could not even be identified.
    """

    executions: Mapping[str, ListedExecution]
    is_complete: bool
    heads: Mapping[str, DeadLetter]
    unreadable: tuple[str, ...]


def call_counts(payload: Mapping[str, Any]) -> list[int]:
    """The number of an execution's calls as the API counts them now, and its stored counter; each only if its column holds it."""
    metrics = payload.get("metrics")
    calls = metrics.get("calls") if isinstance(metrics, dict) else None
    total = calls.get("total") if isinstance(calls, dict) else None
    counts = map(to_int, (total, payload.get("total_calls")))
    return [each for each in counts if each is not MISFIT and each >= 0]


def _pack(payload: dict[str, Any]) -> bytes | dict[str, Any]:
    try:
        return _encode(payload)
    except (OverflowError, UnicodeEncodeError):
        # An integer beyond 64 bits, or a string that UTF-8 cannot hold.
        return payload


def _from_literal(literal: NumberLiteral) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(0, literal.encode())


def _to_literal(_code: int, data: memoryview) -> NumberLiteral:
    return NumberLiteral(bytes(data).decode())


_encode = msgspec.msgpack.Encoder(enc_hook=_from_literal).encode
_decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_to_literal).decode
