"""What goes wrong with a cluster of the tests."""


class ClusterError(Exception):
    """A cluster could not be made, or did not do what was asked; the message names the log to read."""
