"""`python -m tests.bench`: throughput, latency and memory beside their budgets (design 6). Asserts nothing."""

import argparse
import os
import platform
import time

from tests.bench import hot_path, serving
from tests.bench.figures import Figure, show
from tests.bench.peers import peers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: does it run at all?")
    parser.add_argument("--peers", action="store_true", help="also other libraries, installed for it from PyPI")
    given = parser.parse_args()
    began = time.monotonic()
    cores = sorted(os.sched_getaffinity(0))
    print(f"Python {platform.python_version()}, {processor()}, {len(cores)} cores\n")

    os.sched_setaffinity(0, {cores[-1]})
    rates = hot_path.rates(quick=given.quick)
    show("In memory, one core", [*rates, *hot_path.window_length(quick=given.quick)])
    show("\nThe event loop, longest steps", hot_path.steps(quick=given.quick))
    if given.peers:
        show("\nOther libraries", list(peers(ours(rates))))
    os.sched_setaffinity(0, cores)
    show(
        "\nRunning",
        [
            *serving.startup_and_memory(quick=given.quick),
            *serving.posting(quick=given.quick),
            *serving.scraping(quick=given.quick),
        ],
    )
    print(f"\n{time.monotonic() - began:.0f} s. Ratios hold on a busy machine; rates only beside the calibration.")


def ours(rates: list[Figure]) -> dict[str, float]:
    """Rows a second by workload."""
    return {name: one.measured for name in ("W1", "W2") for one in rates if one.name.startswith(f"{name} JSON")}


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as lines:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
