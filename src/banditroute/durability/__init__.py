"""What makes a Router last: journal, snapshots, replicas and their stores."""

from banditroute.durability.replicas import Replica
from banditroute.durability.stores import FileStore, StateStore

__all__ = ["FileStore", "Replica", "StateStore"]
