"""Policies: an event in one stream becomes a command to another.  Messages between streams are facts of role policy.

A policy holds no state.  It reads events in global order, and the key of the command it makes (policy and target id)
makes a repeat harmless: whoever carries messages may die at any point, or run twice.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ledger import merchants
from ledger.decider import Command
from ledger.events import Recorded
from ledger.orders import events as e
from ledger.orders import refunds


class Message(msgspec.Struct, frozen=True):
    """A command to carry, under the key that makes it happen once."""

    key: str
    command: Command


def messages(event: Recorded) -> list[Message]:
    """What an event has to say to other streams (or, later, to its own)."""
    policy = _POLICIES.get(type(event.data))
    return policy(event, event.data) if policy else []


def _ask_for_cover(event: Recorded, d: e.RefundApproved) -> list[Message]:
    """P3: a refund needs money that escrow and commission do not give."""
    if d.cover_fen == 0:
        return []
    command = merchants.CoverRefund(
        merchant_id=d.merchant_id, refund_id=d.refund_id, order_id=d.order_id, dispute_id=d.dispute_id,
        requested_fen=d.cover_fen, occurred_at=event.occurred_at,
    )  # fmt: skip
    return [Message(f"P3/{d.order_id}/{d.refund_id}", command)]


def _report_cover(event: Recorded, d: merchants.RefundCovered) -> list[Message]:
    """P4: the order hears what deposit and advance gave."""
    command = refunds.ReportCover(
        order_id=d.order_id, refund_id=d.refund_id, attempt=d.attempt, drawn_fen=d.drawn_fen,
        advanced_fen=d.advanced_fen, short_fen=d.short_fen, occurred_at=event.occurred_at,
    )  # fmt: skip
    return [Message(f"P4/{d.order_id}/{d.refund_id}/{d.attempt}", command)]


def _instruct(event: Recorded, d: e.RefundFunded) -> list[Message]:
    """P5: the provider is asked to pay."""
    return [_instruction(event, d.order_id, d.refund_id, 1)]


def _instruct_again(event: Recorded, d: e.RefundPayoutFailed) -> list[Message]:
    """P5: and asked again, with the same payment key."""
    return [_instruction(event, d.order_id, d.refund_id, d.attempt + 1)]


def _instruction(event: Recorded, order_id: str, refund_id: str, attempt: int) -> Message:
    command = refunds.InstructRefund(
        order_id=order_id, refund_id=refund_id, attempt=attempt, payment_key=f"{order_id}/{refund_id}",
        occurred_at=event.occurred_at,
    )  # fmt: skip
    return Message(f"P5/{order_id}/{refund_id}/{attempt}", command)


def _reverse_cover(event: Recorded, d: e.RefundCancelled | e.RefundRecoveryOpened) -> list[Message]:
    """P6: a covered refund was undone; its money goes back to the merchant.  Once per event that says so: cover that
    was on its way when the refund was cancelled is sent back by a second one."""
    if d.to_cover_fen == 0:
        return []
    command = merchants.ReverseCover(
        merchant_id=d.merchant_id, refund_id=d.refund_id, order_id=d.order_id, reversal_fen=d.to_cover_fen,
        occurred_at=event.occurred_at,
    )  # fmt: skip
    return [Message(f"P6/{d.order_id}/{d.refund_id}/{event.version}", command)]


_POLICIES: dict[type, Callable[[Recorded, Any], list[Message]]] = {
    e.RefundApproved: _ask_for_cover,
    merchants.RefundCovered: _report_cover,
    e.RefundFunded: _instruct,
    e.RefundPayoutFailed: _instruct_again,
    e.RefundCancelled: _reverse_cover,
    e.RefundRecoveryOpened: _reverse_cover,
}

SPEAKING = frozenset(_POLICIES)
"""The events that have something to say to another stream."""
