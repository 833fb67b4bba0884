"""The examples run as the README says."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.peers
@pytest.mark.slow
def test_team_b_sees_what_the_new_version_of_team_a_did_to_its_metrics() -> None:
    done = subprocess.run(
        [sys.executable, "examples/two_teams/run.py"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "digits@v1.1.0 is published" in done.stdout
    assert re.search(r"metrics.json +train_samples +3200 +6400 +3200", done.stdout)
    shutil.rmtree(ROOT / ".work/two_teams")
