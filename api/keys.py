"""API keys: who is asking, and in which role.

A key is 256 random bits, shown once when it is made; the ledger keeps only its SHA-256.  A key belongs to one actor in
one role; whoever has several roles has several keys.  Keys are made and revoked by the owner of the database
(``create``, ``revoke``, ``listing``); the HTTP door only looks them up (``Keyring``).
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import LiteralString

import msgspec
import psycopg
from psycopg import sql

from ledger.decider import POLICY, ROLES

KEY_ROLES = tuple(role for role in ROLES if role != POLICY)
"""The roles a key can have.  ``policy`` is the ledger itself, which needs no key and lends none."""

REMEMBERED_SECONDS = 2.0
"""For how long the door believes what it looked up: a revoked key opens nothing after that."""

_PREFIX = "gl_"
"""Marks a key for those who search code and logs for leaked secrets."""
_ACTOR = re.compile(r"[!-.0-~]{1,200}")
_FINGERPRINT_DIGITS = 16
_MOST_REMEMBERED = 10_000
_MOST_CHARACTERS = 200


class KeyRefused(ValueError):
    """A key cannot be made or revoked as asked."""


class Holder(msgspec.Struct, frozen=True):
    """Whom a key belongs to."""

    actor: str
    role: str


class KeyRecord(msgspec.Struct, frozen=True):
    """What the ledger knows about a key.  ``fingerprint`` names it: the first 16 digits of its SHA-256."""

    fingerprint: str
    actor: str
    role: str
    label: str
    created_at: datetime
    revoked_at: datetime | None


# --- made and revoked -------------------------------------------------------------------------------------------------


def create(url: str, schema: str, actor: str, role: str, label: str = "") -> str:
    """Makes a key for ``actor`` in ``role`` and returns it; nobody can read it again.

    A merchant's actor is its merchant_id, a buyer's its buyer_ref, a carrier's the name that shipments give the
    carrier.  Raises ``KeyRefused`` if there is no such role, or the actor is not 1 to 200 visible ASCII characters
    without ``/``."""
    if role not in KEY_ROLES:
        raise KeyRefused(f"no key can have the role {role!r}; the roles are {', '.join(KEY_ROLES)}")
    if not _ACTOR.fullmatch(actor):
        raise KeyRefused("an actor has 1 to 200 visible ASCII characters, and no slash")
    key = _PREFIX + secrets.token_urlsafe(32)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            _sql("INSERT INTO {} (key_sha256, created_at, actor, role, label) VALUES (%s, %s, %s, %s, %s)", schema),
            [_sha256(key), datetime.now(UTC), actor, role, label],
        )
    return key


def revoke(url: str, schema: str, fingerprint: str) -> KeyRecord:
    """Ends a key, named by its fingerprint or by itself, within ``REMEMBERED_SECONDS``; twice is as good as once.

    Raises ``KeyRefused`` if there is none."""
    digits = fingerprint_of(fingerprint) if fingerprint.startswith(_PREFIX) else fingerprint.lower()
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            _sql(
                "UPDATE {} SET revoked_at = coalesce(revoked_at, %s) WHERE left(encode(key_sha256, 'hex'), 16) = %s "
                "RETURNING left(encode(key_sha256, 'hex'), 16), actor, role, label, created_at, revoked_at",
                schema,
            ),
            [datetime.now(UTC), digits],
        ).fetchone()
    if row is None:
        raise KeyRefused(f"there is no key {digits!r}")
    return KeyRecord(*row)


def listing(url: str, schema: str) -> list[KeyRecord]:
    """Every key there was, in the order in which they were made."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            _sql(
                "SELECT left(encode(key_sha256, 'hex'), 16), actor, role, label, created_at, revoked_at FROM {} "
                "ORDER BY created_at, key_sha256",
                schema,
            )
        )
        return [KeyRecord(*row) for row in rows]


def holder(url: str, schema: str, key: str) -> Holder | None:
    """Whom a key belongs to; ``None`` if nobody, or no longer."""
    statement = _sql("SELECT actor, role FROM {} WHERE key_sha256 = %s AND revoked_at IS NULL", schema)
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement, [_sha256(key)]).fetchone()
    return Holder(*row) if row else None


def fingerprint_of(key: str) -> str:
    """The name of a key, which gives nothing away."""
    return _sha256(key).hex()[:_FINGERPRINT_DIGITS]


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _sql(text: LiteralString, schema: str) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(schema, "api_keys"))


# --- looked up --------------------------------------------------------------------------------------------------------

Find = Callable[[bytes], Holder | None]


class Keyring:
    """Looks keys up, for one event loop; remembers for two seconds whom it found, and also that it found nobody."""

    def __init__(self, find: Find, *, remembered_seconds: float = REMEMBERED_SECONDS) -> None:
        """``find``: the holder of the key with this SHA-256, unless it was revoked; called in a thread."""
        self._find, self._remembered_seconds = find, remembered_seconds
        self._known: OrderedDict[bytes, tuple[float, Holder | None]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Holder | None]] = {}

    async def holder(self, key: str) -> Holder | None:
        """Whom a key belongs to; ``None`` if nobody, or no longer.  Raises what the database raises."""
        if not key.isascii() or len(key) > _MOST_CHARACTERS:
            return None
        key_sha256 = _sha256(key)
        known = self._known.get(key_sha256)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        asked = self._asked.get(key_sha256)
        if asked is None:  # many requests with one key ask once
            asked = self._asked[key_sha256] = asyncio.get_running_loop().create_task(self._ask(key_sha256))
        return await asyncio.shield(asked)

    async def _ask(self, key_sha256: bytes) -> Holder | None:
        try:
            valid_until = time.monotonic() + self._remembered_seconds
            holder = await asyncio.to_thread(self._find, key_sha256)
            self._known[key_sha256] = (valid_until, holder)
            self._known.move_to_end(key_sha256)
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
            return holder
        finally:
            del self._asked[key_sha256]
