"""The story of some decisions, told to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast import Context, Decision, EntryKind, Item, LedgerEntry, StockLevel
from holdfast_server.cli.ledger import moves_words
from holdfast_server.cli.terminal import clock

INDENT = " " * 4


def story_of(subject: str, decisions: Sequence[Decision]) -> str:
    """Return the story of a reservation or a query, one paragraph a decision."""
    known = [each.entry.reservation for each in decisions if each.entry and each.entry.reservation]
    ends = [f"{known[-1].state}, of {known[-1].principal or 'anonymous'}"] if known else []
    head = ": ".join([subject, *ends])
    paragraphs, policy = [head], dict[str, str]()
    for decision in decisions:
        now = {item.sku: _policy(item) for item in decision.items}
        changed = {sku: words for sku, words in now.items() if policy.get(sku) != words}
        policy |= changed
        paragraphs.append("\n".join(_paragraph(decision, changed)))
    return "\n\n".join(paragraphs)


def _paragraph(decision: Decision, policy: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of one decision; `policy` is what is new of it since the one before."""
    entry = decision.entry
    what = f"#{entry.sequence} {entry.kind} by {_who(entry)}" if entry else _unrecorded(decision)
    yield f"{clock(decision.time)}  {what}"
    told = _context(decision.context)
    if told:
        yield _line("said", told)
    for level in decision.seen:
        yield _line("saw", _level(level))
    for sku, words in policy.items():
        yield _line("policy", f"{sku}: {words}")
    yield from _answered(decision)
    if entry:
        yield from _made(entry, decision)
    yield _line("again", "comes out the same" if decision.reproduced else "DOES NOT COME OUT SO")


def _answered(decision: Decision) -> Iterator[str]:
    if decision.error:
        yield _line("answered", f"{decision.error.reason}: {decision.error.message}")
    if decision.refusal:
        yield _line("refused", f"{decision.refusal.reason}: {decision.refusal.message}")
        for line in decision.refusal.lines:
            words = f"{line.sku}: {line.requested} asked, {line.available} to be had"
            if line.next_expiry_at:
                words += f"; a hold on it was to end at {clock(line.next_expiry_at)}"
            yield _line("", words)


def _made(entry: LedgerEntry, decision: Decision) -> Iterator[str]:
    yield _line("decided", _decided(entry))
    for words in _rules(entry, {level.sku: level for level in decision.seen}):
        yield _line("because", words)
    if entry.movements:
        yield _line("moved", ", ".join(map(moves_words, entry.movements)))


def _who(entry: LedgerEntry) -> str:
    is_own = entry.kind in (EntryKind.EXPIRE, EntryKind.SUPERSEDE)
    return "the server" if is_own else entry.principal or "anonymous"


def _unrecorded(decision: Decision) -> str:
    if decision.watch_id:
        return f"had been told by a watch ({decision.watch_id})"
    if decision.query_id:
        return f"asked for levels ({decision.query_id})"
    return "refused" if decision.refusal else "answered an error"


def _line(name: str, words: str) -> str:
    return f"{INDENT}{name:<8} {words}"


def _context(context: Context) -> str:
    words = [
        f"{field.removesuffix('_id').replace('_', ' ')}: {value}"
        for field, value in context._asdict().items()
        if value and field != "rationale"
    ]
    return ", ".join([*words, *([f'"{context.rationale}"'] if context.rationale else [])])


def _level(level: StockLevel) -> str:
    terms = f"{level.on_hand} on hand, {level.held} held, {level.committed} committed"
    return (
        f"{level.sku}: {level.available} available ({terms}, {level.safety_stock} safety),"
        f" {level.pressure}, {level.advice}"
    )


def _policy(item: Item) -> str:
    words = [f"hold {item.hold_ttl_default:g} s, at most {item.hold_ttl_max:g} s"]
    if item.oversell_limit:
        share = f" and {item.oversell_share}% of on hand" if item.oversell_share else ""
        words.append(f"oversell up to {item.oversell_limit}{share}")
    else:
        words.append("no oversell")
    words.append(f"late commit {item.late_commit}")
    words += [f"quota of {name}: {used} of {quota} used" for name, quota, used in item.channels]
    return ", ".join(words)


def _decided(entry: LedgerEntry) -> str:
    record = entry.reservation
    if record is None:
        return ""
    lines = ", ".join(
        f"{line.quantity} of {line.sku}"
        + (f" at {line.location}" if line.location else "")
        + (f" ({line.backordered} beyond stock)" if line.backordered else "")
        for line in record.lines
    )
    order = f" for {entry.order_ref}" if entry.order_ref else ""
    part = f"a part given back; still held: {lines}"
    words = {
        EntryKind.RESERVE: f"held {lines} until {clock(record.expires_at)}",
        EntryKind.EXTEND: f"held on until {clock(record.expires_at)}",
        EntryKind.COMMIT: f"sold {lines}{order}{', late' if record.late else ''}",
        EntryKind.EXPIRE: f"ended: its time ran out at {clock(record.expires_at)}",
        EntryKind.SUPERSEDE: f"ended: {record.replaced_by} took its place",
        EntryKind.RELEASE: "given back" if record.ended_at else part,
    }
    return words.get(entry.kind, "")


def _rules(entry: LedgerEntry, seen: Mapping[str, StockLevel]) -> Iterator[str]:
    """Yield the rule that each line of a grant, or a sale as such, was decided by."""
    record = entry.reservation
    if record is None:
        return
    if entry.kind is EntryKind.RESERVE:
        for line in record.lines:
            free = seen[line.sku].available if line.sku in seen else 0
            words = f"{line.quantity - line.backordered} of {line.sku} are within {free} available"
            if line.backordered:
                left = seen[line.sku].oversell_left if line.sku in seen else 0
                words += f", {line.backordered} more within {left} of its oversell allowance"
            yield words
    elif entry.kind is EntryKind.COMMIT:
        came = "after its time had run out, and its units were still to be had"
        yield came if record.late else "it came before the hold's time had run out"
