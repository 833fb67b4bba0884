"""Two teams share a dataset under versions: `python examples/two_teams/run.py`.

Team A publishes digits 1.0.0 and lets it grow to 1.1.0. Team B, who has none of A's code, imports it with plain `dvc import`,
trains on it, upgrades and sees what that did to its metrics. Git host and DVC remote are folders here; any other works alike.
Everything is in `.work/two_teams`, which Git and DVC ignore, until the next run.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from captcha_registry.ends import prepare_process, report_errors

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from demo import ROOT, add_remotes, change_params, claim, copy_project, run  # noqa: E402 - from the folder above

# Team A shares datasets and trains nothing.
SMALL = {"datasets.digits.count": 2_000, "datasets.digits.shard_size": 200, "models": {}}
GROWN = {"datasets.digits.count": 4_000}


@dataclass(frozen=True)
class Team:
    """A team in its checkout; each command is shown, as one would type it."""

    name: str
    root: Path

    def run(self, *command: str) -> None:
        """Show a command and run it."""
        print(f"\n{self.name} $ {' '.join(command)}", flush=True)
        run(list(command), self.root)

    def commit(self, message: str) -> None:
        """Commit all that changed."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def publish(team: Team, version: str) -> None:
    """Draw, check and publish what params.yaml says."""
    team.run("dvc", "repro", "--quiet", "describe@digits")
    team.commit(f"digits {version}")
    team.run("git", "push", "--quiet", "origin", "main")
    team.run("captcha-registry", "publish", f"digits@{version}")


def start_team_a(place: Path) -> Team:
    """Give team A its copy of this project, a Git host and a DVC remote."""
    team = Team("A", place / "team_a")
    copy_project(team.root, SMALL)
    add_remotes(team.root, place)
    return team


def main() -> None:
    """Run the example and say how long it took."""
    started = time.perf_counter()
    place = ROOT / ".work" / "two_teams"
    with claim(place):
        team_a = start_team_a(place)
        host = f"file://{place / 'registry.git'}"
        publish(team_a, "1.0.0")

        team_b = Team("B", place / "team_b")
        copytree(HERE / "team_b", team_b.root)
        team_b.run("git", "init", "--quiet", "--initial-branch=main")
        team_b.run("dvc", "init", "--quiet")
        team_b.run("captcha-registry", "list", "--repo", host)
        team_b.run("mkdir", "data")
        team_b.run("dvc", "import", "--quiet", "--rev", "digits@v1.0.0", "--out", "data/digits", host, "data/digits")
        team_b.run("dvc", "repro", "--quiet")
        team_b.commit("train on digits 1.0.0")

        change_params(team_a.root / "params.yaml", GROWN)
        publish(team_a, "1.1.0")

        team_b.run("captcha-registry", "diff", "digits@1.0.0", "digits@1.1.0", "--repo", host)
        team_b.run("dvc", "update", "--quiet", "--rev", "digits@v1.1.0", "data/digits.dvc")
        team_b.run("dvc", "repro", "--quiet")
        team_b.run("dvc", "metrics", "diff")
    print(f"\nDone in {time.perf_counter() - started:.0f} s; both checkouts are in {place}.")


if __name__ == "__main__":
    prepare_process()
    with report_errors():
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        main()
