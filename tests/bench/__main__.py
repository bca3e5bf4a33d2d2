"""`python -m tests.bench`: throughput, latency, memory and rules beside their budgets (design 6). Asserts nothing."""

import argparse
import platform
import time

from tests.bench import hot_path, joins, kafka_path, rule_cost, serving
from tests.bench.figures import CORES, MEASURED, Figure, on, show
from tests.bench.peers import peers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: does it run at all?")
    parser.add_argument("--peers", action="store_true", help="also other libraries, installed for it from PyPI")
    given = parser.parse_args()
    began = time.monotonic()
    print(f"Python {platform.python_version()}, {processor()}, {len(CORES)} cores\n")

    with on(MEASURED):
        rates = hot_path.rates(quick=given.quick)
        costs = [*hot_path.quality(quick=given.quick), *hot_path.window_length(quick=given.quick)]
        show("In memory, one core", [*rates, *costs])
        show("\nThe event loop, longest steps", hot_path.steps(quick=given.quick))
        read = kafka_path.rates(quick=given.quick)
        show("\nKafka, one core", [*read, *kafka_path.durable(quick=given.quick)])
        others = list(peers(ours(rates))) if given.peers else []
    show("\nLabels that come later, one core", joins.joining(quick=given.quick))
    posted = serving.posting(quick=given.quick)
    show(
        "\nRunning",
        [
            *serving.startup_and_memory(quick=given.quick),
            *serving.startup_and_memory_with_kafka(quick=given.quick),
            *posted,
            *serving.scraping(quick=given.quick),
        ],
    )
    if absent := rule_cost.missing():
        print(f"\nRules were not evaluated: {absent}.")
    else:
        show("\nRules, an evaluation", rule_cost.costs(quick=given.quick))
    throughput = [one for one in (*rates, *read, *posted) if one.unit == "events/s" and "alone" not in one.name]
    show("\nA second and core" + (", beside other libraries" if others else ""), [*throughput, *others])
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
