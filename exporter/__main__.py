"""The command: `model-health-exporter`, or `python -m exporter`.

What serves can be told to end from its first moment on, while the rest is still being loaded. The first process of a
container would not even notice a SIGTERM that nobody has asked for.

Matrices are small here: more threads than one would wait for each other, actively, and for cores that a container may
not have. OpenBLAS asks the environment when it is loaded.
"""

import os
import signal
import sys

SERVING = ("run", "demo")


def main() -> None:
    """Entry point."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.argv[1:2] and sys.argv[1] in SERVING:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from exporter.app import cli  # noqa: PLC0415 - takes half a second

    cli.main()


if __name__ == "__main__":
    main()
