import yaml

from exporter.assets.yaml_text import to_yaml


def test_expressions_are_blocks_and_keys_keep_their_order():
    value = {"record": "a:b", "expr": "sum (\n  x\n)", "for": "5m"}

    assert to_yaml(value) == "record: a:b\nexpr: |-\n  sum (\n    x\n  )\nfor: 5m\n"
    assert yaml.safe_load(to_yaml(value)) == value
