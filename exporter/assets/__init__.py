"""Generated files, made from the vocabulary alone and committed; `python -m exporter.assets --check` proves them."""
