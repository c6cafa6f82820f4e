"""What is spoken of: requests, decisions, feedback and the protocols of the parts."""

from banditroute.records.decision import Decision, Pending

__all__ = ["Decision", "Pending"]
