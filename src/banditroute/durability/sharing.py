"""How one replica shares its evidence: it publishes its own, takes in that of the others and forms every total."""

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from banditroute.durability.local_evidence import Shareable, holds, less, like
from banditroute.durability.membership import Letter, Membership
from banditroute.durability.merging import ARM, MAIL, ROSTER, Held, Peers, encoded
from banditroute.durability.notes import Notes
from banditroute.durability.roster import Roster
from banditroute.durability.rows import (
    NEVER,
    About,
    Epoch,
    Row,
    changes_of,
    evidence_bytes,
    opened,
    read_evidence,
    sealed,
)
from banditroute.durability.sheets import NOTES
from banditroute.durability.stores import BASE, order
from banditroute.errors import SnapshotError
from banditroute.policies.evidence import ArmEvidence, DraftingPolicy, summed
from banditroute.records import Feedback, Host, Marked, Request, StateStore

__all__ = ["Published", "Sharing"]

log = logging.getLogger("banditroute.durability.replicas")

HISTORY = 8  # published states kept, should one be folded into the base while this replica lives
TRIES = 3  # times that a total is formed without the lock, while rewards come in between
HOLD = 64  # letters read in one hold of the lock


class Published(NamedTuple):
    """A state that was published, to be told apart from what came after.

    Examples
    --------
    >>> Published(0, (0, ""), {}).seq
    0
    """

    seq: int
    epoch: Epoch
    evidence: Mapping[str, ArmEvidence]


class Sharing:
    """The evidence of one replica in a store, and that of the others in its policy.

    Parameters
    ----------
    host : Host
    policy : EvidencePolicy
    store : StateStore
    me : Membership
    fingerprint : mapping
        What must agree, as JSON.
    """

    def __init__(
        self, host: Host, policy: Shareable, store: StateStore, me: Membership, fingerprint: Mapping[str, Any]
    ) -> None:
        self.host, self.policy, self.store, self.me = host, policy, store, me
        self.peers = Peers(policy, store, me, fingerprint)
        self.fenced = self.lost = 0
        self._part_seqs: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._history: deque[Published] = deque([Published(0, me.epoch, {})], maxlen=HISTORY)
        self.notes = Notes(host, me)

    def round(self) -> None:
        """Publish, read, merge; raises ``OSError`` when the store is down: nothing is lost."""
        self.notes.write()
        self.host.flush()  # nothing is published that a crash could make this replica forget
        self._publish()
        self.peers.read()
        self._answer_the_store()
        self._merge()
        self._read_letters()
        self.notes.read(self.peers.heard())

    def rolled_back(self) -> None:
        """Have the statistics as they are now count in the place of all that any replica has learned before.

        The lock is held; the others follow at their next rounds.
        """
        policy, me = self.policy, self.me
        me.epoch = (self.peers.newest_epoch()[0] + 1, me.id)
        now = {}
        for arm in (*policy.arms, *policy.shared_names):
            evidence = policy.evidence(arm)
            generation = max(policy.generation(arm), me.roster.generation(arm))
            policy.set_generation(arm, generation)
            now[arm] = evidence._replace(generation=generation)
        me.evidence.restart(now)
        self._anew_epoch()

    def _anew_epoch(self) -> None:
        self.peers.stale.update(self.policy.arms, self.policy.shared_names)
        for name in [n for n in self._published if n.startswith(ARM)]:
            del self._published[name]

    # Publishing.

    def _versions(self) -> dict[str, int]:
        me = self.me
        found = {ARM + arm: version for arm, version in me.evidence.versions.items()}
        found[ROSTER] = me.roster.version
        found.update({MAIL + owner: me.written[owner] for owner in me.letters})
        return found | self.notes.versions

    def _publish(self) -> None:
        me, host = self.me, self.host
        for _ in range(3):
            with host.locked():
                versions = self._versions()
                dirty = {name: v for name, v in versions.items() if self._published.get(name) != v}
                decisions, epoch = host.decisions, me.epoch
            me.seq += bool(dirty)
            me.beat = float(int(me.beat) + 1)
            held: dict[str, Held] = {}
            for name in dirty:
                with host.locked():
                    content = self._content(name)
                if content is not None:
                    held[name] = Held(me.seq, epoch, content)
            self._part_seqs = {n: s for n, s in self._part_seqs.items() if n in versions}
            self._part_seqs.update(dict.fromkeys(held, me.seq))
            evidence = {
                n.removeprefix(ARM): h.content for n, h in held.items() if isinstance(h.content, ArmEvidence)
            }
            if evidence:
                self.peers.stale.update(
                    evidence
                )  # summed again in the common order: the same bits everywhere
            if dirty:
                before = self._history[-1]
                kept = before.evidence if before.epoch == epoch else {}
                kept = {arm: e for arm, e in kept.items() if ARM + arm in versions}
                self._history.append(Published(me.seq, epoch, {**kept, **evidence}))
            seen = self.peers
            about = About(
                seen.fingerprint, epoch, decisions, {n: t for n, t in seen.torn.items() if t}, me.heard
            )
            row = Row(me.seq, me.beat, self._part_seqs, {}, about)
            missing = self.store.put(
                me.id, sealed(row), {n: self._bytes(n, h, versions[n]) for n, h in held.items()}
            )
            self._published.update({name: dirty[name] for name in held})
            if not missing:
                return
            for name in missing:  # the store was flushed
                self._published.pop(name, None)

    def _bytes(self, name: str, held: Held, changes: int) -> bytes:
        if isinstance(held.content, ArmEvidence):
            return evidence_bytes(name, held.seq, held.content, held.epoch, changes)
        if isinstance(held.content, bytes):
            return held.content
        return encoded(name, held)

    def _content(self, name: str) -> ArmEvidence | Roster | list[Letter] | bytes | None:
        """Return a copy of what a part is to hold; None where it is gone by now."""
        me = self.me
        if name.startswith(NOTES):
            return self.notes.packed(name, me.seq)
        if name == ROSTER:
            return type(me.roster).of_plain(me.roster.to_plain())
        if name.startswith(MAIL):
            return list(me.letters.get(name.removeprefix(MAIL), [])) or None
        arm = name.removeprefix(ARM)
        return me.evidence.show(arm) if arm in me.evidence.own else None

    def _answer_the_store(self) -> None:
        """Put again what of this replica the store has lost, and go on under a new name where it was folded."""
        seen, me = self.peers, self.me
        if me.id in seen.folded:
            self._rebirth(seen.folded[me.id])
            self._publish()
            return
        torn = {n for row in seen.rows.values() for n in row.about.torn.get(me.id, {})}
        behind = not seen.mine_good or seen.mine < (me.seq, 0.0)
        if seen.mine > (
            me.seq,
            me.beat,
        ):  # altered, or of a run of this replica of which nothing else is left
            me.seq, behind = seen.mine[0] + 1, True
        if behind:
            self._published.clear()
        for name in torn:
            self._published.pop(name, None)
        if behind or torn:
            self._publish()

    def _rebirth(self, seq: int) -> None:
        """Go on under a new id, without what was folded into the base while this replica was thought dead."""
        me, policy = self.me, self.policy
        with self.host.locked():
            old = next((state for state in self._history if state.seq == seq), None)
            self.fenced += 1
            self.peers.stale.update(me.evidence.own)
            if old is None:
                self.lost += 1
                old = Published(seq, me.epoch, {arm: me.evidence.show(arm) for arm in me.evidence.own})
            for arm, folded in old.evidence.items() if old.epoch == me.epoch else ():
                if arm in me.evidence.own:
                    left = less(policy, me.evidence.own[arm], folded)
                    if holds(left):
                        me.evidence.put(arm, left)
                    else:
                        me.evidence.forget(arm)
            me.rename()
        self._part_seqs, self._published = {}, {}
        self._history.clear()
        self._history.append(Published(0, me.epoch, {}))

    # Merging.

    def _merge(self) -> None:
        host, me, seen, policy = self.host, self.me, self.peers, self.policy
        with host.locked():
            epoch = seen.newest_epoch()
            if epoch > me.epoch:
                me.epoch = epoch
                me.evidence.restart({})
                self._anew_epoch()
            for roster in seen.rosters():
                me.roster.merge(roster)
            me.roster.settle(policy.arms)
            self._follow()
            host.hear_of(sum(row.about.decisions for row in seen.rows.values()))
            for arm in policy.arms:
                if me.roster.generation(arm) > policy.generation(arm):
                    seen.stale.add(arm)
            stale, seen.stale = seen.stale, set()
        for arm in sorted(stale):
            if not any(self._replaced(arm) for _ in range(TRIES)):
                with host.locked():
                    if (parts := self._gathered(arm)) is not None:
                        policy.set_evidence(arm, summed(policy, parts))

    def _replaced(self, arm: str) -> bool:
        """Form the total of one arm anew, without the lock but to gather and to put in place; False when it learned."""
        host, policy = self.host, self.policy
        with host.locked():
            parts, before = self._gathered(arm), self._seen(arm)
        if parts is None:
            return True
        total, draft = summed(policy, parts), None
        if isinstance(policy, DraftingPolicy):
            with host.locked():
                if self._seen(arm) != before:
                    return False
                draft = policy.draft_evidence(arm, total)
            if draft is not None:
                draft.derive()
        with host.locked():
            if self._seen(arm) != before:
                return False
            if draft is not None:
                return draft.apply()
            policy.set_evidence(arm, total)
            return True

    def _seen(self, arm: str) -> tuple[Epoch, bool, int, int | None]:
        """Return what tells whether the evidence on an arm is still as it was gathered."""
        me, policy = self.me, self.policy
        known = arm in policy.arms or arm in policy.shared_names
        return me.epoch, known, policy.generation(arm), me.evidence.versions.get(arm)

    def _follow(self) -> None:
        """Do as others did with arms and terms."""
        me, host = self.me, self.host
        me.following = True
        try:
            for change in me.roster.due(self.policy.arms, me.muted):
                if not host.apply(change):
                    self.peers.refuse((me.id, change.arm), f"{change.what} elsewhere, not possible here")
            for key, (stamp, term, details) in list(me.roster.marks.items()):
                if me.known_marks.get(key) != stamp:
                    me.known_marks[key] = stamp
                    host.apply(Marked(term, details))
        finally:
            me.following = False

    def _gathered(self, arm: str) -> list[ArmEvidence] | None:
        """Return what counts of one arm, in the common order, to be read by anyone; None where there is no such arm."""
        me, policy = self.me, self.policy
        if arm not in policy.arms and arm not in policy.shared_names:
            return None
        parts = self.peers.evidence_on(arm, me.epoch)
        generation = max(
            policy.generation(arm), me.roster.generation(arm), *(e.generation for _, e in parts), 0
        )
        if generation > policy.generation(arm):
            policy.set_generation(arm, generation)
        own = me.evidence.own.get(arm)
        if own is not None and own.generation < generation:
            me.evidence.forget(arm)
        elif own is not None:
            parts = sorted(
                [*parts, (me.id, me.evidence.show(arm))], key=lambda part: (part[0] != BASE, part[0])
            )
        evidence = [e for _, e in parts]
        if arm in me.evidence.initial:
            evidence.insert(0, me.evidence.initial[arm])
        if not any(e.generation == generation for e in evidence):
            nothing = {n: np.zeros_like(a) for n, a in like(policy, arm).items()}
            evidence = [ArmEvidence(generation, -1, {policy.bucket: nothing})]
        return evidence

    def _read_letters(self) -> None:
        """See what peers learned of decisions that were made here, and take back letters that were read."""
        host, me, seen = self.host, self.me, self.peers
        for sender, letters in seen.letters():
            last = me.heard.get(sender, 0)
            new = [letter for letter in letters if letter.number > last]
            for start in range(0, len(new), HOLD):
                with host.locked():
                    for number, key, arm, reward, cost, seconds, failed in new[start : start + HOLD]:
                        request = Request(np.empty(0), 0)
                        host.answered(Feedback(key, arm, request, reward, cost, seconds, failed, "peer"))
                        me.heard[sender] = max(me.heard.get(sender, 0), number)
        with host.locked():
            me.heard = {name: number for name, number in me.heard.items() if name in seen.rows}
            for owner in list(me.letters):
                row = seen.rows.get(owner)
                if row is not None:
                    me.was_heard(owner, row.about.heard.get(me.id, 0))

    def resume(self) -> None:
        """Take up what the store holds of this replica from before a restart; raises ``OSError`` when it is down."""
        me = self.me
        rows = self.store.index()
        folded = _folded(rows.get(BASE))
        found: dict[str, bytes] = {}
        if me.id in rows and me.id not in folded:
            there = [name for name in _parts_of(rows[me.id]) if name.startswith((ARM, NOTES))]
            mine = {*(ARM + arm for arm in me.evidence.own), *there}
            found = self.store.fetch(me.id, sorted(mine))
        with self.host.locked():
            if me.id in folded:
                self.lost += 1  # what had not been published when it was folded
                for arm in list(me.evidence.own):
                    me.evidence.forget(arm)
                me.rename()
                return
            me.seq = max(me.seq, order(rows.get(me.id))[0])
            published = {}
            told = _epoch_of(rows.get(me.id))
            if (
                told > me.epoch
            ):  # a rollback that a crash made this one forget: what it published of it stands
                me.epoch = told
                me.evidence.restart({})
            for name, data in found.items():
                arm = name.removeprefix(ARM)
                try:
                    if name.startswith(NOTES):
                        self.peers.hear(name, data)
                        continue
                    _, epoch, evidence = read_evidence(name, data, like(self.policy, arm))
                    changes = changes_of(data)
                except SnapshotError as error:
                    self.peers.refuse((me.id, name), error)
                    continue
                published[arm] = evidence
                if epoch == me.epoch and changes > me.evidence.versions.get(arm, 0):
                    me.evidence.put(arm, evidence)  # a snapshot may be older than what was published
                    me.evidence.versions[arm] = changes
            self._history.append(Published(me.seq, me.epoch, published))
        self.notes.read(self.peers.heard())


def _folded(raw: object) -> Mapping[str, int]:
    try:
        return opened(raw).about.folded
    except SnapshotError:
        return {}


def _epoch_of(raw: object) -> Epoch:
    try:
        return opened(raw).about.epoch
    except SnapshotError:
        return NEVER


def _parts_of(raw: object) -> list[str]:
    try:
        return list(opened(raw).parts)
    except SnapshotError:
        return []
