"""Backends of real runtimes, doors to gateways and metrics; each needs its extra."""

__all__ = []
