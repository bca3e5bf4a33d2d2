import os

from hypothesis import settings

pytest_plugins = ["tests.brokers.fixtures"]

# Deterministic by default, so that a run repeats itself. HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))
