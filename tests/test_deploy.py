"""What deploy/ describes, on a real server: its deployments, and what a worker would make of them."""

import json
import os
import subprocess
import sys
from typing import Any

import anyio
import pytest
from docker.models.containers import _create_container_args
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from flows import pools
from flows.dvc_graph import PlannedStage
from flows.policy import Policy, Resources
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.flows.served import Served

pytest_plugins = ["tests.flows.served"]

MUCH = Resources(cpus=2.5, memory_gb=4.5, gpus=1)


def template(kind: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((ROOT / f"deploy/{kind}/job-template.json").read_text(encoding="utf-8"))
    return values


def deployed(client: SyncPrefectClient, kind: str) -> None:
    """Make a pool and its deployments as docs/operations.md says."""
    pool = WorkPoolCreate(name=f"pawline-{kind}", type=kind, base_job_template=template(kind))
    client.create_work_pool(pool)
    deploy = ["deploy", "--prefect-file", f"deploy/{kind}/prefect.yaml", "--all"]
    env = {**os.environ, "PREFECT_API_URL": str(client.api_url)}
    subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *deploy], cwd=ROOT, env=env, check=True)


def configured(
    client: SyncPrefectClient,
    kind: str,
    configuration: Any,  # noqa: ANN401 - each worker has a class of its own
    resources: Resources,
) -> Any:  # noqa: ANN401
    """What a worker of the pool would start for a stage with these resources."""
    pool = client.read_work_pool(f"pawline-{kind}")
    deployment = client.read_deployment_by_name(f"stage/pawline-{kind}")
    stage = PlannedStage("train_head", "", (), Policy(work_pool=pool.name), resources)
    variables = {**deployment.job_variables, **pools.job_variables(stage, pool)}
    made = anyio.run(configuration.from_template_and_values, pool.base_job_template, variables)
    run = client.create_flow_run_from_deployment(deployment.id, parameters={"name": "x", "folder": "/", "run": ""})
    made.prepare_for_flow_run(run, deployment=deployment)
    return made


def names(client: SyncPrefectClient, kind: str) -> list[tuple[str, str, list[dict[str, Any]] | None]]:
    found = [one for one in client.read_deployments() if one.work_pool_name == f"pawline-{kind}"]
    return sorted((one.name, f"{one.entrypoint}", one.pull_steps) for one in found)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_deployments_and_what_is_started_for_them(served: Served, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv/pawline/project"}}]
    with served.in_use(monkeypatch) as client:
        deployed(client, kind)
        assert names(client, kind) == [
            (f"pawline-{kind}", "flows/stage.py:stage", pull),
            (f"pipeline-{kind}", "flows/pipeline.py:pipeline", pull),
            (f"retrain-{kind}", "flows/retrain.py:retrain", pull),
        ]
        check = check_container if kind == "docker" else check_job
        check(client)


def check_container(client: SyncPrefectClient) -> None:
    for resources in (Resources(), MUCH):
        job = configured(client, "docker", DockerWorkerJobConfiguration, resources)
        assert job.env["PREFECT_HOME"] not in (os.environ["PREFECT_HOME"], ".prefect")
        given = {"image": job.image, "command": job.command, "volumes": job.volumes, "mem_limit": job.mem_limit}
        made = _create_container_args({**given, **job.container_create_kwargs, "version": "1.44"})  # as docker-py does
        host = made["host_config"]
        assert (made["image"], host["Binds"], host["Init"]) == ("pawline:cpu", ["/srv/pawline:/srv/pawline"], True)
    assert (host["NanoCpus"], host["Memory"]) == (2_500_000_000, 4_500_000_000)
    assert [(one["Count"], one["Capabilities"]) for one in host["DeviceRequests"]] == [(1, [["gpu"]])]


def check_job(client: SyncPrefectClient) -> None:
    plain = configured(client, "kubernetes", KubernetesWorkerJobConfiguration, Resources())
    pod = plain.job_manifest["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"limits": {}, "requests": {}}
    assert pod["containers"][0]["volumeMounts"] == [{"name": "project", "mountPath": "/srv/pawline"}]
    assert pod["volumes"] == [{"name": "project", "persistentVolumeClaim": {"claimName": "pawline"}}]
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    much = configured(client, "kubernetes", KubernetesWorkerJobConfiguration, MUCH)
    assert much.job_manifest["spec"]["template"]["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "2.5", "memory": "4500M", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "2.5", "memory": "4500M"},
    }


def test_templates_are_those_of_the_workers_with_a_little_more() -> None:
    """A template that lags behind its worker would be refused, or would lack what the worker has learned."""
    for kind, worker, more, less in (
        ("docker", DockerWorker, {"nano_cpus", "device_requests"}, {"container_create_kwargs"}),
        ("kubernetes", KubernetesWorker, {"gpu_limit", "volume_claim", "mount_path", "user"}, set()),
    ):
        theirs, ours = worker.get_default_base_job_template(), template(kind)
        assert set(ours["job_configuration"]) == set(theirs["job_configuration"])
        assert set(ours["variables"]["properties"]) == set(theirs["variables"]["properties"]) - less | more


def test_a_pool_without_a_place_for_resources_says_how_to_get_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.in_use(monkeypatch) as client:
        nothing = {"job_configuration": {"env": "{{ env }}"}, "variables": {"properties": {"env": {}}}}
        bare = WorkPoolCreate(name="bare-docker", type="docker", base_job_template=nothing)
        pool = client.create_work_pool(bare)
        stage = PlannedStage("train_head", "", (), Policy(work_pool=pool.name), Resources(gpus=1))
        advice = "`prefect work-pool update bare-docker --base-job-template deploy/docker/job-template.json`"
        said = rf"^work pool bare-docker cannot give stage train_head its gpus \(meta in dvc\.yaml\): {advice}$"
        with pytest.raises(PawlineError, match=said):
            pools.job_variables(stage, pool)
