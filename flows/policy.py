"""How a stage is run: its `meta` in dvc.yaml, which DVC ignores."""

from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.params_file import Section, checked


class Policy(Section):
    """How Prefect runs a stage: its `meta: {prefect: ...}`."""

    retries: int = Field(default=0, ge=0, le=10, description="tries after one that failed for a passing reason")
    # Prefect sleeps through a pause: a cancelled run would have to wait for its end.
    retry_delay_seconds: float = Field(default=5.0, gt=0, le=10, description="before the first; then twice that")
    timeout_seconds: float | None = Field(default=None, gt=0, description="a try that takes longer is stopped")
    work_pool: str | None = Field(
        default=None, min_length=1, description="where it runs; null: where the run itself does"
    )


class Resources(Section):
    """What a stage gets in a work pool that can give it: its `meta: {resources: ...}`."""

    cpus: float | None = Field(default=None, gt=0, description="processors")
    memory_gb: float | None = Field(default=None, gt=0, description="10^9 bytes")
    gpus: int | None = Field(default=None, gt=0, description="graphics processors")


def read(stage: str, meta: Any) -> tuple[Policy, Resources]:  # noqa: ANN401 - any YAML value
    """Return what a stage's `meta` says.

    Raises:
        PawlineError: A key or a value is wrong.
    """
    values = meta if isinstance(meta, dict) else {}
    prefix = f"stages.{stage}.meta."
    return (
        checked(Policy, values.get("prefect", {}), Path("dvc.yaml"), prefix=f"{prefix}prefect."),
        checked(Resources, values.get("resources", {}), Path("dvc.yaml"), prefix=f"{prefix}resources."),
    )
