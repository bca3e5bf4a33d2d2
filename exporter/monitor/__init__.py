"""The product without IO: bytes never reach it, it never asks the time; `now` is an argument in epoch seconds.

What is kept of a stream is integer counts against a fixed reference. A tracker is a vector of such counts, so empty is
zeros and merge is addition: panes add up to windows, partitions to processes, processes to fleets, exactly.
`fleet.Fleet` is the entry; `snapshot.Snapshot` is what leaves. What is to outlive the process leaves as bytes by key,
and after the first time only what has changed (`state`).
"""
