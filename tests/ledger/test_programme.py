"""The rulebook as published, versioned data."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger.calendar import BEGINNING
from ledger.decider import Asked, Story, handle
from ledger.programme import DECIDER, STREAM, PublishRulebook, RulebookPublished, RulebookWithdrawn, WithdrawRulebook
from ledger.rulebook import RULEBOOKS, canonical, rulebook_of, sha256_of, shipped
from tests.spec import BODY, RULES, Ask, Scenario, ask, body_with, event, given, july, when


def publish(body: dict[str, Any], day: int = -30) -> Ask:
    return ask(PublishRulebook(body=body, occurred_at=july(day)))


def version(name: str, effective_day: int) -> dict[str, Any]:
    return body_with(name) | {"effective_from_at": july(effective_day).isoformat()}


def withdraw(name: str, day: int) -> Ask:
    return ask(WithdrawRulebook(rulebook=name, reason="a typing error", occurred_at=july(day)))


def published() -> Scenario:
    return given(publish(BODY))


def test_a_rulebook_is_published_with_its_hash_and_who_approved_it() -> None:
    when(publish(BODY)).then(
        event(
            RulebookPublished, rulebook="rulebook-2015.1", effective_from_at=july(1), body=BODY,
            body_sha256=sha256_of(BODY), approved_by="supervisor-2",
        )
    )  # fmt: skip


def test_the_first_one_needs_no_notice() -> None:
    when(publish(BODY, day=1)).then(RulebookPublished)


def test_the_next_one_needs_seven_days_of_notice() -> None:
    published().when(publish(version("rulebook-2", 20), day=13)).then(RulebookPublished)
    published().when(publish(version("rulebook-2", 20), day=14)).rejected("notice_too_short")


def test_a_rulebook_lacking_a_parameter_is_refused() -> None:
    body = {key: value for key, value in BODY.items() if key != "windows"}
    when(publish(body)).rejected("bad_rulebook")


def test_a_rulebook_with_a_parameter_nobody_knows_is_refused() -> None:
    when(publish(body_with("rulebook-2", windows={"tea_hours": 1}))).rejected("bad_rulebook")


def test_published_twice_with_the_same_content_adds_nothing() -> None:
    published().when(publish(BODY, day=5)).then_nothing()


def test_an_id_is_never_given_to_another_content() -> None:
    body = version("rulebook-2015.1", 40)
    published().when(publish(body, day=5)).rejected("id_taken")


def test_short_notice_is_noticed_before_the_taken_id() -> None:
    body = version("rulebook-2015.1", 6)
    published().when(publish(body, day=5)).rejected("notice_too_short")


def test_a_withdrawn_id_stays_taken() -> None:
    body = version("rulebook-2", 40)
    story = published().given(publish(body, day=5), withdraw("rulebook-2", 6))
    story.when(publish(body, day=7)).rejected("id_taken")


def test_it_is_withdrawn_before_it_takes_effect() -> None:
    story = published().given(publish(version("rulebook-2", 40), day=5))
    story.when(withdraw("rulebook-2", 39)).then(event(RulebookWithdrawn, rulebook="rulebook-2"))
    story.when(withdraw("rulebook-2", 39)).then_nothing()


def test_it_cannot_be_withdrawn_once_it_has_taken_effect() -> None:
    published().given(publish(version("rulebook-2", 40), day=5)).when(withdraw("rulebook-2", 40)).rejected(
        "already_effective"
    )


def test_what_was_never_published_cannot_be_withdrawn() -> None:
    published().when(withdraw("rulebook-9", 5)).rejected("unknown_rulebook")


def test_publishing_takes_two_people() -> None:
    step = publish(BODY)
    when(step.approved("")).rejected("approval_missing")
    when(step.by("admin", "ann").approved("ann")).rejected("same_approver")
    when(step.by("finance")).rejected("not_allowed")


def test_the_one_in_force_is_the_one_that_took_effect_last() -> None:
    state = published().given(publish(version("rulebook-2", 20), day=5)).state
    assert state.in_force(july(1) - timedelta(microseconds=1)) is None
    assert state.in_force(july(1)).rulebook == "rulebook-2015.1"
    assert state.in_force(july(20)).rulebook == "rulebook-2"
    assert set(state.rules) == {"rulebook-2015.1", "rulebook-2"}


def test_a_withdrawn_one_never_comes_into_force_and_stays_known() -> None:
    state = published().given(publish(version("rulebook-2", 20), day=5), withdraw("rulebook-2", 6)).state
    assert state.in_force(july(30)).rulebook == "rulebook-2015.1"
    assert "rulebook-2" in state.rules


def test_the_first_rulebook_can_be_published_while_none_is_in_force() -> None:
    asked = Asked(PublishRulebook(body=BODY), "admin-1", "admin", BEGINNING, approved_by="supervisor-1")
    assert handle(DECIDER, Story(STREAM, DECIDER.initial()), asked, {}, None).rejected is None


# --- The body ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RULEBOOKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_rulebook_that_comes_with_the_ledger_loads(path: Any) -> None:
    assert rulebook_of(shipped(path.stem)).rulebook == path.stem


def test_the_hash_does_not_depend_on_the_order_of_the_keys() -> None:
    assert sha256_of(dict(reversed(BODY.items()))) == sha256_of(BODY) == RULES.sha256


def test_a_body_is_plain_json_that_reads_back_the_same() -> None:
    assert msgspec.json.decode(canonical(BODY)) == BODY


def test_the_seed_figures_are_the_press_reports() -> None:
    assert RULES.fee.womens_apparel_fen == 58_000_00
    assert RULES.fee.other_fen == 28_000_00
    assert RULES.rebate.share_bp == 5000
    assert (RULES.budgets.quality_fen, RULES.budgets.marketing_fen, RULES.budgets.logistics_fen) == (
        10_000_000_00, 20_000_000_00, 400_000_000_00
    )  # fmt: skip
    assert RULES.programme.live_at == july(1)
