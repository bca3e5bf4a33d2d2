"""Facts from the OpenAPI description of Grafana's HTTP API, for the operations that provisioning uses.

Taken: paths, methods, parameters, fields, types, required fields, enumerations, limits and status codes of
public/api-merged.json of grafana/grafana at commit e36ea787712df453c31e48aefdbf2ba8fd7897d5, as stated by the models
and responses of github.com/grafana/grafana-openapi-client-go v0.0.0-20260330113218-ee77c4f6f90e (Apache-2.0), which are
generated from it. Not taken: any text or code. Statuses that servers answer and it leaves out are `UNDESCRIBED`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
ANY: Schema = {}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
UID: Schema = {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-zA-Z0-9-_]+$"}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 190}


def many(one: Schema) -> Schema:
    return {"type": "array", "items": one}


def maybe(one: Schema) -> Schema:
    """What Go leaves null when it is empty."""
    return {"anyOf": [one, {"type": "null"}]}


def fields(required: tuple[str, ...] = (), **known: Schema) -> Schema:
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


RELATIVE_TIME_RANGE = fields(**{"from": NUMBER, "to": NUMBER})
ALERT_QUERY = fields(
    datasourceUid=TEXT, model=ANY, queryType=TEXT, refId=TEXT, relativeTimeRange=maybe(RELATIVE_TIME_RANGE)
)
NOTIFICATION_SETTINGS = fields(
    ("receiver",),
    active_time_intervals=many(TEXT),
    group_by=many(TEXT),
    group_interval=TEXT,
    group_wait=TEXT,
    mute_time_intervals=many(TEXT),
    receiver=TEXT,
    repeat_interval=TEXT,
)
PROVISIONED_ALERT_RULE = fields(
    ("condition", "data", "execErrState", "folderUID", "for", "noDataState", "orgID", "ruleGroup", "title"),
    annotations=TEXTS,
    condition=TEXT,
    data=many(ALERT_QUERY),
    execErrState={"enum": ["OK", "Alerting", "Error"]},
    folderUID=TEXT,
    id=NUMBER,
    isPaused=TRUTH,
    keep_firing_for=TEXT,
    labels=TEXTS,
    missingSeriesEvalsToResolve=NUMBER,
    noDataState={"enum": ["Alerting", "NoData", "OK"]},
    notification_settings=maybe(NOTIFICATION_SETTINGS),
    orgID=NUMBER,
    provenance=TEXT,
    record=maybe({"type": "object"}),
    ruleGroup=NAME,
    title=NAME,
    uid=UID,
    updated=TEXT,
    **{"for": TEXT},
)
ALERT_RULE_GROUP = fields(folderUid=TEXT, interval=NUMBER, rules=many(PROVISIONED_ALERT_RULE), title=TEXT)
CONTACT_POINT_TYPES = (
    *("alertmanager", "dingding", "discord", "email", "googlechat", "kafka", "line", "opsgenie", "pagerduty"),
    *("pushover", "sensugo", "slack", "teams", "telegram", "threema", "victorops", "webhook", "wecom"),
)
EMBEDDED_CONTACT_POINT = fields(
    ("settings", "type"),
    disableResolveMessage=TRUTH,
    name=TEXT,
    provenance=TEXT,
    settings={"type": "object"},
    type={"enum": list(CONTACT_POINT_TYPES)},
    uid=UID,
)
ROUTE = fields(
    active_time_intervals=many(TEXT),
    group_by=many(TEXT),
    group_interval=TEXT,
    group_wait=TEXT,
    match=TEXTS,
    match_re=TEXTS,
    matchers=many(ANY),
    mute_time_intervals=many(TEXT),
    object_matchers=many(many(TEXT)),
    provenance=TEXT,
    receiver=TEXT,
    repeat_interval=TEXT,
    routes=many({"$ref": "#/$defs/route"}),
    **{"continue": TRUTH},
)
ROUTE["$defs"] = {"route": {name: value for name, value in ROUTE.items() if name != "$defs"}}
CREATE_FOLDER = fields(description=TEXT, parentUid=TEXT, title=TEXT, uid=TEXT)
UPDATE_FOLDER = fields(description=TEXT, overwrite=TRUTH, title=TEXT, version=NUMBER)
FOLDER = fields(
    **dict.fromkeys(("canAdmin", "canDelete", "canEdit", "canSave", "hasAcl"), TRUTH),
    **dict.fromkeys(("created", "createdBy", "managedBy", "parentUid", "title"), TEXT),
    **dict.fromkeys(("uid", "updated", "updatedBy", "url"), TEXT),
    **dict.fromkeys(("id", "orgId", "version"), NUMBER),
    accessControl=ANY,
    parents=many(ANY),
)
SAVE_DASHBOARD = fields(
    UpdatedAt=TEXT,
    dashboard={"type": "object"},
    folderId=NUMBER,
    folderUid=TEXT,
    isFolder=TRUTH,
    message=TEXT,
    overwrite=TRUTH,
    userId=NUMBER,
)
SAVED_DASHBOARD = fields(
    ("id", "status", "title", "uid", "url", "version"),
    folderUid=TEXT,
    id=NUMBER,
    status=TEXT,
    title=TEXT,
    uid=TEXT,
    url=TEXT,
    version=NUMBER,
)
DASHBOARD_META = fields(
    **dict.fromkeys(("canAdmin", "canDelete", "canEdit", "canSave", "canStar", "hasAcl", "isFolder"), TRUTH),
    **dict.fromkeys(("isSnapshot", "isStarred", "provisioned", "publicDashboardEnabled"), TRUTH),
    **dict.fromkeys(("apiVersion", "created", "createdBy", "expires", "folderTitle", "folderUid"), TEXT),
    **dict.fromkeys(("folderUrl", "provisionedExternalId", "slug", "type", "updated", "updatedBy", "url"), TEXT),
    annotationsPermissions=ANY,
    folderId=NUMBER,
    version=NUMBER,
)
DASHBOARD_WITH_META = fields(dashboard={"type": "object"}, meta=DASHBOARD_META)
DASHBOARD_VERSION = fields(
    **dict.fromkeys(("created", "createdBy", "message", "uid"), TEXT),
    **dict.fromkeys(("dashboardId", "id", "parentVersion", "restoredFrom", "version"), NUMBER),
    data=ANY,
)
DASHBOARD_VERSIONS = fields(continueToken=TEXT, versions=many(DASHBOARD_VERSION))
HIT = fields(
    **dict.fromkeys(("description", "folderTitle", "folderUid", "folderUrl", "slug", "sortMetaName", "title"), TEXT),
    **dict.fromkeys(("type", "uid", "uri", "url", "permanentlyDeleteDate"), TEXT),
    **dict.fromkeys(("folderId", "id", "orgId", "sortMeta"), NUMBER),
    isDeleted=TRUTH,
    isStarred=TRUTH,
    tags=many(TEXT),
)
DATA_SOURCE = fields(
    **dict.fromkeys(("access", "database", "name", "type", "typeLogoUrl", "typeName", "uid", "url", "user"), TEXT),
    **dict.fromkeys(("basicAuth", "isDefault", "readOnly"), TRUTH),
    **dict.fromkeys(("id", "orgId"), NUMBER),
    jsonData={"type": "object"},
)
HEALTH = fields(**dict.fromkeys(("commit", "database", "enterpriseCommit", "version"), TEXT))
ERROR = {"type": "object", "properties": {"message": TEXT}, "required": ["message"]}
DELETED_DASHBOARD = fields(("message", "title", "uid"), message=TEXT, title=TEXT, uid=TEXT)
MESSAGE = {"type": "object", "properties": {"message": TEXT}}


@dataclass(frozen=True)
class Operation:
    """What an operation takes, and what it answers by status; None for no body."""

    answers: Mapping[int, Schema | None]
    body: Schema | None = None
    parameters: frozenset[str] = frozenset()


def errors(*statuses: int) -> dict[int, Schema | None]:
    return dict.fromkeys(statuses, ERROR)


_RULES = "/v1/provisioning/alert-rules"
_GROUP = "/v1/provisioning/folder/{FolderUID}/rule-groups/{Group}"
_POINTS = "/v1/provisioning/contact-points"
_POLICIES = "/v1/provisioning/policies"
_SEARCH = "dashboardIds dashboardUIDs deleted folderIds folderUIDs limit page permission query sort starred tag type"

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/health"): Operation({200: HEALTH, 503: HEALTH}),
    ("GET", "/datasources"): Operation({200: many(DATA_SOURCE), **errors(401, 403, 500)}),
    ("GET", "/datasources/proxy/uid/{uid}/{datasource_proxy_route}"): Operation(
        {200: ANY, **errors(400, 401, 403, 404, 500)}, parameters=frozenset({"query"})
    ),
    ("GET", "/folders/{folder_uid}"): Operation({200: FOLDER, **errors(401, 403, 404, 500)}),
    ("POST", "/folders"): Operation({200: FOLDER, **errors(400, 401, 403, 409, 500)}, CREATE_FOLDER),
    ("PUT", "/folders/{folder_uid}"): Operation({200: FOLDER, **errors(400, 401, 403, 404, 409, 500)}, UPDATE_FOLDER),
    ("GET", "/search"): Operation({200: many(HIT), **errors(401, 422, 500)}, parameters=frozenset(_SEARCH.split())),
    ("GET", "/dashboards/uid/{uid}"): Operation({200: DASHBOARD_WITH_META, **errors(401, 403, 404, 406, 500)}),
    ("GET", "/dashboards/uid/{uid}/versions"): Operation(
        {200: DASHBOARD_VERSIONS, **errors(401, 403, 404, 500)}, parameters=frozenset({"limit", "start"})
    ),
    ("POST", "/dashboards/db"): Operation(
        {200: SAVED_DASHBOARD, **errors(400, 401, 403, 404, 412, 422, 500)}, SAVE_DASHBOARD
    ),
    ("DELETE", "/dashboards/uid/{uid}"): Operation({200: DELETED_DASHBOARD, **errors(401, 403, 404, 500)}),
    ("GET", _RULES): Operation({200: many(PROVISIONED_ALERT_RULE)}),
    ("POST", _RULES): Operation({201: PROVISIONED_ALERT_RULE, **errors(400)}, PROVISIONED_ALERT_RULE),
    ("DELETE", f"{_RULES}/{{UID}}"): Operation({204: None}),
    ("GET", _GROUP): Operation({200: ALERT_RULE_GROUP, **errors(404)}),
    ("PUT", _GROUP): Operation({200: ALERT_RULE_GROUP, **errors(400)}, ALERT_RULE_GROUP),
    ("GET", _POINTS): Operation({200: many(EMBEDDED_CONTACT_POINT)}, parameters=frozenset({"name"})),
    ("POST", _POINTS): Operation({202: EMBEDDED_CONTACT_POINT, **errors(400)}, EMBEDDED_CONTACT_POINT),
    ("PUT", f"{_POINTS}/{{UID}}"): Operation({202: MESSAGE, **errors(400)}, EMBEDDED_CONTACT_POINT),
    ("DELETE", f"{_POINTS}/{{UID}}"): Operation({202: MESSAGE}),
    ("GET", _POLICIES): Operation({200: ROUTE}),
    ("PUT", _POLICIES): Operation({202: MESSAGE, **errors(400)}, ROUTE),
}
"""What the description says, by method and path below /api."""

UNDESCRIBED = frozenset({401, 403, 404, 409, 500})
"""Statuses of /v1/provisioning that its description leaves out.

401 and 403 are described for all else; the others, and 403 for a quota, stand in
pkg/services/ngalert/api/api_provisioning.go of grafana/grafana (commit 003dc7763721f09c7daa6001e39be89ddcbfc2a5): 404
for a contact point that is to be replaced, 409 for conflicts, 500 for whatever else goes wrong.
"""
