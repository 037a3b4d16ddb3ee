"""TCP traffic by order, and the truth about it: what a tracer is held against."""
