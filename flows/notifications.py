"""A message to a webhook when a retraining fails, and when there is a new champion: Prefect's own automations.

The body is JSON with `text`, which is what receivers made for Slack show, and the same in separate fields.
"""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.stage import PawlineError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

BLOCK = "pawline"  # the name of the block that holds the URL
FAILED, PROMOTED = "pawline: {flow} failed", "pawline: new champion"  # the automations' names
# Jinja, rendered by Prefect's server; `tojson` quotes what comes from outside.
FAILED_BODY = """\
{%- set said = flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ": " ~ (flow_run.state.message or "") -%}
{"text": {{ (said ~ " " ~ (flow_run | ui_url)) | tojson }},
 "event": {{ event.event | tojson }},
 "flow": {{ flow.name | tojson }},
 "run": {{ flow_run.name | tojson }},
 "state": {{ flow_run.state.name | tojson }},
 "message": {{ (flow_run.state.message or "") | tojson }},
 "url": {{ flow_run | ui_url | tojson }},
 "occurred": {{ event.occurred.isoformat() | tojson }}}"""
PROMOTED_BODY = """\
{"text": {{ event.payload.text | tojson }},
 "event": {{ event.event | tojson }},
 "version": {{ event.resource.name | tojson }},
 "occurred": {{ event.occurred.isoformat() | tojson }}}"""


def check_url(url: str) -> None:
    """Raise the one line for what is no web address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PawlineError(f"--webhook {origin(url)}: no web address; it begins with https:// or http://")


def origin(url: str) -> str:
    """Return what may be shown of an address, scheme and host: the rest is often a secret."""
    found = re.match(r"(\w+://)?(?:[^/?#]*@)?([^/?#]*)", url)
    return "".join(part or "" for part in found.groups()) if found else ""


def notify(client: "SyncPrefectClient", url: str, *, flow: str) -> None:
    """Send messages to an address from now on, and to no earlier one.

    Args:
        client: Of the server, which is what calls the webhook.
        url: May be an address of the private network.
        flow: The flow whose failures are told.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.types import SecretDict
    from pydantic import SecretStr

    block = Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    block_id = block.save(BLOCK, overwrite=True)
    for automation in (
        _automation(FAILED.format(flow=flow), _failures(flow), FAILED_BODY, block_id),
        _automation(PROMOTED, _promotions(), PROMOTED_BODY, block_id),
    ):
        known = client.read_automations_by_name(automation.name)
        for extra in known[1:]:
            client.delete_automation(extra.id)
        if known:
            client.update_automation(known[0].id, automation)
        else:
            client.create_automation(automation)


def stop(client: "SyncPrefectClient", *, flow: str) -> bool:
    """Send no more messages of a flow, and say whether there were any to be sent.

    New champions are told as long as the failures of any flow are.
    """
    known = client.read_automations_by_name(FAILED.format(flow=flow))
    for automation in known:
        client.delete_automation(automation.id)
    begin, end = FAILED.split("{flow}")
    if not any(one.name.startswith(begin) and one.name.endswith(end) for one in client.read_automations()):
        for automation in client.read_automations_by_name(PROMOTED):
            client.delete_automation(automation.id)
    return bool(known)


def is_on(client: "SyncPrefectClient", *, flow: str) -> bool:
    """Say whether failures of a flow are told to a webhook."""
    return any(one.enabled for one in client.read_automations_by_name(FAILED.format(flow=flow)))


def _automation(name: str, trigger: "EventTrigger", body: str, block_id: Any) -> "AutomationCore":  # noqa: ANN401
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import AutomationCore

    return AutomationCore(
        name=name,
        description="Made by `pawline schedule --webhook`; `pawline schedule --off` removes it.",
        enabled=True,
        trigger=trigger,
        actions=[CallWebhook(block_document_id=block_id, payload=body)],
    )


def _failures(flow: str) -> "EventTrigger":
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": flow}),
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _promotions() -> "EventTrigger":
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "pawline.champion"}),
        expect={"pawline.promoted"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
