"""The agent's container, watched: mini-swe-agent's own class, which also notices that its container is gone.

mini-swe-agent loads it by its name, in its own process (`environment_class`).

`docker exec` in a container that has ended, or of an engine that does not answer, prints the engine's words and ends
with 1. The agent takes that for what a command said and shows it to the model, until a limit ends the trajectory
without a patch, and the model is blamed. The words prove nothing: a model's command can print the same, and end with 1
too. So after each command that failed the engine is asked whether the container still runs. No model can answer for it,
nor end the container from inside (its first process takes no signal from there).
"""

from __future__ import annotations

import subprocess
from typing import Any

from minisweagent.environments.docker import DockerEnvironment

ENGINE_SECONDS = 60
"""The engine says within this time whether a container runs, or it counts as broken."""


class ContainerGoneError(Exception):
    """It ends the trajectory; mini-swe-agent keeps this name as the exit status."""


class WatchedContainer(DockerEnvironment):
    """A container whose end is an error and not an observation."""

    def execute(self, action: dict[str, Any], cwd: str = "", *, timeout: int | None = None) -> dict[str, Any]:
        """Run a command. Raises ContainerGoneError: it failed, and the engine does not say that the container runs."""
        output = super().execute(action, cwd, timeout=timeout)
        if output["returncode"] != 0 and not self._runs():
            said = str(output["output"] or output["exception_info"]).strip()[:200]
            raise ContainerGoneError(f"the container ended, or its engine does not answer: {said}")
        return output

    def _runs(self) -> bool:
        question = ["container", "inspect", "--format", "{{.State.Running}}", str(self.container_id)]
        try:
            found = subprocess.run(
                [self.config.executable, *question],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ENGINE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return found.returncode == 0 and found.stdout.strip() == "true"
