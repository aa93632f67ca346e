"""``streamgauge deploy``: the template and its functions, into the local stack or into an account."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from streamgauge.cli.context import home, live_clients, live_options
from streamgauge.cli.local_stack import EVENT_SOURCE, refresh_local_stack
from streamgauge.cli.output import print_json, print_table, say
from streamgauge.infra.change_sets import (
    TEMPLATE_BODY_BYTES_MAX,
    Plan,
    carry_out,
    delete_stack,
    discard,
    kept_resources,
    plan_changes,
)
from streamgauge.infra.clients import Clients
from streamgauge.infra.code_bucket import code_bucket_name, ensure_code_bucket, template_argument
from streamgauge.infra.deployment import PIPELINE_TAG, stack_name, stack_parameters, template_text
from streamgauge.infra.local.deploying import LACKING
from streamgauge.infra.local.functions import CODE_BUCKET, runtime
from streamgauge.infra.local.stack import StackInfo, load_stack
from streamgauge.infra.packaging.build import build_package
from streamgauge.infra.packaging.lock import ARCHITECTURES, PYTHON_VERSIONS, Target
from streamgauge.infra.packaging.upload import upload_package
from streamgauge.infra.stack_state import stack_outputs
from streamgauge.processors.hosts.pipeline_file import load_pipeline

__all__ = ["command"]

_DEADLINE_S = 3_600.0


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the stack is: ``local`` is the running local stack, None an account."""

    clients: Clients
    stack: str
    account: str
    local: StackInfo | None

    @property
    def has_functions(self) -> bool:
        """Whether the stack's functions are deployed; a local stack that was started for another host has none."""
        return self.local is None or any(process.name == EVENT_SOURCE for process in self.local.processes)

    def __str__(self) -> str:
        where = "the local stack" if self.local else f"account {self.account}, {self.clients.region}"
        return f"stack {self.stack} in {where}"


@click.command("deploy")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@live_options
@click.option("--shards", type=click.IntRange(1, 500), help="Open shards of the stream; as they are, or 1, without.")
@click.option("--python-version", type=click.Choice(PYTHON_VERSIONS), default=PYTHON_VERSIONS[-1], show_default=True)
@click.option("--architecture", type=click.Choice(ARCHITECTURES), default=ARCHITECTURES[0], show_default=True)
@click.option("--code-bucket", metavar="NAME", help="Where packages go; a bucket of the account, made if need be.")
@click.option("--parameter", "given", multiple=True, metavar="KEY=VALUE", help="A template parameter; repeat it.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of every resource; repeat it.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--delete", is_flag=True, help="Delete the stack; says what is kept.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print changes and outputs as JSON.")
def command(
    *,
    pipeline: str | None,
    live: bool,
    stack: str | None,
    shards: int | None,
    python_version: str,
    architecture: str,
    code_bucket: str | None,
    given: Sequence[str],
    tags: Sequence[str],
    dry_run: bool,
    delete: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Deploy a pipeline: package its functions, and create or update the stack of the template.

    Without --live it works on the local stack that runs here. Parameters that are not given stay as they are.
    """
    site, path = _site(pipeline, live=live, stack=stack)
    if delete:
        return _delete(site, dry_run=dry_run, yes=yes, as_json=as_json)
    definition = load_pipeline(path)
    for warning in definition.warnings:
        say(f"warning: {path}: {warning}")
    template = template_text()
    bucket = _bucket(site, code_bucket, is_needed=not dry_run or len(template.encode()) > TEMPLATE_BODY_BYTES_MAX)
    parameters = stack_parameters(definition, shards=shards) | (LACKING if site.local else {})
    if site.has_functions:
        target = None if site.local else Target(python_version, architecture)
        parameters |= _code(site, path, bucket, target, upload=not dry_run)
    plan = plan_changes(
        site.clients.cloudformation,
        template_argument(site.clients.s3, bucket, template),
        name=site.stack,
        parameters=parameters | _pairs(given, "--parameter"),
        tags=_pairs(tags, "--tag") | {PIPELINE_TAG: definition.name},
        deadline_s=_DEADLINE_S,
    )
    outputs = _carried_out(site, plan, path, shards=shards, dry_run=dry_run, yes=yes)
    if as_json:
        print_json({"stack": site.stack, "changes": [str(change) for change in plan.changes], "outputs": outputs})
    elif outputs:
        print_table(str(site), ["output", "value"], sorted(outputs.items()))
    return 0


def _site(pipeline: str | None, *, live: bool, stack: str | None) -> tuple[_Site, Path]:
    """Where to deploy, and the pipeline's file."""
    if not live:
        if stack is not None:
            raise click.UsageError("--stack goes with --live: the local stack of a folder needs no name")
        info = load_stack(home())
        clients = Clients(info.endpoints, region=info.region)
        return _Site(clients, info.stack_name, info.account, info), Path(pipeline or info.pipeline_file)
    if pipeline is None:
        raise click.UsageError("--live needs --pipeline FILE")
    clients = live_clients()
    name = stack or stack_name(load_pipeline(Path(pipeline)).name)
    return _Site(clients, name, clients.account, None), Path(pipeline)


def _bucket(site: _Site, name: str | None, *, is_needed: bool) -> str:
    """The bucket for packages and templates, made if it `is_needed` now and the account lacks it."""
    bucket = name or (CODE_BUCKET if site.local else code_bucket_name(site.account, site.clients.region))
    if is_needed and ensure_code_bucket(site.clients.s3, bucket, account=site.account, region=site.clients.region):
        say(f"made the bucket {bucket} for packages and templates")
    return bucket


def _code(site: _Site, pipeline_file: Path, bucket: str, target: Target | None, *, upload: bool) -> dict[str, str]:
    """Build the functions' package and put it into the bucket; the template's parameters that say so."""
    with tempfile.TemporaryDirectory(prefix="streamgauge-deploy-") as folder:
        package = build_package(pipeline_file, Path(folder), target=target, say=say)
        if upload:
            say(f"uploading it to s3://{bucket} ...")
            upload_package(site.clients.s3, bucket, package)
    code = {"CodeBucket": bucket, "CodeKey": package.path.name}
    if target is None:
        return code | runtime()
    return code | {"Runtime": f"python{target.python_version}", "Architecture": target.architecture}


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
        found[key] = value
    return found


def _carried_out(
    site: _Site, plan: Plan, pipeline_file: Path, *, shards: int | None, dry_run: bool, yes: bool
) -> Mapping[str, str]:
    """Show the plan, and carry it out unless it is a dry run; the stack's outputs."""
    client = site.clients.cloudformation
    if not plan.changes:
        say(f"{site} is as it should be: nothing changes")
        return stack_outputs(client, site.stack)
    say(f"{site}, {'a new one' if plan.is_new else 'an update'}:")
    for change in plan.changes:
        say(f"  {change}")
    try:
        if dry_run:
            say("a dry run: nothing was changed")
            discard(client, plan)
            return {}
        if not site.local and not yes:
            click.confirm("Carry this out?", abort=True, err=True)
    except click.Abort:
        discard(client, plan)
        raise
    try:
        outputs = carry_out(client, plan, deadline_s=_DEADLINE_S, on_event=lambda line: say(f"  {line}"))
    except KeyboardInterrupt:
        say("CloudFormation goes on without us; deploy again to see where it stands")
        raise
    if site.local:
        refresh_local_stack(site.local, outputs, pipeline_file, shards=shards)
    return outputs


def _delete(site: _Site, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    if site.local:
        raise click.UsageError("the local stack is deleted by `streamgauge down`, with all of its data")
    client = site.clients.cloudformation
    kept = kept_resources(client, site.stack)
    say(f"{site} is to be deleted. What holds data stays, and costs, until you delete it yourself:")
    for line in kept:
        say(f"  {line}")
    if dry_run:
        say("a dry run: nothing was deleted")
    else:
        if not yes:
            click.confirm("Delete the rest?", abort=True, err=True)
        delete_stack(client, site.stack, deadline_s=_DEADLINE_S, on_event=lambda line: say(f"  {line}"))
        say("deleted")
    if as_json:
        print_json({"stack": site.stack, "deleted": not dry_run, "kept": kept})
    return 0
