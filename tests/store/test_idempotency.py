"""Asked twice: the same command gets the first answer again, another command under the same key gets none."""

import asyncio

from ledger.store import Appended, Conflict, KeyReused, Store
from tests.store.bank import WIRE, accepted, append, deposits, refused


def again(answer: Appended) -> Appended:
    """What the first answer becomes when it is given again."""
    return Appended(
        answer.stream, answer.first_version, answer.version, answer.position, answer.recorded_at, is_repeated=True
    )


def test_the_same_key_and_body_get_the_first_answer_again(store: Store) -> None:
    command = append("account-1", 0, *deposits(1, 2), key="key-1", body="pay in")
    first = accepted(store.append(command)[0])
    store.append(append("account-1", 2, *deposits(3)))

    second = store.append(command)[0]

    assert second == again(first)
    assert store.head().position == 3


def test_the_first_answer_is_given_even_if_the_version_is_stale_or_wrong(store: Store) -> None:
    first = accepted(store.append(append("account-1", 0, *deposits(1), key="key-1"))[0])

    for expected_version in (0, 1, 77):
        repeated = store.append(append("account-1", expected_version, *deposits(1), key="key-1"))[0]
        assert repeated == again(first)


def test_the_same_key_with_another_body_is_refused(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1), key="key-1", body="pay in 1"))

    answer = store.append(append("account-1", 1, *deposits(9), key="key-1", body="pay in 9"))[0]

    assert refused(answer, KeyReused).key == "key-1"
    assert store.head().position == 1


def test_a_key_counts_within_one_call_too(store: Store) -> None:
    first, second, other = store.append(
        append("account-1", 0, *deposits(1), key="key-1"),
        append("account-1", 1, *deposits(1), key="key-1"),
        append("account-2", 0, *deposits(1), key="key-1", body="another"),
    )

    assert second == again(accepted(first))
    refused(other, KeyReused)
    assert store.head().position == 1


def test_a_key_counts_in_the_whole_ledger(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1), key="key-1"))

    refused(store.append(append("account-2", 0, *deposits(1), key="key-1", body="another"))[0], KeyReused)


def test_a_command_that_changed_nothing_is_remembered(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1, 2)))
    nothing = append("account-1", 2, key="key-1")

    first = accepted(store.append(nothing)[0])
    store.append(append("account-2", 0, *deposits(1)))

    assert (first.first_version, first.version, first.position) == (3, 2, 2)
    assert store.append(nothing)[0] == again(first)


def test_a_command_that_changed_nothing_is_judged_by_its_version(store: Store) -> None:
    store.append(append("account-1", 0, *deposits(1, 2)))

    refused(store.append(append("account-1", 1, key="key-1"))[0], Conflict)


def test_a_refused_command_leaves_no_record(store: Store) -> None:
    refused(store.append(append("account-1", 5, *deposits(1), key="key-1"))[0], Conflict)

    accepted(store.append(append("account-1", 0, *deposits(1), key="key-1", body="another"))[0])


def test_a_command_is_found_by_its_key(store: Store) -> None:
    answer = accepted(store.append(append("account-1", 0, *deposits(1, 2), key="key-1"))[0])

    found = store.find(["key-1", "key-2"])
    found_later = asyncio.run(store.find_async(["key-2", "key-1"]))

    assert list(found) == ["key-1"]
    record = found["key-1"]
    assert (record.stream, record.first_version, record.version) == ("account-1", 1, 2)
    assert (record.position, record.recorded_at) == (answer.position, answer.recorded_at)
    assert found_later == found


def test_a_command_submitted_by_many_at_once_happens_once(ledger: str) -> None:
    async def submit_everywhere() -> list[Appended]:
        with Store.open(ledger, wire=WIRE) as one, Store.open(ledger, wire=WIRE) as two:
            command = append("account-1", 0, *deposits(1), key="key-1")
            return await asyncio.gather(*[store.submit(command) for store in (one, two) for _ in range(20)])

    answers = asyncio.run(submit_everywhere())

    assert [answer.is_repeated for answer in answers].count(False) == 1
    assert {answer.position for answer in answers} == {1}
