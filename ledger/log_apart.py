"""The log's writer in a process of its own: chaining and sending then take no time from whoever decides.

What is to be written goes there through a pipe, and the answers come back.  If that process dies, another one is
started and asked the same again: the keys tell what was written.
"""

import asyncio
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
import psycopg
from eventsourcing import persistence

from ledger.log import Answer, Appended, Conflict, Encoded, KeyReused, Manner, StoreError, Unwritable
from ledger.log_writer import LogWriter, library_error, patiently


class _Ledger(msgspec.Struct, frozen=True, array_like=True):
    """Where the process is to write."""

    url: str
    schema: str
    writer_role: bool
    retry_seconds: float


class _Batch(msgspec.Struct, frozen=True, array_like=True):
    now: datetime
    manner: Manner
    appends: list[Encoded]


class _Refusal(msgspec.Struct, frozen=True, array_like=True):
    """The name of a ``StoreError``, and what it is made of."""

    name: str
    parts: list[str | int]


class _Reply(msgspec.Struct, frozen=True, array_like=True):
    """By place in the batch, what was appended, or else the refusal; or the library's error, by its name."""

    appended: list[Appended | None] = []
    refused: dict[int, _Refusal] = {}
    error: tuple[str, str] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_ledger = msgspec.msgpack.Decoder(_Ledger).decode
_decode_batch = msgspec.msgpack.Decoder(_Batch).decode
_decode_reply = msgspec.msgpack.Decoder(_Reply).decode


# --- messages through a socket: four bytes of length, and so many bytes -----------------------------------------------

_length = struct.Struct(">I")


def _framed(message: bytes) -> bytes:
    return _length.pack(len(message)) + message


def _receive(end: socket.socket) -> bytearray:
    """The next message; ``EOFError`` if nobody sends any more."""

    def fill(size: int) -> bytearray:
        filled, received = bytearray(size), 0
        while received < size:
            received += _checked(end.recv_into(memoryview(filled)[received:]))
        return filled

    return fill(*_length.unpack(fill(_length.size)))


async def _receive_soon(end: socket.socket) -> bytearray:
    """The same, while other tasks go on."""
    loop = asyncio.get_running_loop()

    async def fill(size: int) -> bytearray:
        filled, received = bytearray(size), 0
        while received < size:
            received += _checked(await loop.sock_recv_into(end, memoryview(filled)[received:]))
        return filled

    return await fill(*_length.unpack(await fill(_length.size)))


def _checked(received: int) -> int:
    if received == 0:
        raise EOFError
    return received


# --- here -------------------------------------------------------------------------------------------------------------


class WriterApart:
    """Stands for a ``LogWriter`` in another process; any thread or task may use it, one at a time."""

    def __init__(
        self, url: str, schema: str, writer_role: bool, now: Callable[[], datetime], retry_seconds: float
    ) -> None:
        self._ledger, self._now = _Ledger(url, schema, writer_role, retry_seconds), now
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None

    def write(self, batch: Sequence[Encoded], manner: Manner) -> list[Answer]:
        """As ``LogWriter.write``."""
        return self.begin(batch, manner)()

    def begin(self, batch: Sequence[Encoded], manner: Manner) -> Callable[[], list[Answer]]:
        """Hands the batch over, to be written behind the caller's back.  What is returned waits for the answers; it has
        to be called, and before that nobody else can write."""
        message = self._message(batch, manner)
        self._lock.acquire()
        try:
            self._send(message)
        except OSError:
            self._drop()
        except BaseException:
            self._drop()
            self._lock.release()
            raise

        def answers() -> list[Answer]:
            try:
                return _answers(patiently(lambda: self._receive(message), self._ledger.retry_seconds))
            except psycopg.Error as error:
                raise library_error(error) from error
            finally:
                self._lock.release()

        return answers

    async def write_soon(self, batch: Sequence[Encoded], manner: Manner) -> list[Answer]:
        """The same for a task of an event loop, without a thread, for which the interpreter would have to be shared."""
        if self._end is not None and self._lock.acquire(blocking=False):
            try:
                return _answers(await self._ask_soon(self._end, self._message(batch, manner)))
            except (EOFError, OSError):
                self._drop()  # and as patiently as it takes:
            except BaseException:
                self._drop()
                raise
            finally:
                self._lock.release()
        return await asyncio.to_thread(self.write, batch, manner)

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._drop()

    def _message(self, batch: Sequence[Encoded], manner: Manner) -> bytes:
        return _framed(_encode(_Batch(self._now(), manner, list(batch))))

    def _send(self, message: bytes) -> socket.socket:
        end = self._end or self._start()
        end.setblocking(True)
        end.sendall(message)
        return end

    def _receive(self, message: bytes) -> bytearray:
        """The answer to a message, which is sent again if the process that it was sent to is gone."""
        try:
            return _receive(self._end or self._send(message))
        except (EOFError, OSError) as error:
            self._drop()
            raise psycopg.OperationalError("the process that writes the log is gone") from error
        except BaseException:
            self._drop()  # or the next one would get this one's answers
            raise

    async def _ask_soon(self, end: socket.socket, message: bytes) -> bytearray:
        end.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(end, message)
        return await _receive_soon(end)

    def _start(self) -> socket.socket:
        mine, theirs = socket.socketpair()
        self._end = mine
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", __name__, str(number)], pass_fds=[number])
        mine.sendall(_framed(_encode(self._ledger)))
        return mine

    def _drop(self) -> None:
        end, process = self._end, self._process
        self._end = self._process = None
        if end is not None:
            end.close()
        if process is not None:
            process.wait()  # it ends when it has nobody to answer to


def _answers(message: bytearray) -> list[Answer]:
    """What the other process answered; raises the library's error that it met."""
    reply = _decode_reply(message)
    if reply.error is not None:
        name, text = reply.error
        raise getattr(persistence, name)(text)
    if not reply.refused:
        return reply.appended  # type: ignore[return-value]
    return [x if x is not None else _refusal(reply.refused[place]) for place, x in enumerate(reply.appended)]


def _refusal(refusal: _Refusal) -> StoreError:
    kinds: dict[str, Callable[..., StoreError]] = {
        "Conflict": Conflict, "KeyReused": KeyReused, "Unwritable": Unwritable,
    }  # fmt: skip
    return kinds[refusal.name](*refusal.parts)


# --- there ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Writes what comes through the pipe whose number is given, until it is closed."""
    from ledger.log_library import LedgerDatastore

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for whoever started us, who will close the pipe
    end = socket.socket(fileno=int(sys.argv[1]))
    ledger = _decode_ledger(_receive(end))
    datastore = LedgerDatastore(ledger.url, ledger.schema, writer_role=ledger.writer_role)
    now: list[datetime] = []
    writer = LogWriter(datastore.connect, lambda: now[-1], ledger.schema, ledger.retry_seconds)
    try:
        while True:
            batch = _decode_batch(_receive(end))
            now[:] = [batch.now]
            end.sendall(_framed(_encode(_reply(writer, batch))))
    except (EOFError, OSError):
        pass
    finally:
        writer.close()
        datastore.close()


def _reply(writer: LogWriter, batch: _Batch) -> _Reply:
    try:
        answers = writer.write(batch.appends, batch.manner)
    except persistence.PersistenceError as error:
        return _Reply(error=(type(error).__name__, str(error)))
    return _Reply(
        [answer if isinstance(answer, Appended) else None for answer in answers],
        {place: _told(answer) for place, answer in enumerate(answers) if isinstance(answer, StoreError)},
    )


def _told(error: StoreError) -> _Refusal:
    match error:
        case Conflict():
            return _Refusal("Conflict", [error.stream, error.expected, error.actual])
        case KeyReused():
            return _Refusal("KeyReused", [error.key])
        case _:
            return _Refusal("Unwritable", [str(error)])


if __name__ == "__main__":
    main()
