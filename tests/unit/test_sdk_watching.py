"""One watch as a state machine: messages in, changes out, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import (
    LagCause,
    Lagging,
    Overloaded,
    Resumed,
    Resynced,
    ResyncReason,
    RetryPolicy,
    ServerLoad,
    StockChanges,
)
from holdfast.levels import KnownLevels
from holdfast.v1 import stock_pb2 as pb
from holdfast.watching import ChainBroken, Following
from tests.unit.watched import changes, end, heartbeat, level, snapshot

POLICY = RetryPolicy(backoff_min=0.1, backoff_max=0.4)
A4, B5 = level("A", 3, 4), level("B", 9, 5)


def following(token: str = "", skus: tuple[str, ...] = ()) -> Following:
    request = pb.WatchRequest(resume_token=token, skus=skus)
    found = Following(request, KnownLevels(), POLICY)
    found.opened()
    return found


def started(*messages: pb.WatchResponse) -> Following:
    found = following()
    for message in (snapshot(5, A4, B5), *messages):
        found.take(message)
    return found


def view(watch: Following) -> dict[str, int]:
    return {sku: seen[0].available for sku, seen in watch.feed.seen.items()}


def again(watch: Following, cause: LagCause = LagCause.DISCONNECTED) -> Lagging:
    lagging = watch.broke(cause)
    watch.opened()
    return lagging


def named(message: Any) -> str | None:
    """Return a name for a test; messages have none."""
    return " ".join(str(message).split()) if isinstance(message, pb.WatchResponse) else None


# ---- The chain ----


@pytest.mark.parametrize(
    "message",
    [
        changes(5, 6, level("A", 2, 6)),
        changes(5, 5, level("A", 3, 4)),  # advice changed, with time
        changes(5, 5, level("A", 2, 6)),  # a part
        changes(5, 9),
        heartbeat(5),
        heartbeat(5, 8),
        end(5, "MAX_AGE"),
        snapshot(2, level("A", 2, 1)),
        snapshot(0, level("A", 2, 1)),
        snapshot(0),
    ],
    ids=named,
)
def test_what_follows_is_taken(message: pb.WatchResponse) -> None:
    started().take(message)


BAD: list[tuple[pb.WatchResponse, str]] = [
    (changes(4, 6), "from 4, but told through 5"),
    (changes(6, 7), "from 6, but told through 5"),
    (changes(0, 7), "from 0, but told through 5"),
    (changes(5, 4), "from 5 back to 4"),
    (heartbeat(5, 3), "from 5 back to 3"),
    (heartbeat(4), "from 4, but told through 5"),
    (heartbeat(5, levels=[A4]), "levels in a message that has none"),
    (end(4, "DRAINING"), "from 4, but told through 5"),
    (end(5, "DRAINING", levels=[A4]), "levels in a message that has none"),
    (snapshot(6, from_sequence=5), "a snapshot from 5"),
    (changes(5, 6, A4, A4), "A twice"),
    (changes(5, 6, level("B", 1, 4)), "B back from 5 to 4"),
    (changes(5, 6, kind=0), "a message of kind 0"),
    (changes(5, 6, kind=77), "a message of kind 77"),
]


@pytest.mark.parametrize(("message", "fault"), BAD, ids=named)
def test_what_does_not_follow_breaks_the_chain_and_changes_nothing(
    message: pb.WatchResponse, fault: str
) -> None:
    watch = started()
    before = (watch.token, watch.through, view(watch))
    with pytest.raises(ChainBroken, match=fault):
        watch.take(message)
    assert (watch.token, watch.through, view(watch)) == before


@pytest.mark.parametrize("message", [changes(0, 5, A4), heartbeat(0, 5), heartbeat(0)], ids=named)
def test_without_a_token_a_snapshot_comes_first(message: pb.WatchResponse) -> None:
    with pytest.raises(ChainBroken, match="no snapshot"):
        following().take(message)


def test_with_a_token_changes_may_come_first_from_wherever_it_stands() -> None:
    (told,) = following("mine").take(changes(70, 71, A4))
    assert isinstance(told, StockChanges)


def test_nothing_follows_an_end() -> None:
    watch = started(end(5, "DRAINING"))
    with pytest.raises(ChainBroken, match="after the END"):
        watch.take(heartbeat(5))


def test_a_level_of_another_item_is_not_taken() -> None:
    watch = following(skus=("A",))
    with pytest.raises(ChainBroken, match="B is not watched"):
        watch.take(snapshot(5, B5))


def test_a_revision_may_go_back_in_a_snapshot_only() -> None:
    watch = started()
    assert len(watch.take(snapshot(2, level("B", 1, 1)))) == 2
    assert view(watch) == {"B": 1}
    watch.take(changes(2, 3, level("B", 0, 3)))


def test_the_empty_ledger_has_a_whole_snapshot() -> None:
    watch = following()
    (told,) = watch.take(snapshot(0, resume_token="t0", missing_skus=["A"]))
    assert isinstance(told, StockChanges)
    assert (told.levels, told.is_snapshot, told.missing_skus) == ((), True, ("A",))
    (told,) = watch.take(changes(0, 1, level("A", 1, 1)))
    assert isinstance(told, StockChanges)
    assert told.missing_skus == ()
    assert watch.token == "t1"


# ---- Parts ----


def test_parts_of_a_snapshot_are_told_as_one() -> None:
    watch = following()
    assert watch.take(snapshot(0, A4, conflated_count=1)) == []
    assert (watch.token, view(watch)) == ("", {})
    (told,) = watch.take(snapshot(5, B5, conflated_count=2, missing_skus=["C"]))
    assert isinstance(told, StockChanges)
    assert [one.sku for one in told.levels] == ["A", "B"]
    assert (told.conflated_count, told.missing_skus, told.is_snapshot) == (3, ("C",), True)
    assert (watch.token, view(watch)) == ("t5", {"A": 3, "B": 9})


def test_the_token_of_a_part_of_a_snapshot_is_no_progress() -> None:
    watch = started()
    again(watch)
    watch.take(snapshot(0, level("A", 7, 80), resume_token="before"))
    assert watch.token == "t5"
    assert view(watch) == {"A": 3, "B": 9}  # never half of one, half of the other
    again(watch)
    told = watch.take(changes(5, 6, level("A", 2, 6)))
    assert told[0] == Resumed(6)
    assert view(watch) == {"A": 2, "B": 9}


def test_a_snapshot_that_stops_short_breaks_the_chain() -> None:
    for message in (changes(0, 5), heartbeat(0)):
        watch = following()
        watch.take(snapshot(0, A4))
        with pytest.raises(ChainBroken, match="without its last part"):
            watch.take(message)


def test_a_later_part_of_a_snapshot_may_bring_a_newer_level() -> None:
    watch = following()
    watch.take(snapshot(0, A4))
    (told,) = watch.take(snapshot(5, level("A", 1, 5)))
    assert isinstance(told, StockChanges)
    assert [(one.available, one.revision) for one in told.levels] == [(1, 5)]


def test_a_later_part_of_a_snapshot_with_an_older_level_breaks_the_chain() -> None:
    watch = following()
    watch.take(snapshot(0, A4))
    with pytest.raises(ChainBroken, match="A back from 4 to 3"):
        watch.take(snapshot(5, level("A", 3, 3)))


def test_a_server_may_end_within_a_snapshot() -> None:
    watch = started()
    watch.take(snapshot(0, A4))
    watch.take(end(0, "DRAINING", resume_token="never"))
    assert watch.token == "t5"
    assert again(watch).cause is LagCause.DRAINING


def test_parts_of_changes_are_told_at_once_and_the_last_moves_the_position() -> None:
    watch = started()
    (told,) = watch.take(changes(5, 5, level("A", 2, 8), resume_token="t5"))
    assert isinstance(told, StockChanges)
    assert (told.through_sequence, watch.token) == (5, "t5")
    watch.take(changes(5, 5, level("C", 2, 7), resume_token=""))
    assert watch.token == "t5"
    watch.take(changes(5, 8, level("B", 2, 6)))
    assert (watch.token, watch.through) == ("t8", 8)


# ---- What is told ----


def test_a_heartbeat_is_progress_and_no_change() -> None:
    watch = started()
    assert watch.take(heartbeat(5, 9)) == []
    assert (watch.through, watch.token) == (9, "t9")


def test_missing_items_are_told_until_they_appear() -> None:
    watch = following(skus=("A", "B", "C"))
    watch.take(snapshot(5, A4, missing_skus=["B", "C"]))
    (told,) = watch.take(changes(5, 6, level("B", 1, 6)))
    assert isinstance(told, StockChanges)
    assert told.missing_skus == ("C",)


@pytest.mark.parametrize(
    ("load", "told"), [(0, "NORMAL"), (1, "NORMAL"), (2, "HIGH"), (3, "OVERLOADED"), (9, "NORMAL")]
)
def test_the_load_of_the_server_is_told(load: int, told: str) -> None:
    known = KnownLevels()
    watch = Following(pb.WatchRequest(), known, POLICY)
    pressure: Any = pb.ServerPressure(load=load)  # type: ignore[arg-type]  # 9 is a newer server's
    (change,) = watch.take(snapshot(5, A4, server_pressure=pressure))
    assert isinstance(change, StockChanges)
    assert change.load is known.load is ServerLoad(told)


def test_a_snapshot_is_a_resync_only_if_something_was_seen() -> None:
    first = following().take(snapshot(5, A4))
    assert [type(one) for one in first] == [StockChanges]
    mine = following("mine").take(snapshot(5, A4))
    assert mine[0] == Resynced(ResyncReason.GAP, 5, ())


def test_a_watch_cut_off_before_its_first_snapshot_missed_nothing() -> None:
    watch = following()
    again(watch)
    resumed, told = watch.take(snapshot(5, A4))
    assert resumed == Resumed(5)
    assert isinstance(told, StockChanges)


def test_a_lag_ends_in_exactly_one_mark() -> None:
    watch = started()
    again(watch)
    again(watch)
    assert watch.take(heartbeat(5)) == [Resumed(5)]
    assert watch.take(heartbeat(5)) == []
    again(watch)
    marks = watch.take(snapshot(9, A4))
    assert [type(one) for one in marks] == [Resynced, StockChanges]
    assert watch.take(heartbeat(9)) == []


def test_a_new_epoch_is_a_reason_once() -> None:
    watch = started(end(5, "EPOCH_CHANGED"))
    again(watch)
    (mark, _) = watch.take(snapshot(2, level("A", 1, 1)))
    assert mark == Resynced(ResyncReason.EPOCH_CHANGED, 2, ())
    again(watch)
    (mark, _) = watch.take(snapshot(9, level("A", 1, 1)))
    assert mark == Resynced(ResyncReason.GAP, 9, ())


def test_a_resync_forgets_what_answers_told() -> None:
    known = KnownLevels()
    watch = Following(pb.WatchRequest(), known, POLICY)
    known.attach(watch.feed)
    (told,) = watch.take(snapshot(5, A4, B5))
    assert isinstance(told, StockChanges)
    known.note(told.levels)
    watch.take(snapshot(2, level("A", 1, 1)))
    assert {sku: known.view[sku].available for sku in known.view} == {"A": 1}


# ---- Ends and pauses ----


@pytest.mark.parametrize("reason", ["DRAINING", "MAX_AGE"])
def test_a_planned_end_is_followed_by_an_attempt_at_once(reason: str) -> None:
    watch = started(end(5, reason, resume_token="last"))
    error = Overloaded("", retry_after=3_600)
    lagging = watch.broke(LagCause.DISCONNECTED, error)
    assert lagging.cause == reason
    assert watch.pause <= 0.1
    assert watch.opened().resume_token == "last"


def test_what_the_server_asks_to_wait_is_waited_for() -> None:
    watch = started()
    lagging = watch.broke(LagCause.DISCONNECTED, Overloaded("busy", retry_after=7))
    assert (lagging.cause, lagging.message) == (LagCause.OVERLOADED, "busy")
    assert 7 <= watch.pause <= 7.1


def test_pauses_grow_with_the_attempts() -> None:
    for attempts, limit in [(1, 0.1), (2, 0.2), (3, 0.4), (2_000, 0.4)]:
        pauses = []
        for _ in range(50):
            watch = started()
            watch._attempt = attempts - 1
            assert watch.broke(LagCause.SILENT).attempt == attempts
            pauses.append(watch.pause)
        assert max(pauses) <= limit
        assert max(pauses) > limit / 2


def test_a_server_that_breaks_every_chain_is_asked_ever_more_slowly() -> None:
    watch, pauses = following(), []
    for attempt in range(1, 60):
        watch.take(snapshot(5, A4))
        with pytest.raises(ChainBroken):
            watch.take(changes(9, 10))
        assert again(watch, LagCause.CHAIN_BROKEN).cause is LagCause.CHAIN_BROKEN
        pauses.append(watch.pause)
        assert watch.violations == attempt
    assert max(pauses[20:]) > 0.1  # as after the first failure no more, although each was resumed


def test_a_stream_is_dead_after_three_heartbeats() -> None:
    assert following().patience == 15
    request = pb.WatchRequest()
    request.heartbeat.FromMilliseconds(2_500)
    assert Following(request, KnownLevels(), POLICY).patience == 7.5


# ---- Any history, however it is cut, parted, merged and spoiled ----


class Ledger:
    """A server's view: levels by sequence, over several epochs."""

    def __init__(self) -> None:
        self.epoch, self.sequence = 1, 0
        self.levels: dict[str, tuple[int, int]] = {}  # available, revision
        self.trimmed = 0

    def change(self, sku: str, available: int) -> None:
        self.sequence += 1
        self.levels[sku] = (available, self.sequence)

    def token(self) -> str:
        return f"{self.epoch}/{self.sequence}"


class Server:
    """Answers a watch as the contract says: whole or in parts, merged, from a token."""

    def __init__(self, ledger: Ledger, token: str) -> None:
        self.ledger = ledger
        self.told = 0
        epoch, _, sequence = token.partition("/")
        is_known = token and int(epoch) == ledger.epoch and int(sequence) >= ledger.trimmed
        self.must_snapshot = not is_known
        if is_known:
            self.told = int(sequence)
        self.token = token

    def messages(self, parts: int) -> list[pb.WatchResponse]:
        """Return all there is to say now, in so many parts at most."""
        ledger, kind = self.ledger, pb.WATCH_KIND_CHANGES
        if self.must_snapshot:
            kind, self.told = pb.WATCH_KIND_SNAPSHOT, 0
        due = [
            level(sku, available, revision)
            for sku, (available, revision) in sorted(ledger.levels.items())
            if revision > self.told
        ]
        size = max(1, -(-len(due) // parts))
        chunks = [due[start : start + size] for start in range(0, len(due), size)] or [[]]
        found = []
        for number, chunk in enumerate(chunks):
            is_last = number == len(chunks) - 1
            through = ledger.sequence if is_last else self.told
            token = ledger.token() if is_last else self.token
            found.append(changes(self.told, through, *chunk, kind=kind, resume_token=token))
        if kind == pb.WATCH_KIND_SNAPSHOT:
            for message in found:
                message.from_sequence = 0
        self.told, self.token, self.must_snapshot = ledger.sequence, ledger.token(), False
        return found


SKUS = st.sampled_from("ABCD")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), SKUS, st.integers(0, 9)),
        st.tuples(st.just("tell"), st.integers(1, 3), st.integers(0, 3)),
        st.tuples(st.just("cut"), st.booleans()),
        st.tuples(st.just("spoil"), st.integers(0, 4)),
        st.tuples(st.just("trim")),
        st.tuples(st.just("epoch"), st.sets(SKUS)),
    ),
    max_size=40,
)


def spoiled(message: pb.WatchResponse, how: int) -> pb.WatchResponse:
    """Return a message that cannot follow."""
    bad = pb.WatchResponse.FromString(message.SerializeToString())
    if how == 0 or not message.levels:
        bad.from_sequence += 1
        bad.through_sequence = bad.from_sequence
    elif how == 1:
        bad.levels.append(message.levels[0])
    elif how == 2:
        bad.kind = pb.WATCH_KIND_HEARTBEAT
    elif how == 3:
        bad.through_sequence = bad.from_sequence - 1
    else:
        bad.kind = pb.WATCH_KIND_UNSPECIFIED
    return bad


class Reader:
    """Keeps a view as the documentation says, of what the watch yields alone."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {}
        self.marks: list[Any] = []

    def read(self, told: list[Any]) -> None:
        for one in told:
            if isinstance(one, StockChanges):
                if one.is_snapshot:
                    assert not self.levels or isinstance(self.marks[-1], Resynced)
                    self.levels = {}
                self.levels.update({found.sku: found.available for found in one.levels})
            else:
                if isinstance(one, Resynced):
                    self.levels = {}
                self.marks.append(one)


class Run:
    """One history, with what both sides know."""

    def __init__(self) -> None:
        self.ledger, self.reader = Ledger(), Reader()
        self.watch = Following(pb.WatchRequest(), KnownLevels(), POLICY)
        for sku in "ABC":
            self.ledger.change(sku, 5)
        self.open()

    def open(self) -> None:
        self.server = Server(self.ledger, self.watch.opened().resume_token)

    def break_off(self, cause: LagCause) -> None:
        self.reader.read([self.watch.broke(cause)])
        self.open()

    def tell(self, parts: int, lost: int) -> None:
        """Tell all; the connection breaks before the last `lost` messages."""
        messages = self.server.messages(parts)
        kept = messages[: len(messages) - lost] if lost < 3 else messages
        for message in kept:
            self.reader.read(self.watch.take(message))
        if len(kept) < len(messages):
            self.break_off(LagCause.DISCONNECTED)
        else:
            self.check()

    def spoil(self, how: int) -> None:
        message = spoiled(self.server.messages(1)[0], how)
        before = dict(self.reader.levels)
        with pytest.raises(ChainBroken):
            self.reader.read(self.watch.take(message))
        assert self.reader.levels == before
        self.break_off(LagCause.CHAIN_BROKEN)

    def check(self) -> None:
        truth = {sku: available for sku, (available, _) in self.ledger.levels.items()}
        assert self.reader.levels == view(self.watch) == truth
        assert self.watch.token == self.ledger.token()


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_history_leads_to_a_wrong_view(steps: list[tuple[Any, ...]]) -> None:
    run = Run()
    for step, *given_ in steps:
        if step == "change":
            run.ledger.change(*given_)
        elif step == "tell":
            run.tell(*given_)
        elif step == "cut":
            if given_[0] and run.watch.through is not None and not run.server.must_snapshot:
                run.watch.take(end(run.server.told, "MAX_AGE", resume_token=run.server.token))
            run.break_off(LagCause.DISCONNECTED)
        elif step == "spoil":
            run.spoil(*given_)
        elif step == "trim":
            run.ledger.trimmed = run.ledger.sequence
        else:
            (vanished,) = given_
            run.ledger.epoch += 1
            run.ledger.sequence = max(0, run.ledger.sequence - 2)
            run.ledger.levels = {
                sku: (available, min(revision, run.ledger.sequence))
                for sku, (available, revision) in run.ledger.levels.items()
                if sku not in vanished and run.ledger.sequence
            }
            run.server.must_snapshot = True
    run.tell(1, 3)
    lags = [one for one in run.reader.marks if isinstance(one, Lagging)]
    ends = [one for one in run.reader.marks if isinstance(one, Resumed | Resynced)]
    assert len(ends) >= 1 or not lags
    assert not isinstance(run.reader.marks[-1] if run.reader.marks else None, Lagging)
