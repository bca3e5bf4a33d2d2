"""Run by `peers` in an environment that has whylogs, and nothing of ours: argument, a JSON file of two tables."""

import json
import statistics
import sys
import time
from pathlib import Path

import pandas as pd
import whylogs as why

current = pd.DataFrame(json.loads(Path(sys.argv[1]).read_text())["current"])
spent = []
for _ in range(5):
    started = time.perf_counter()
    profile = why.log(pandas=current).view()
    spent.append(time.perf_counter() - started)
assert len(profile.get_columns()) == len(current.columns)
print(f"figure\twhylogs why.log(pandas), sketches only, no drift\t{statistics.median(spent)}")
