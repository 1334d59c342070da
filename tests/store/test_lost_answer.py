"""The commit happens, but the connection breaks before the answer comes: nobody knows, until the key is looked up."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from ledger.store import Conflict, Store
from tests.store.bank import WIRE, accepted, append, deposits, refused


class Forgetful:
    """A network between the store and PostgreSQL that loses the answer to the first commit, and then the connection."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.losses = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                is_losing = threading.Event()
                threading.Thread(target=self._ask, args=(client, server, is_losing), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server, is_losing), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, is_losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                # A Bind message: of the unnamed portal, to the prepared statement called commit.
                if b"\0commit\0" in data and not self.losses and b"COMMIT" not in data:
                    self.losses += 1
                    is_losing.set()
                server.sendall(data)
        server.close()

    def _answer(self, client: socket.socket, server: socket.socket, is_losing: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if is_losing.is_set():
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture
def network(ledger: str) -> Iterator[Forgetful]:
    server = psycopg.conninfo.conninfo_to_dict(ledger)
    network = Forgetful(str(server["host"]), int(str(server["port"])))
    yield network
    network.close()


@pytest.fixture
def store(ledger: str, network: Forgetful) -> Iterator[Store]:
    with Store.open(psycopg.conninfo.make_conninfo(ledger, port=network.port), wire=WIRE) as store:
        yield store


def test_a_command_whose_answer_was_lost_is_answered_and_happened_once(store: Store, network: Forgetful) -> None:
    answer = asyncio.run(store.submit(append("a", 0, *deposits(1, 2), key="key-1")))

    assert network.losses == 1
    assert (answer.first_version, answer.version, answer.position, answer.is_repeated) == (1, 2, 2, True)
    assert store.head().position == 2


def test_thousands_whose_answer_was_lost_are_answered_and_happened_once(store: Store, network: Forgetful) -> None:
    answers = store.append(*[append(f"a-{n}", 0, *deposits(1), key=f"key-{n}") for n in range(1000)])

    assert network.losses == 1
    assert [accepted(answer).position for answer in answers] == list(range(1, 1001))
    assert store.head().position == 1000


def test_without_a_key_the_honest_answer_is_a_conflict(store: Store, network: Forgetful) -> None:
    answer = store.append(append("a", 0, *deposits(1, 2)))[0]

    assert network.losses == 1
    assert refused(answer, Conflict).actual == 2
    assert store.head().position == 2
