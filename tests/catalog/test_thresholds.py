from exporter.catalog import thresholds


def test_every_default_has_a_reason_and_a_name_of_its_own():
    names = [default.name for default in thresholds.DEFAULTS]

    assert len(set(names)) == len(names)
    for default in thresholds.DEFAULTS:
        assert default.value > 0
        assert len(default.reason.split()) >= 5, default.name
        assert default.reason.endswith("."), default.name


def test_what_counts_something_is_whole():
    for default in thresholds.DEFAULTS:
        if default.unit not in ("", "ratio", "s", "standard deviations"):
            assert default.count == default.value, default.name
    assert isinstance(thresholds.MIN_SAMPLES.count, int)


def test_the_pane_ring_holds_the_default_window_twice():
    """A window, and as much again for partitions that run ahead (design 4: at most 128 panes)."""
    assert 2 * thresholds.WINDOW_PANES.count <= 128
