"""What is spoken of: requests, decisions, feedback and events, and the protocols of the parts of a Router."""

from banditroute.records.decision import Decision, Extras, Feedback, Origin, Parts, Pending, Request
from banditroute.records.events import Answered, ArmChange, Decided, Deferred, Dropped, Event, Marked, Why
from banditroute.records.protocols import (
    AdapterBackend,
    Capabilities,
    Claims,
    Host,
    Listener,
    PriceRow,
    SlicedHost,
    State,
    StateStore,
    StoreRow,
    Term,
    TermHost,
)

__all__ = [
    "AdapterBackend",
    "Answered",
    "ArmChange",
    "Capabilities",
    "Claims",
    "Decided",
    "Decision",
    "Deferred",
    "Dropped",
    "Event",
    "Extras",
    "Feedback",
    "Host",
    "Listener",
    "Marked",
    "Origin",
    "Parts",
    "Pending",
    "PriceRow",
    "Request",
    "SlicedHost",
    "State",
    "StateStore",
    "StoreRow",
    "Term",
    "TermHost",
    "Why",
]
