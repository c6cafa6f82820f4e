"""What terms of workers tell each other: written on sheets in the time of the machines, and read from theirs."""

import time
from collections.abc import Iterable

from banditroute.durability.membership import Membership
from banditroute.durability.rows import plain_bytes
from banditroute.durability.sheets import Sheets, Told, term_of
from banditroute.records import Host, Note

__all__ = ["Notes"]

HOLD = 64  # notes taken in in one hold of the lock
JUMP_S = 1.0  # a clock that moved by more than this against the other was set


class Notes:
    """What the terms of one worker tell the others, and what they hear.

    Parameters
    ----------
    host : Host
    me : Membership
        Keeps what makes a time of the Router one of the machine, also over a restart.
    """

    def __init__(self, host: Host, me: Membership) -> None:
        self.host, self.me = host, me
        self.sheets: dict[str, Sheets] = {}  # by term
        with host.locked():
            before, me.ahead = me.ahead, time.time() - host.time
            if (
                before is not None and me.ahead > before
            ):  # the time of a Router stands still until it is restored
                host.passed(me.ahead - before)

    def _ahead(self) -> float:
        """Return the time of the machine, as other workers can read it, less that of the Router; the lock is held."""
        now, me = time.time() - self.host.time, self.me
        if (
            me.ahead is None or abs(now - me.ahead) > JUMP_S
        ):  # else a note has the same time whenever it is read
            me.ahead = now
        return me.ahead

    @property
    def versions(self) -> dict[str, int]:
        """How often each sheet was written on."""
        found: dict[str, int] = {}
        for sheets in self.sheets.values():
            found.update({sheet: version for sheet, version in sheets.versions.items() if version})
        return found

    def packed(self, sheet: str, seq: int) -> bytes:
        """Return a sheet as a checked part of this version."""
        return plain_bytes(sheet, seq, [list(told) for told in self.sheets[term_of(sheet)].on(sheet)])

    def write(self) -> None:
        """Write down what terms noted here; of a term that is new all that it knows."""
        with self.host.locked():
            ahead, noted = self._ahead(), self.host.notes(self.sheets)
            arms = {note.arm for notes in noted.values() for note in notes}
            generations = {arm: self.me.generation(arm) for arm in arms}
        for term, notes in noted.items():
            sheets = self.sheets.setdefault(term, Sheets(term))
            for key, arm, value, at in notes:
                sheets.write(Told(key, arm, generations[arm], value, at + ahead))

    def read(self, heard: Iterable[tuple[str, list[Told]]]) -> None:
        """Have the terms take in what other workers noted, the earliest first."""
        found: dict[str, list[Told]] = {}
        for term, told in heard:
            found.setdefault(term, []).extend(told)
        for term, notes in found.items():
            notes.sort(key=lambda told: told.time)
            for start in range(0, len(notes), HOLD):
                with self.host.locked():
                    now, ahead = self.host.time, self._ahead()
                    known = [
                        Note(key, arm, value, min(at - ahead, now))
                        for key, arm, generation, value, at in notes[start : start + HOLD]
                        if generation >= self.me.generation(arm)
                    ]
                    self.host.take(term, known)
