"""DIMSE over NATS: what the two ends of a relay say to each other, whatever carries it."""
