"""The name of the other end: what was asked for, by whom, and which connection it belongs to."""
