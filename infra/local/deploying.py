"""The template on the local stack: without what MiniStack lacks, and by way of S3, being too long for a request."""

from __future__ import annotations

from collections.abc import Mapping

from streamgauge.infra.clients import Clients
from streamgauge.infra.code_bucket import template_argument
from streamgauge.infra.deployment import deploy, template_text
from streamgauge.infra.local.functions import CODE_BUCKET

__all__ = ["LACKING", "deploy_locally"]

LACKING = {"StreamPolicy": "disabled", "EventArchive": "disabled", "Responder": "disabled"}
"""The template's parameters for what it has and MiniStack lacks.

For the responder that is a queue: MiniStack starts a process for each event at once, dozens of them, and drops what is
too many. The function is there and can be invoked; `aws events enable-rule` has it listen.
"""


def deploy_locally(clients: Clients, *, name: str, parameters: Mapping[str, str], deadline_s: float) -> dict[str, str]:
    """Create the stack and wait for it; its outputs.

    Raises
    ------
    DeploymentFailed
        With the reason of the first resource that failed.
    CodeBucketFailed
        The template cannot be put into S3.
    """
    clients.s3.create_bucket(Bucket=CODE_BUCKET)
    return deploy(
        clients.cloudformation,
        template_argument(clients.s3, CODE_BUCKET, template_text()),
        name=name,
        parameters={**parameters, **LACKING},
        deadline_s=deadline_s,
    )
