"""Online contextual-bandit routing with residency control."""
