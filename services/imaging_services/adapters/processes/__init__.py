"""Processes of one service that share its port (SO_REUSEPORT): the way between them and their parent."""
