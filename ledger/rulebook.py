"""The programme's rules as published, versioned data: every window, rate, threshold and cap that decisions use.

A rulebook is immutable once published and lies in the log itself (``RulebookPublished.body``), so that a stream's
terms can name it and be decided by it for ever.  Sources: the press report of June 2015 (``seed``), 1688 site practice,
E-Commerce Law, example figures and our own choices; each is marked in ``rulebooks/rulebook-2015.1.yaml``.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

RULEBOOKS = Path(__file__).parent / "rulebooks"
"""The rulebooks that come with the ledger, one YAML file each."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of a rulebook."""


class Programme(Part, frozen=True):
    """When the programme begins, what its merchants promise, and the notice its rules need."""

    live_at: datetime
    guarantees: tuple[str, ...]
    reapply_cooldown_days: int
    notice_days: int


class Fee(Part, frozen=True):
    """服务年费 by kind of category, fen a year."""

    womens_apparel_fen: int
    other_fen: int
    refund_on_exit: Literal["whole_months_not_begun"]


class Category(Part, frozen=True):
    """What a category asks of its merchants: 保证金, 扣点 in basis points, and the exchange windows they may offer."""

    deposit_fen: int
    commission_bp: int
    exchange_days: tuple[int, ...]
    fee: Literal["womens_apparel_fen", "other_fen"]


class DepositRules(Part, frozen=True):
    """How soon a deposit is refilled, and how much the platform advances for a merchant at most."""

    top_up_days: int
    return_wait_days: int
    advance_cap_fen: int


class Rebate(Part, frozen=True):
    """The share of the commission that goes back for goods that travelled with Cainiao, and what proves it."""

    share_bp: int
    needs_carrier_origin_scan: bool


class Windows(Part, frozen=True):
    """How long everybody has."""

    payment_hours: int
    ingest_grace_hours: int
    auto_receipt_days: int
    claim_days: int
    rating_days: int


class AnswerTime(Part, frozen=True):
    """How long a merchant may take to answer a refund request; the first row that fits."""

    answer_hours: int
    paid_within_minutes: int | None = None
    max_fen: int | None = None


class RefundRules(Part, frozen=True):
    """Answering, freight, and the windows around a refund."""

    answer: tuple[AnswerTime, ...]
    freight_returned_for: tuple[str, ...]
    dispute_days: int
    refunded_units_return_days: int
    recovery_days: int


class Damages(Part, frozen=True):
    """What late dispatch costs: a rate of the goods, within bounds."""

    rate_bp: int
    min_fen: int
    max_fen: int


class Budgets(Part, frozen=True):
    """What the programme may spend in a year."""

    quality_fen: int
    marketing_fen: int
    logistics_fen: int


class Sampling(Part, frozen=True):
    """How samples are chosen and provided."""

    units: int
    provide_hours: int
    reveal_days: int
    rate_ppm: Mapping[str, int]
    new_until_orders: int


class Rulebook(Part, frozen=True):
    """All rules of one version.  Sections that no code reads yet are kept as they were published."""

    rulebook: str
    effective_from_at: datetime
    zone: Literal["Asia/Shanghai"]
    rounding: Literal["half_even"]
    programme: Programme
    fee: Fee
    categories: Mapping[str, Category]
    deposit: DepositRules
    rebate: Rebate
    windows: Windows
    refund: RefundRules
    damages: Damages
    sampling: Sampling
    budgets: Budgets
    exchange: Mapping[str, Any]
    dispute: Mapping[str, Any]
    inspection: Mapping[str, Any]
    statement: Mapping[str, Any]
    accounting: Mapping[str, Any]
    points: Mapping[str, Any]
    score: Mapping[str, Any]
    benefits: Mapping[str, Any]
    subjects: Mapping[str, Any]
    sha256: str = ""
    """Of the published body; filled in by ``rulebook_of``."""


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one byte form of a body that is hashed: JSON, sorted keys, no blanks."""
    return msgspec.json.encode(body, order="sorted")


def sha256_of(body: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(body)).hexdigest()


def rulebook_of(body: Mapping[str, Any]) -> Rulebook:
    """The typed rules of a published body; ``msgspec.ValidationError`` names the parameter that is missing or wrong."""
    return msgspec.structs.replace(msgspec.convert(body, Rulebook), sha256=sha256_of(body))


def shipped(name: str) -> dict[str, Any]:
    """The body of a rulebook that comes with the ledger, as plain JSON values."""
    body = msgspec.yaml.decode((RULEBOOKS / f"{name}.yaml").read_bytes())
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return plain
