"""What a replica knows of the others: their rows and parts, read with suspicion, healed where a store lost them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from banditroute.durability.local_evidence import like
from banditroute.durability.membership import Letter, Membership
from banditroute.durability.roster import Roster
from banditroute.durability.rows import (
    About,
    Epoch,
    Row,
    evidence_bytes,
    opened,
    plain_bytes,
    read_evidence,
    read_plain,
    sealed,
)
from banditroute.durability.sheets import NOTES, Told, gathered, resealed, term_of, told_rows
from banditroute.durability.stores import BASE, order
from banditroute.errors import SnapshotError
from banditroute.policies.evidence import ArmEvidence, EvidencePolicy, Sums, summed
from banditroute.records import StateStore, StoreRow

__all__ = ["ARM", "MAIL", "ROSTER", "Held", "Peers"]

log = logging.getLogger("banditroute.durability.replicas")

ARM, ROSTER, MAIL = "arm:", "roster", "mail:"  # names of parts


class Held(NamedTuple):
    """A part of another replica, as read; of a sheet of notes its bytes.

    Examples
    --------
    >>> Held(1, (0, ""), Roster()).seq
    1
    """

    seq: int
    epoch: Epoch
    content: ArmEvidence | Roster | list[Letter] | bytes


class Peers:
    """The other replicas as last seen, and the base: the evidence of those that are gone.

    What is malformed, of another fingerprint or of another format is refused by itself, counted, and logged when it is
    new; all others go on.

    Parameters
    ----------
    policy : EvidencePolicy
    store : StateStore
    me : Membership
    fingerprint : mapping
        What must agree, as JSON.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute import FileStore, LinUCB
    >>> policy = LinUCB(["a", "b"], 2, rng=0)
    >>> with tempfile.TemporaryDirectory() as home:
    ...     peers = Peers(policy, FileStore(home), Membership(policy, policy.arms), policy.fingerprint())
    ...     peers.read()
    ...     peers.rows
    {}
    """

    def __init__(
        self, policy: EvidencePolicy, store: StateStore, me: Membership, fingerprint: Mapping[str, Any]
    ) -> None:
        self.policy, self.store, self.me, self.fingerprint = policy, store, me, fingerprint
        self.rows: dict[str, Row] = {}
        self.parts: dict[str, dict[str, Held]] = {}
        self.stale: set[str] = set()  # arms to be summed anew
        self._heard: list[tuple[str, list[Told]]] = []  # notes of terms that were read and not taken in yet
        self.torn: dict[str, dict[str, int]] = {}  # parts that could not be read, with the version wanted
        self.refusals = self.ambiguous = 0
        self.mine: tuple[int, float] = (-1, -1.0)  # order of the own row in the store
        self.mine_good = False
        self._beside: dict[
            str, StoreRow
        ] = {}  # rows that are no replicas: what workers tell of their residency
        self._refused: dict[tuple[str, ...], str] = {}
        self._likes: dict[bool, Sums] = {}

    # What is taken together.

    @property
    def folded(self) -> Mapping[str, int]:
        """Replicas that are in the base, with the state they had."""
        base = self.rows.get(BASE)
        return {} if base is None else base.about.folded

    def newest_epoch(self) -> Epoch:
        """Return the highest epoch that anyone has told of."""
        return max([self.me.epoch, *(row.about.epoch for row in self.rows.values())])

    def evidence_on(self, arm: str, epoch: Epoch) -> list[tuple[str, ArmEvidence]]:
        """Return what counts of each replica on an arm, by name: the base, and the others in order."""
        found = []
        for name in sorted(self.parts, key=lambda n: (n != BASE, n)):
            held = self.parts[name].get(ARM + arm)
            if held is not None and held.epoch == epoch and isinstance(held.content, ArmEvidence):
                found.append((name, held.content))
        return found

    def rosters(self) -> list[Roster]:
        """Return what others know of arms and marks."""
        found = (parts[ROSTER].content for parts in self.parts.values() if ROSTER in parts)
        return [content for content in found if isinstance(content, Roster)]

    def letters(self) -> list[tuple[str, list[Letter]]]:
        """Return letters to this replica, by sender."""
        boxes = [MAIL + name for name in (self.me.id, *self.me.former)]
        found = [
            (sender, parts[box].content)
            for sender, parts in self.parts.items()
            for box in boxes
            if box in parts
        ]
        return [(sender, content) for sender, content in found if isinstance(content, list)]

    # Reading.

    def refuse(self, where: tuple[str, ...], error: object) -> None:
        """Count and log what cannot be used, once for each reason."""
        if self._refused.get(where) != str(error):
            self._refused[where] = str(error)
            self.refusals += 1
            log.warning("%s refused: %s", " of ".join(reversed(where)), error)

    def read(self) -> None:
        """Take in what changed in the store, and put back what it has lost; raises ``OSError`` when it is down."""
        told = self.store.index()
        self._beside = {name: row for name, row in told.items() if name.startswith("~")}
        raw = {name: row for name, row in told.items() if name not in self._beside}
        own = raw.pop(self.me.id, None)
        self.mine, self.mine_good = order(own), own is None or self._good(self.me.id, own) is not None
        rows = {name: row for name, told in raw.items() if (row := self._good(name, told)) is not None}
        for where in [w for w in self._refused if w[0] not in raw and w[0] != self.me.id]:
            del self._refused[where]
        base = self._reconciled(rows.pop(BASE, None), raw.get(BASE))
        folded: Mapping[str, int] = {} if base is None else base.about.folded
        if base is not None:
            self._take_in(BASE, base)
        for name, known in list(self.rows.items()):
            if name == BASE or name in folded:
                continue
            if name not in rows and order(raw.get(name)) > known.order:
                self._drop(name)  # it goes on with something that cannot be joined
            elif name not in rows or rows[name].order < known.order:
                # The store was flushed: any replica heals it.
                self.store.put(name, sealed(known), self._encoded(name, known.parts))
                rows.pop(name, None)
        for name, row in rows.items():
            if name not in folded:
                self._take_in(name, row)
                self._heal(name, row, rows)
        if base is None or self.rows.get(BASE) == base:  # else its parts were on the move: next time
            for name in [n for n in self.rows if n in folded]:
                self._drop(name)

    def _good(self, name: str, told: object) -> Row | None:
        try:
            row = opened(told)
            if row.about.fingerprint != self.fingerprint:
                raise SnapshotError(_differences(row.about.fingerprint, self.fingerprint))
        except SnapshotError as error:
            self.refuse((name,), error)
            return None
        self._refused.pop((name,), None)
        return row

    def _drop(self, name: str) -> None:
        self._restale(self.parts.pop(name, {}))
        self.rows.pop(name, None)
        self.torn.pop(name, None)

    def _restale(self, names: Mapping[str, Any]) -> None:
        self.stale.update(name.removeprefix(ARM) for name in names if name.startswith(ARM))

    def _wanted(self, part: str) -> bool:
        mine = (self.me.id, *self.me.former)
        return part.startswith((ARM, NOTES)) or part == ROSTER or part.removeprefix(MAIL) in mine

    def _take_in(self, name: str, row: Row) -> None:
        held = self.parts.setdefault(name, {})
        if name == BASE and row == self.rows.get(BASE):
            return
        changed = [n for n, seq in row.parts.items() if self._wanted(n)]
        if name != BASE:
            changed = [n for n in changed if n not in held or held[n].seq < row.parts[n]]
        new = self._fetched(name, changed, row.parts)
        self.torn[name] = {n: row.parts[n] for n in changed if n not in new}
        if name == BASE:
            if len(new) < len(changed):
                return  # all of it or nothing: folded replicas are dropped on its word
            self._restale(held)
            held.clear()
        for part in [n for n in held if n not in row.parts and n not in row.lacking]:
            self._restale({part: held.pop(part)})  # forgotten by its owner
        held.update(new)
        self._restale(new)
        if len(new) == len(changed):
            self.rows[name] = row

    def _fetched(self, name: str, parts: Sequence[str], versions: Mapping[str, int]) -> dict[str, Held]:
        fetched = self.store.fetch(name, parts) if parts else {}
        new: dict[str, Held] = {}
        for part in parts:
            if part not in fetched:
                continue
            try:
                new[part] = held = self._read(part, fetched[part])
                if held.seq < versions[part]:
                    del new[part]
                    raise SnapshotError(f"part must have version {versions[part]}, got {held.seq}")
                self._refused.pop((name, part), None)
            except SnapshotError as error:
                self.refuse((name, part), error)
        return new

    def _read(self, part: str, data: bytes) -> Held:
        if part.startswith(ARM):
            arm = part.removeprefix(ARM)
            shared = arm in self.policy.shared_names
            if shared not in self._likes:
                self._likes[shared] = like(self.policy, arm)
            return Held(*read_evidence(part, data, self._likes[shared]))
        if part.startswith(NOTES):
            return Held(self.hear(part, data), (0, ""), data)
        if part == ROSTER:
            seq, roster = read_plain(part, data, Roster.of_plain)
            return Held(seq, (0, ""), roster)
        seq, letters = read_plain(part, data, _letters)
        return Held(seq, (0, ""), letters)

    def hear(self, sheet: str, data: bytes) -> int:
        """Take note of what stands on a sheet, to be taken in; returns its version."""
        seq, told = read_plain(sheet, data, told_rows)
        self._heard.append((term_of(sheet), told))
        return seq

    def heard(self) -> list[tuple[str, list[Told]]]:
        """Return the notes that were read since the last call, by term."""
        heard, self._heard = self._heard, []
        return heard

    # Healing.

    def _encoded(self, name: str, parts: Mapping[str, Any]) -> dict[str, bytes]:
        held = self.parts.get(name, {})
        return {part: encoded(part, held[part]) for part in parts if part in held}

    def _heal(self, name: str, row: Row, rows: Mapping[str, Row]) -> None:
        """Put back parts that the store has lost, or that others cannot read; their owner may not live to do it."""
        held = self.parts.get(name, {})
        torn = {n: v for other in rows.values() for n, v in other.about.torn.get(name, {}).items()}
        back = {
            n: part.seq
            for n, part in held.items()
            if (row.parts.get(n, -1) < part.seq or part.seq >= torn.get(n, part.seq + 1))
            and (n in row.parts or n in row.lacking)
        }
        if back:
            beat = row.beat + (int(row.beat) + 1 - row.beat) / 2  # before the owner's own next one
            lacking = {n: v for n, v in row.lacking.items() if back.get(n) != v}
            healed = row._replace(beat=beat, parts={**row.parts, **back}, lacking=lacking)
            self.store.put(name, sealed(healed), self._encoded(name, back))

    # The base.

    def _reconciled(self, base: Row | None, raw: object) -> Row | None:
        """Return the base to go by: that of the store, unless a flush made it forget replicas that were folded."""
        known = self.rows.get(BASE)
        if known is None or base == known:
            return base
        if base is None and opened_by_others(raw):
            return None
        theirs: Mapping[str, int] = {} if base is None else base.about.folded
        ours = known.about.folded
        newer = base is not None and base.about.epoch > known.about.epoch
        if newer or all(theirs.get(name, -1) >= seq for name, seq in ours.items()):
            return base
        nested = base is None or base.about.epoch < known.about.epoch
        nested = nested or all(ours.get(n, -1) >= s for n, s in theirs.items())
        if not nested and ours.keys() & theirs.keys():
            self.ambiguous += 1  # compactions on both sides of a flush: they cannot be told apart any more
            return base
        content = dict(self.parts[BASE])
        decisions = known.about.decisions
        if base is not None and not nested:
            fetched = self._fetched(BASE, list(base.parts), base.parts)
            if len(fetched) < len(base.parts):
                return base
            content = self._sum([content, fetched], known.about.epoch)
            decisions += base.about.decisions
        about = known.about._replace(folded={**theirs, **ours}, decisions=decisions)
        return self._based(raw, about, content, {})

    def _sum(self, held: Sequence[Mapping[str, Held]], epoch: Epoch) -> dict[str, Held]:
        """Return what several replicas hold together; letters are left out."""
        sheets = ({n: h.content for n, h in parts.items() if isinstance(h.content, bytes)} for parts in held)
        total: dict[str, Held] = {}
        for part in sorted({n for parts in held for n in parts if n.startswith(ARM)}):
            own = [parts[part] for parts in held if part in parts]
            evidence = [h.content for h in own if h.epoch == epoch and isinstance(h.content, ArmEvidence)]
            if evidence:
                total[part] = Held(0, epoch, summed(self.policy, evidence))
        roster = Roster()
        for parts in held:
            known = parts[ROSTER].content if ROSTER in parts else None
            if isinstance(known, Roster):
                roster.merge(known)
        roster.entries = {
            arm: entry for arm, entry in roster.entries.items() if entry.stamp or entry.generation
        }
        total[ROSTER] = Held(0, (0, ""), roster)
        return total | {part: Held(0, (0, ""), data) for part, data in gathered(sheets).items()}

    def _based(self, old: object, about: About, content: Mapping[str, Held], gone: Mapping[str, Row]) -> Row:
        """Replace the base in the store and here; raises ``OSError`` when something changed meanwhile."""
        known = self.rows.get(BASE)
        seq = 1 + max(0, order(old)[0], 0 if known is None else known.seq)
        held = {part: h._replace(seq=seq) for part, h in content.items()}
        row = Row(seq, 0.0, dict.fromkeys(held, seq), {}, about)
        parts = {part: encoded(part, h) for part, h in held.items()}
        expected = dict(old) if isinstance(old, Mapping) else None
        ended = {n: r for n, r in self._beside.items() if n.rpartition(":")[2] in gone}
        ended |= {n: sealed(r) for n, r in gone.items()}
        if not self.store.compact(expected, sealed(row), parts, ended):
            raise OSError("the store changed meanwhile")
        self._restale(self.parts.get(BASE, {}))
        self.rows[BASE], self.parts[BASE] = row, held
        self._restale(held)
        for name in gone:
            self._drop(name)
        return row

    def compact(self, names: Sequence[str]) -> bool:
        """Fold replicas that are gone into the base; False where something changed or is not known."""
        gone = {n: self.rows[n] for n in names if n in self.rows and n not in (BASE, self.me.id)}
        if len(gone) < len(set(names)) or not gone:
            return False
        for name, row in gone.items():
            held = {n: h.seq for n, h in self.parts[name].items() if not n.startswith(MAIL)}
            if held != {n: v for n, v in row.parts.items() if not n.startswith(MAIL)} or row.lacking:
                return False  # a part is newer than its row: it is alive; or others may hold what the store has lost
        old, epoch = self.rows.get(BASE), self.newest_epoch()
        folded = {**self.folded, **{n: row.seq for n, row in gone.items()}}
        decisions = sum(row.about.decisions for row in [*gone.values(), *([] if old is None else [old])])
        about = About(self.fingerprint, epoch, decisions, folded=folded)
        held_all = [self.parts.get(BASE, {}), *(self.parts[n] for n in sorted(gone))]
        try:
            expected = None if old is None else sealed(old)
            self._based(expected, about, self._sum(held_all, epoch), gone)
        except OSError as error:
            log.warning("not compacted: %s", error)
            return False
        return True


def encoded(part: str, held: Held) -> bytes:
    """Return a part as bytes.

    Examples
    --------
    >>> read_plain("roster", encoded("roster", Held(3, (0, ""), Roster({"a": 0}))), Roster.of_plain)[0]
    3
    """
    content = held.content
    if isinstance(content, ArmEvidence):
        return evidence_bytes(part, held.seq, content, held.epoch)
    if isinstance(content, bytes):
        return resealed(part, held.seq, content)
    if isinstance(content, Roster):
        return plain_bytes(part, held.seq, content.to_plain())
    return plain_bytes(part, held.seq, [list(letter) for letter in content])


def opened_by_others(raw: object) -> bool:
    """Tell whether a row is a good one, if perhaps of another bandit.

    Examples
    --------
    >>> opened_by_others({})
    False
    """
    try:
        opened(raw)
    except SnapshotError:
        return False
    return True


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names = sorted(n for n in {*theirs, *ours} if theirs.get(n) != ours.get(n))
    return "; ".join(f"{n} must be {ours.get(n)!r}, got {str(theirs.get(n))[:80]!r}" for n in names)


def _letters(plain: Any) -> list[Letter]:
    letters = []
    for number, key, arm, reward, cost, seconds, failed in plain:
        numbers = [value for value in (reward, cost, seconds) if value is not None]
        good = type(number) is int and type(key) is int and isinstance(arm, str) and reward is not None
        if not good or not all(type(v) in (int, float) and abs(v) <= 1e300 for v in numbers):
            raise ValueError(f"a letter must tell of an answer, got {str(key)[:40]}")
        letters.append(Letter(number, key, arm, float(reward), cost, seconds, bool(failed)))
    return letters
