"""Cells whose process ended without a word: killed, preempted, out of memory or of time.

Hydra's launchers raise for the first of them and look at no other. Here the sweep waits for the others, each lost cell
says so in its status, and the same command runs it again, from the store as far as that goes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

REASON = "its process was lost (killed, preempted, out of memory or of time); the same command runs it again"


@contextlib.contextmanager
def awaited(launcher: str) -> Iterator[None]:
    """In the block the lost processes of a launcher raise nothing, but are told.

    launcher: its class. Other jobs of submitit and Ray are waited for; joblib ends the cells beside a lost one, and
        does not begin those behind it
    """
    try:
        with _waiting_for_all(launcher):
            yield
    except Exception as reason:
        if not ("joblib" in launcher and _is_lost_worker(reason)):
            raise
        print(f"a process of the cells was lost: {_first_line(reason)}", file=sys.stderr)


def _waiting_for_all(launcher: str) -> contextlib.AbstractContextManager[None]:
    if "submitit" in launcher:
        return _submitit_waits_for_all()
    return _ray_waits_for_all() if "ray_launcher" in launcher else contextlib.nullcontext()


@contextlib.contextmanager
def _ray_waits_for_all() -> Iterator[None]:
    """Ray itself starts a lost cell anew three times; one that it gives up is told here."""
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    get = ray.get

    def without_raising(job: Any, **named: Any) -> Any:
        try:
            return get(job, **named)
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as reason:
            print(f"a job was lost: {_first_line(reason)}", file=sys.stderr)
            return _nothing()

    ray.get = without_raising
    try:
        yield
    finally:
        ray.get = get


@contextlib.contextmanager
def _submitit_waits_for_all() -> Iterator[None]:
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    results = Job.results

    def without_raising(job: Any) -> list:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError) as reason:
            print(f"a job was lost: {_first_line(reason)}; what it wrote: {job.paths.stdout}", file=sys.stderr)
            return [_nothing()]

    Job.results = without_raising  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Job.results = results  # type: ignore[method-assign]


def _nothing() -> Any:
    from hydra.core.utils import JobReturn, JobStatus

    return JobReturn(_return_value=None, status=JobStatus.COMPLETED)


def _is_lost_worker(reason: Exception) -> bool:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return isinstance(reason, BrokenProcessPool)


def _first_line(reason: Exception) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
