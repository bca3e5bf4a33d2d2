"""What leaves for people and programs: the exposition for Prometheus, the status as JSON, the page that draws it.

Pure functions of a snapshot: they run on a worker thread once a tick, and what they made is served as bytes.
"""
