"""Run by `peers` in an environment that has evidently, and nothing of ours: argument, a JSON file of two tables."""

import json
import statistics
import sys
import time
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

tables = {name: pd.DataFrame(columns) for name, columns in json.loads(Path(sys.argv[1]).read_text()).items()}
columns = list(tables["reference"])
definition = DataDefinition(
    numerical_columns=[name for name in columns if name.startswith("n")],
    categorical_columns=[name for name in columns if name.startswith("c")],
)
datasets = {name: Dataset.from_pandas(table, data_definition=definition) for name, table in tables.items()}

for method in ("psi", "ks"):
    preset = DataDriftPreset(num_method=method, cat_method="psi")
    spent = []
    for _ in range(3):
        started = time.perf_counter()
        answer = Report([preset]).run(datasets["current"], datasets["reference"]).dict()
        spent.append(time.perf_counter() - started)
    assert answer["metrics"]
    print(f"figure\tevidently DataDriftPreset {method}, 10,000-row window\t{statistics.median(spent)}")
