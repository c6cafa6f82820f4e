"""Optional edges to other software; each module needs its extra."""
