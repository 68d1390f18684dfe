"""Exceptions. Those that a codec raises are `ValueError`s: the bytes or the value are at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pdu import Abort


class Error(Exception):
    """The base of what goes wrong with an association."""


class DecodeError(ValueError):
    """Bytes that are no good PDU."""

    def __init__(self, kind: str, offset: int, text: str, abort: Abort) -> None:
        super().__init__(kind, offset, text, abort)
        self.kind = kind
        """What is wrong, in one word, as `bad_length`."""
        self.offset = offset
        """Of the field at fault, from the first byte of the PDU."""
        self.text = text
        """What is wrong, in words."""
        self.abort = abort
        """The A-ABORT that a peer should get for this."""

    def __str__(self) -> str:
        return f"{self.kind} at byte {self.offset}: {self.text}"


class IncompleteError(DecodeError):
    """Nothing is wrong, but the PDU is not complete."""

    def __init__(self, offset: int, need: int, abort: Abort) -> None:
        super().__init__("need_more", offset, f"a PDU of at least {need} bytes", abort)
        self.args = (offset, need, abort)  # what it takes to make a copy
        self.need = need
        """Bytes, from the first of the PDU, that are required to go on."""
