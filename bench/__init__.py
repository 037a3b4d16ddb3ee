"""Measurements beside a peer, `tcplife` of libbpf-tools: `sudo python -m bench` from the top of the source tree.

Both sides are measured in one run, with the same load. What was measured is kept, number by number, in
`bench/results/`; the table that is printed shows medians. `python -m bench.reader` measures the reader alone.
"""
