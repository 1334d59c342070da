"""Every shape in which an event was ever written is read today, and written in the same bytes."""

import msgspec
import pytest

from ledger.streams import WIRE
from tests.golden.samples import SAMPLES, lines


def name_of(line: bytes) -> str:
    name: str = msgspec.json.decode(line)["type"]
    return name


@pytest.mark.parametrize("line", lines(), ids=name_of)
def test_what_was_written_is_read_and_written_again_in_the_same_bytes(line: bytes) -> None:
    assert WIRE.encode(WIRE.decode(line)) == line


def test_every_event_has_a_golden_line() -> None:
    assert [name_of(line) for line in lines()] == list(dict.fromkeys(name_of(line) for line in lines()))
    assert {name_of(line) for line in lines()} == set(WIRE.classes), (
        "python -m tests.golden.samples appends what is missing"
    )


@pytest.mark.parametrize("line", lines(), ids=name_of)
def test_the_type_comes_first_and_is_a_name_and_no_path(line: bytes) -> None:
    assert line.startswith(b'{"type":"')
    assert name_of(line).isidentifier()


def test_every_sample_fills_every_field() -> None:
    for sample in SAMPLES:
        assert all(getattr(sample, name) is not None for name in sample.__struct_fields__), sample


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"type":"NobodySaidThis"}',
        b'{"order_id":"o-1"}',
        b'{"type":"PaymentExpired","order_id":"o-1","merchant_id":"m-1"}',
        b'{"type":"PaymentExpired","order_id":1,"merchant_id":"m-1","placed_on":"2015-07-01"}',
        b'{"type":"PaymentExpired","order_id":"o-1","merchant_id":"m-1","placed_on":"1 July"}',
        b"[]",
        b"",
    ],
)
def test_what_is_no_event_is_an_error(wrong: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        WIRE.decode(wrong)


def test_recorded_events_are_read_line_by_line_with_their_metadata() -> None:
    instants = '"2015-07-01T02:00:00Z","2015-07-01T02:00:01Z","2015-07-01T02:00:02+00:00"'
    text = "\n".join(f'[{n},"order-o-1",{n},{instants},{line.decode()}]' for n, line in enumerate(lines(), 1))
    recorded = WIRE.decode_lines(text)
    assert [x.data for x in recorded] == SAMPLES
    assert recorded[0].event_id == "order-o-1@1"
    first = recorded[0]
    assert first.occurred_at < first.received_at < first.recorded_at
