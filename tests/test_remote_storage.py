"""Two machines and a bucket, through a real S3 API: what one pushed the other pulls, and nothing is left to run."""

import re
from pathlib import Path

from lineage import git
from tests.s3 import Bucket
from tests.test_audit import pawline, pawline_here
from tests.test_pipeline import STAGES, run

README_BUCKET = "s3://my-bucket"


def share(project: Path, bucket: Bucket) -> None:
    """Make a bucket the default remote of a project, and commit that."""
    said = pawline(f"pawline remote add {README_BUCKET}/pawline".replace(README_BUCKET, bucket.url), project)
    assert said.startswith(f"storage is the default remote: {bucket.url}/pawline was written to")
    git.git(project, "commit", "--quiet", "--all", "--message", "Share what is made")


def clone(project: Path, folder: Path) -> Path:
    run(["git", "clone", "--quiet", str(project), str(folder)], folder.parent)
    return folder


def test_a_fresh_clone_pulls_and_has_nothing_to_run(three_runs: Path, tmp_path: Path, bucket: Bucket) -> None:
    share(three_runs, bucket)
    run(["dvc", "push"], three_runs)
    other = clone(three_runs, tmp_path / "other")
    run(["dvc", "pull"], other)
    classifier = "models/classifier.keras"
    assert (other / classifier).read_bytes() == (three_runs / classifier).read_bytes()
    lock = (other / "dvc.lock").read_bytes()
    said = run(["dvc", "repro"], other).stdout
    assert re.findall(r"Running stage '(\w+)'", said) == ["source"], "it always looks at the photos"
    assert sorted(re.findall(r"Stage '(\w+)' didn't change", said)) == sorted(STAGES.keys() - {"source"})
    assert (other / "dvc.lock").read_bytes() == lock


def test_versions_are_pushed_and_a_bucket_that_refuses_is_one_line(three_runs: Path, bucket: Bucket) -> None:
    pawline_here("pawline register", three_runs)
    share(three_runs, bucket)
    bucket.deny("s3:PutObject")
    refused = pawline("pawline push", three_runs, exit_code=1)
    assert refused.startswith(f"error: {bucket.url}/pawline refuses access (")
    assert refused.count("\n") == 1
    bucket.allow()
    copied = re.search(r"v1\.0\.0: (\d+) files copied to storage", pawline_here("pawline push", three_runs))
    assert copied is not None
    assert bucket.objects() == int(copied[1])
