"""The rejections that PS3.8 table 9-21 defines."""

from __future__ import annotations

from ltdic import AcseReason, PresentationReason, UserReason

Codes = tuple[int, int, int]

DEFINED = [
    (result, source, int(reason))
    for result in (1, 2)
    for source, reasons in enumerate((UserReason, AcseReason, PresentationReason), 1)
    for reason in reasons
]
