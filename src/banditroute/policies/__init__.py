"""Routing policies, one file each."""

from banditroute.policies.linucb import LinUCB

__all__ = ["LinUCB"]
