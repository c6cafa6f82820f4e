"""What a worker must not forget of its place among those that share a bandit."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from banditroute._core.typing import Arrays, Floats, Header
from banditroute.durability.local_evidence import LocalEvidence, Shareable
from banditroute.durability.roster import Roster, mark_key
from banditroute.durability.rows import NEVER, Epoch, packed, unpacked
from banditroute.records import (
    Answered,
    ArmChange,
    Decision,
    Deferred,
    Feedback,
    Marked,
    Parts,
    Pending,
    Request,
    Why,
)

__all__ = ["Letter", "Membership"]


class Letter(NamedTuple):
    """Tells the replica that made a decision what was learned of it here; numbered, so that each is read once.

    Examples
    --------
    >>> Letter(1, 7, "math", 0.8).reward
    0.8
    """

    number: int
    id: int
    arm: str
    reward: float
    cost: float | None = None
    seconds: float | None = None
    failed: bool = False


class Membership:
    """Identity, own evidence, arms, answers that wait and letters of one worker: what its snapshots hold of a store.

    A `Listener` by itself: between a restart and the next `join` it takes in what the journal replays.

    Parameters
    ----------
    policy : Shareable
    arms : tuple of str
        Those of the policy; what was learned of them so far counts once, on all workers alike.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(["a", "b"], 2, rng=0)
    >>> header, arrays = Membership(policy, policy.arms).to_state()
    >>> Membership.of_state(policy, header, arrays).id == header["id"]
    True
    """

    def __init__(self, policy: Shareable, arms: tuple[str, ...]) -> None:
        self.policy = policy
        self.id = secrets.token_hex(8)
        self.former: list[str] = []  # names it had before
        self.seq, self.beat = 0, 0.0
        self.epoch: Epoch = NEVER
        self.ahead: float | None = None  # time of the machine less that of the Router; None: never in a store
        self.evidence = LocalEvidence(policy, arms)
        self.roster = Roster({arm: policy.generation(arm) for arm in arms})
        self.muted: set[str] = set()
        self.waiting: OrderedDict[int, Deferred] = (
            OrderedDict()
        )  # answers of which the store has to say whose they are
        self.letters: dict[str, list[Letter]] = {}
        self.written: dict[str, int] = {}  # how often the letters to each changed
        self.heard: dict[str, int] = {}  # the last letter of each that was read
        self.numbers = 0
        self.known_marks: dict[str, int] = {}  # stamps of those in effect here
        self.following = (
            False  # an act of another worker is being put into effect: it is not one of this worker
        )

    # Listener; with the Router's lock held.

    hears_replays, keeps_parts = True, False

    def decided(
        self, decision: Decision, request: Request, pending: Pending, forced: bool, parts: Parts | None
    ) -> None:
        """See a decision made: there is nothing to remember of it."""

    def capture(self) -> tuple[Header, Arrays]:
        """Return what a snapshot holds of it."""
        return self.to_state()

    def learned(self, feedback: Feedback) -> None:
        """Count what was learned here; what a peer learned comes with its evidence."""
        self.waiting.pop(feedback.id, None)
        if feedback.origin != "peer":
            kept = feedback.request.x if feedback.kept is None else feedback.kept
            self.learn(feedback.arm, kept, feedback.reward, feedback.request.at)

    def learn(self, arm: str, kept: Floats, reward: float, at: int) -> None:
        """Count one reward as learned here, of an arm that perhaps only others have, or of a guest."""
        if arm not in self.policy.arms and arm not in self.roster.entries and self.policy.shared_names:
            arm = self.policy.shared_names[0]
        self.evidence.learn(arm, kept, reward, at=at, generation=self.generation(arm))

    def generation(self, arm: str) -> int:
        """Return the generation of an arm as far as it is known here."""
        known = self.roster.generation(arm)
        return max(known, self.policy.generation(arm)) if arm in self.policy.arms else known

    def dropped(self, decision_id: int, why: Why) -> None:
        """See a wait end."""
        self.waiting.pop(decision_id, None)

    def deferred(self, event: Deferred) -> None:
        """See an answer wait for the store."""
        self.waiting[event.id] = event

    def arms_changed(self, change: ArmChange) -> None:
        """Follow an act on an arm; what was forgotten on any worker stays so."""
        arm, policy, roster = change.arm, self.policy, self.roster
        generation = max(policy.generation(arm), roster.generation(arm))
        if change.what in ("removed", "forgotten"):
            if not self.following:
                generation = max(generation, roster.generation(arm) + 1)
            self.evidence.forget(arm)
            self.evidence.initial.pop(arm, None)
            # A decision that waits must teach no later arm of that name.
            for key, event in self.waiting.items():
                if event.pending is not None and event.pending.arm == arm:
                    self.waiting[key] = event._replace(pending=event.pending._replace(arm=""))
        self.muted.discard(arm)
        if change.what == "muted":
            self.muted.add(arm)
        policy.set_generation(arm, generation)
        roster.changed(change, generation, own=not self.following)

    def marked(self, mark: Marked) -> None:
        """See a term told something."""
        if not self.following and "state" in mark.details:  # outcomes are counted where they were seen
            self.roster.marked(mark)
            self.known_marks[mark_key(mark)] = self.roster.marks[mark_key(mark)][0]

    # Letters.

    def write(self, owner: str, answer: Answered, arm: str, most: int) -> None:
        """Write to the replica that made a decision what was learned of it here; the oldest go beyond `most`."""
        self.numbers += 1
        letter = Letter(
            self.numbers, answer.id, arm, answer.reward, answer.cost, answer.seconds, answer.failed
        )
        box = self.letters.setdefault(owner, [])
        box.append(letter)
        del box[:-most]
        self.written[owner] = self.written.get(owner, 0) + 1

    def was_heard(self, owner: str, number: int) -> None:
        """Keep no letter that its reader has read."""
        box = self.letters.get(owner, [])
        if box and box[0].number <= number:
            box[:] = [letter for letter in box if letter.number > number]
            self.written[owner] += 1
            if not box:
                del self.letters[owner]

    # Names.

    def rename(self) -> None:
        """Go on under a new name, of which nothing is published yet."""
        self.former = [*self.former[-7:], self.id]
        self.id, self.seq, self.beat = secrets.token_hex(8), 0, 0.0

    # As plain data.

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; the Router's lock is held."""
        evidence, arrays = self.evidence.to_state()
        waiting = []
        for event in self.waiting.values():
            pending = None if event.pending is None else packed(event.pending, self.id, 0).hex()
            answer = None if event.answer is None else list(event.answer._replace(foreign=None))
            waiting.append([event.id, answer, pending, event.token, event.expired])
        header = {
            "id": self.id,
            "former": self.former,
            "seq": self.seq,
            "beat": self.beat,
            "epoch": list(self.epoch),
            "ahead": self.ahead,
            "evidence": evidence,
            "roster": self.roster.to_state(),
            "muted": sorted(self.muted),
            "waiting": waiting,
            "letters": {owner: [list(letter) for letter in box] for owner, box in self.letters.items()},
            "heard": dict(self.heard),
            "numbers": self.numbers,
            "known_marks": dict(self.known_marks),
        }
        return header, arrays

    @classmethod
    def of_state(
        cls, policy: Shareable, header: Mapping[str, Any], arrays: Mapping[str, Any]
    ) -> "Membership":
        """Return the membership that `to_state` gave.

        Raises
        ------
        ValueError
            It does not fit.
        """
        new = cls(policy, ())
        try:
            new.id, new.former = str(header["id"]), [str(name) for name in header["former"]]
            new.seq, new.beat = int(header["seq"]), float(header["beat"])
            new.epoch = (int(header["epoch"][0]), str(header["epoch"][1]))
            ahead = header.get("ahead")
            new.ahead = None if ahead is None else float(ahead)
            new.evidence.load_state(header["evidence"], arrays)
            new.roster = Roster.of_state(header["roster"])
            new.muted = set(map(str, header["muted"]))
            for key, answer, data, token, expired in header["waiting"]:
                pending = None if data is None else unpacked(bytes.fromhex(data))[0]
                given = None if answer is None else Answered(*answer)
                new.waiting[int(key)] = Deferred(int(key), given, pending, str(token), bool(expired))
            for owner, box in header["letters"].items():
                new.letters[str(owner)] = [Letter(*letter) for letter in box]
                new.written[str(owner)] = 1
            new.heard = {str(name): int(n) for name, n in header["heard"].items()}
            new.numbers = int(header["numbers"])
            new.known_marks = {str(key): int(stamp) for key, stamp in header["known_marks"].items()}
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"membership must be as it was stored, got {error!r}") from error
        return new
