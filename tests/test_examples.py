"""The examples run as the README says."""

import re
import shutil

import pytest
from checkouts import run_here

from benchmarks.timing import on_one_core
from examples.demo import ROOT
from examples.two_teams import run as two_teams


@pytest.mark.thorough
def test_team_b_sees_what_the_new_version_of_team_a_did_to_its_metrics(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At a tenth of the example's size, and where most commands need no start."""
    smaller = {"datasets.digits.count": 200, "datasets.digits.shard_size": 20}
    monkeypatch.setattr(two_teams, "SMALL", two_teams.SMALL | smaller)
    monkeypatch.setattr(two_teams, "run", run_here)
    monkeypatch.setattr(two_teams, "GROWN", {"datasets.digits.count": 400})
    with on_one_core():
        two_teams.main()
    output = capfd.readouterr().out
    assert "digits@1.1.0 is published" in output
    assert re.search(r"metrics.json +train_samples +160 +320 +160", output)
    shutil.rmtree(ROOT / ".work/two_teams")
