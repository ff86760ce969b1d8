"""What a launcher's lost process becomes: a line, not the end of the sweep; other errors stay what they are."""

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from submitit.core.core import Job
from submitit.core.utils import FailedJobError, UncompletedJobError

from dlma.runs import lost_cells

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class Paths:
    stdout = "jobs/7_log.out"


class Ended(Job):
    """A job whose results are known; what they are stands in place of submitit's own waiting."""

    paths = Paths()
    _cancel_at_deletion = False  # which submitit's own constructor sets, and its end reads

    def __init__(self, outcome):
        self.outcome = outcome


@pytest.fixture
def known(monkeypatch):
    def results(job):
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return [job.outcome]

    monkeypatch.setattr(Job, "results", results)
    return results


@pytest.mark.parametrize("kind", [UncompletedJobError, FailedJobError])
def test_a_lost_job_gives_nothing_is_told_and_the_next_ones_are_looked_at(known, capsys, kind):
    with lost_cells.awaited(SUBMITIT):
        found = [job.results()[0] for job in (Ended("one"), Ended(kind("no output\nmore")), Ended("three"))]
    assert (found[0], found[1].return_value, found[2]) == ("one", None, "three")
    assert capsys.readouterr().err == "a job was lost: no output; what it wrote: jobs/7_log.out\n"
    assert Job.results is known


def test_another_error_of_a_job_is_raised(known):
    with pytest.raises(ValueError, match="unreadable"), lost_cells.awaited(SUBMITIT):
        Ended(ValueError("unreadable")).results()
    assert Job.results is known


def test_a_lost_worker_of_joblib_is_told(capsys):
    with lost_cells.awaited(JOBLIB):
        raise TerminatedWorkerError("A worker was terminated\nby a signal")
    assert capsys.readouterr().err == "a process of the cells was lost: A worker was terminated\n"


@pytest.mark.parametrize(
    "launcher, error", [(JOBLIB, ValueError), (BASIC, TerminatedWorkerError), (SUBMITIT, ValueError)]
)
def test_whatever_is_no_lost_process_is_raised(launcher, error):
    with pytest.raises(error), lost_cells.awaited(launcher):
        raise error("x")
