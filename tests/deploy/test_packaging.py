"""The container file, the compose file, the systemd unit and the Helm chart: they fit the server that they start."""

import json
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

from fluvial import __version__
from fluvial.settings import Settings, settings_from_environment

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
CHART = PACKAGING / "helm" / "fluvial"
UNIT = PACKAGING / "fluvial.service"

#: systemd-analyze's exposure, from 0 to 100, that the unit may have.
EXPOSURE_MAX = 20


def instructions(name: str) -> list[tuple[str, str]]:
    """The container file's instructions, each with its arguments on one line."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", (PACKAGING / name).read_text()))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line]


def arguments(instruction: str) -> list[str]:
    """The arguments of each such instruction of the container file."""
    return [found for name, found in instructions("Containerfile") if name == instruction]


def rendered_chart() -> list[dict[str, Any]]:
    """The chart's objects with its own values; without helm, as good as they can be read."""
    if (helm := which("helm")) is not None:
        ran = subprocess.run([helm, "template", "streams", str(CHART)], capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(ran.stdout))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    objects = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        lines = [line for line in path.read_text().splitlines() if not re.match(r"\s*\{\{-", line)]
        text = "\n".join(lines).replace(" | quote", "").replace(".Release.Name", "'streams'")
        text = re.sub(r"\{\{ \.Values\.(\w+)\.(\w+) \}\}", lambda at: str(values[at[1]][at[2]] or "none"), text)
        text = re.sub(r"\{\{ \.Values\.(\w+) \}\}", lambda at: str(values[at[1]] or "none"), text)
        objects.append(yaml.safe_load(re.sub(r"\{\{.*?\}\}", "streams", text)))
    return objects


def test_container_copies_what_exists_and_what_the_builder_is_sent() -> None:
    """Other files of the repository are not sent."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [line.split()[0] for line in arguments("COPY") if not line.startswith("--from")]
    assert sources == ["requirements/run.txt", "shared/fluvial"]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored
    assert "*" in ignored


def test_container_runs_as_a_user_whose_volume_keeps_the_streams() -> None:
    """Its settings are valid, its port is the default one, and it stops as the server expects."""
    variables = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments("ENV"))))
    settings = settings_from_environment(variables)
    assert arguments("VOLUME") == [settings.data_dir] == ["/data"]
    assert settings.host == "0.0.0.0"  # noqa: S104  all that reach the container
    assert arguments("EXPOSE") == [str(Settings().port)]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    [user] = arguments("USER")
    assert user.split(":")[0].isdigit()  # Kubernetes can see that it is not root
    assert json.loads(arguments("CMD")[0]) == ["fluvial", "serve"]
    assert f":{Settings().port}/health" in arguments("HEALTHCHECK")[0]


def test_compose_keeps_the_volume_and_waits_for_the_shutdown() -> None:
    """It publishes the port on loopback alone."""
    service = yaml.safe_load((PACKAGING / "compose.yaml").read_text())["services"]["fluvial"]
    assert (PACKAGING / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert service["volumes"] == ["fluvial:/data"]
    assert service["ports"] == [f"127.0.0.1:{Settings().port}:{Settings().port}"]
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().shutdown_timeout
    assert service["read_only"] is True


def unit_value(name: str) -> str:
    """The unit's value of a setting that it has once."""
    [value] = re.findall(rf"(?m)^{name}=(.*)$", UNIT.read_text())
    return str(value)


def test_unit_keeps_the_streams_in_its_state_folder_and_waits_for_the_shutdown() -> None:
    """The folder is made by systemd, which kills no server that is finishing its requests."""
    assert unit_value("Environment") == f"FLUVIAL_DATA_DIR=/var/lib/{unit_value('StateDirectory')}"
    assert float(unit_value("TimeoutStopSec").removesuffix("s")) > Settings().shutdown_timeout


@pytest.mark.medium
@pytest.mark.skipif(which("systemd-analyze") is None, reason="needs systemd")
def test_unit_is_valid_and_exposes_little(tmp_path: Path) -> None:
    """By systemd's own check, once the program exists."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/fluvial/bin/fluvial", "/bin/true"))
    for command in (["verify"], ["security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}"]):
        ran = subprocess.run(["systemd-analyze", *command, str(unit)], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def test_chart_runs_one_hardened_server_of_this_version() -> None:
    """Its probes, port, volume and time to stop are the server's."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
    objects = {one["kind"]: one for one in rendered_chart()}
    replicas, pod = objects["StatefulSet"]["spec"]["replicas"], objects["StatefulSet"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert replicas == 1
    assert pod["terminationGracePeriodSeconds"] > Settings().shutdown_timeout
    assert pod["enableServiceLinks"] is False
    assert container["ports"][0]["containerPort"] == Settings().port
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert (
        objects["Service"]["spec"]["selector"].items()
        <= objects["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
    )
