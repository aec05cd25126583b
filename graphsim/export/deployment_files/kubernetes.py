"""A Deployment and a Service for Kubernetes (apps/v1 and v1)."""

from __future__ import annotations

from typing import Any

import yaml

from graphsim.errors import ConfigError
from graphsim.export.deployment_files.commands import Config
from graphsim.export.deployment_files.described import Launch
from graphsim.export.deployment_files.shell import CONFIG_FILE

IMAGES = {"vllm": "vllm/vllm-openai:latest", "sglang": "lmsysorg/sglang:latest"}
"""The engines' official container images for NVIDIA devices."""
NODE_DEVICES = 8
"""Largest number of devices in a node."""
_CONFIG_FOLDER = "/etc/graphsim"


def manifest(launch: Launch, arguments: list[str], config: Config, image: str | None) -> str:
    """YAML of a Deployment of the server, a Service for its clients and, if needed, a ConfigMap.

    Raises ConfigError for more devices than a node has, and if no image is known.
    """
    if launch.devices > NODE_DEVICES:
        raise ConfigError(
            f"a server on {launch.devices} devices spans several nodes, for which no manifest is written; expected up "
            f"to {NODE_DEVICES}"
        )
    documents = [_deployment(launch, arguments, config, _image(launch, image)), _service(launch)]
    if config:
        content = {CONFIG_FILE: yaml.safe_dump(config, sort_keys=False)}
        documents.insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(launch), "data": content})
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


def _image(launch: Launch, given: str | None) -> str:
    if given:
        return given
    if _vendor(launch) != "nvidia.com/gpu" or launch.engine not in IMAGES:
        raise ConfigError(
            f"image is missing: no image of {launch.engine} is known for '{launch.deployment.device.name}'; give image="
        )
    return IMAGES[launch.engine]


def _vendor(launch: Launch) -> str:
    """The resource name under which a cluster counts devices (device plugins of NVIDIA and AMD)."""
    return "amd.com/gpu" if launch.deployment.device.architecture.startswith("cdna") else "nvidia.com/gpu"


def _named(launch: Launch) -> dict[str, Any]:
    return {"name": launch.name, "labels": _labels(launch)}


def _labels(launch: Launch) -> dict[str, str]:
    return {"app.kubernetes.io/name": launch.name}


def _deployment(launch: Launch, arguments: list[str], config: Config, image: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": launch.engine, "image": image,
        "command": [*arguments, *(["--config", f"{_CONFIG_FOLDER}/{CONFIG_FILE}"] if config else [])],
        "ports": [{"name": "http", "containerPort": launch.port}],
        "env": [{
            "name": "HF_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}},
        }],
        "resources": {"limits": {_vendor(launch): launch.devices}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10, "failureThreshold": 3},
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10, "failureThreshold": 360},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],  # noqa: S108 - what NCCL shares
    }  # fmt: skip
    volumes: list[dict[str, Any]] = [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
    if config:
        container["volumeMounts"].append({"name": "config", "mountPath": _CONFIG_FOLDER})
        volumes.append({"name": "config", "configMap": {"name": launch.name}})
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": _named(launch),
        "spec": {
            "replicas": launch.replicas, "selector": {"matchLabels": _labels(launch)},
            "template": {
                "metadata": {"labels": _labels(launch)}, "spec": {"containers": [container], "volumes": volumes},
            },
        },
    }  # fmt: skip


def _service(launch: Launch) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": _named(launch),
        "spec": {
            "selector": _labels(launch),
            "ports": [{"name": "http", "port": launch.port, "targetPort": "http"}],
        },
    }  # fmt: skip
