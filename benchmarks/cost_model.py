"""What a dataset of any size costs, in seconds and bytes: a linear model, fitted to small runs.

    cost = fixed + (per_sample * count + per_shard * number of shards) / busy workers

All workers are busy until the last turn: 5 shards take 4 workers as long as 8. What is done once, such as writing the index,
and all that is counted in bytes are jobs of one worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

# What is measured, and on what it depends: a term that does not belong would be noise, a million times as large in the end.
TERMS = {
    "drawing_seconds": ("fixed", "per_sample", "per_shard"),
    "assembling_seconds": ("fixed", "per_sample", "per_shard"),
    "shard_bytes": ("per_sample",),
    "index_bytes": ("fixed", "per_sample"),
    "manifest_bytes": ("fixed", "per_shard"),
    "manifest_memory_bytes": ("fixed", "per_shard"),
}

SHARD_SIZES = (5_000, 20_000, 100_000)
# Aim at 100 to 200 MB: smaller shards make the manifest long; larger ones are slow to fetch and to redo.
MAX_SHARD_MB = 200
MACHINES = {"2_cores": 2, "10_machines_of_16_cores": 160}
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Job:
    """A dataset to draw, and the workers that draw it."""

    count: int
    shard_size: int
    num_workers: int = 1

    @property
    def num_shards(self) -> int:
        """Number of shards, the last one possibly short."""
        return ceil(self.count / self.shard_size)

    @property
    def busy_workers(self) -> float:
        """Workers that are busy on average: a shard is never divided."""
        return self.num_shards / ceil(self.num_shards / self.num_workers)


@dataclass(frozen=True, slots=True)
class Cost:
    """The terms of the model, in seconds or bytes."""

    fixed: float = 0.0
    per_sample: float = 0.0
    per_shard: float = 0.0

    def predict(self, job: Job) -> float:
        """Return what a job costs."""
        return self.fixed + (self.per_sample * job.count + self.per_shard * job.num_shards) / job.busy_workers


def fit_cost(jobs: Sequence[Job], measured: Sequence[float], terms: Sequence[str]) -> Cost:
    """Fit some terms of the model by least squares of the relative errors; one that would be negative is left out."""
    rows = [(1, job.count / job.busy_workers, job.num_shards / job.busy_workers) for job in jobs]
    weighted = dict(zip(("fixed", "per_sample", "per_shard"), (np.array(rows) / np.array(measured)[:, None]).T, strict=True))
    used = list(terms)
    while True:
        fitted = np.linalg.lstsq(np.transpose([weighted[term] for term in used]), np.ones(len(jobs)), rcond=None)[0]
        if fitted.min() >= 0:
            return Cost(**dict(zip(used, fitted.tolist(), strict=True)))
        used.pop(int(fitted.argmin()))


def fit_costs(points: Sequence[Mapping[str, float]]) -> dict[str, Cost]:
    """Fit all of `TERMS` to measured runs, each with these quantities and the fields of its `Job`."""
    return {
        name: fit_cost([_find_job(point, name) for point in points], [point[name] for point in points], terms)
        for name, terms in TERMS.items()
    }


def relative_errors(costs: Mapping[str, Cost], point: Mapping[str, float]) -> dict[str, float]:
    """Return by which share of its value the model is too high for every quantity of a measured run."""
    return {f"{name}_error": cost.predict(_find_job(point, name)) / point[name] - 1 for name, cost in costs.items()}


def _find_job(point: Mapping[str, float], quantity: str) -> Job:
    num_workers = point["num_workers"] if quantity == "drawing_seconds" else 1
    return Job(int(point["count"]), int(point["shard_size"]), int(num_workers))


def predict_dataset(costs: Mapping[str, Cost], count: int, shard_size: int) -> dict[str, float]:
    """Tell what a large dataset takes, from the costs of all `TERMS`."""
    job = Job(count, shard_size)

    def hours(num_workers: int) -> float:
        drawing = costs["drawing_seconds"].predict(Job(count, shard_size, num_workers))
        return (drawing + costs["assembling_seconds"].predict(job)) / SECONDS_PER_HOUR

    return {
        "count": count,
        "shard_size": shard_size,
        "shards": job.num_shards,
        "shard_mb": costs["shard_bytes"].predict(job) / job.num_shards / 1e6,
        "shards_gb": costs["shard_bytes"].predict(job) / 1e9,
        "index_gb": costs["index_bytes"].predict(job) / 1e9,
        "manifest_mb": costs["manifest_bytes"].predict(job) / 1e6,
        "manifest_memory_mb": costs["manifest_memory_bytes"].predict(job) / 1e6,
        "core_hours": hours(1),
        **{f"hours_on_{machines}": hours(num_cores) for machines, num_cores in MACHINES.items()},
    }


def recommend_shard_size(bytes_per_sample: float) -> int:
    """Choose the largest of `SHARD_SIZES` whose shards stay within `MAX_SHARD_MB`."""
    return max((size for size in SHARD_SIZES if size * bytes_per_sample <= MAX_SHARD_MB * 1e6), default=SHARD_SIZES[0])
