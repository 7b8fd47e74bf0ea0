"""A soak of some kills: the long form is `python -m tests.soak --minutes 120`."""

from __future__ import annotations

from tests.soak.run import Soak


def test_killed_and_cut_off_every_job_ends_with_the_same_adapters_or_by_name(tmp_path):
    found = Soak(tmp_path, seed=1, kill_every=None, tell=print, rounds=1).run(0.0, least_kills=2)
    assert found.problems == []
    assert found.finished >= 1  # the one without faults
    assert found.finished + found.aborted.total() >= 2
    assert found.kills.total() >= 2
    assert found.network["connections"] > 10
    assert 0 < found.uploads <= found.entries
