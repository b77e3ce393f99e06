"""The OpenAPI document and its interactive page, served whole from here: no foreign host sees who reads it."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get
from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, OpenAPIType, Schema, SecurityScheme
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from control_plane.access import READERS

SCHEMA_PATH = "/schema"
PAGE_PATH = "/schema/swagger"

_START = """\
window.onload = () => {
  SwaggerUIBundle({url: "/schema/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});
};
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Allotment control plane</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/schema/assets/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/schema/assets/swagger-ui-bundle.js"></script>
<script src="/schema/assets/start.js"></script>
</body>
</html>
"""
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class OfflineSwagger(OpenAPIRenderPlugin):
    """Swagger UI without a script in the page and without a content delivery network."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page; it fetches the document with the credentials that opened it."""
        del request, openapi_schema
        return _PAGE.encode()


class TuplesOfOneKind(OpenAPISchemaPlugin):
    """``tuple[T, ...]`` is an array of T. (Litestar 2.25 says that each item is exactly one of T and anything, which no
    item can be: T is anything, too.)"""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Whether it is such a tuple."""
        return field_definition.origin is tuple and field_definition.args[-1:] == (...,)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """The array."""
        items = schema_creator.for_field_definition(FieldDefinition.from_annotation(field_definition.args[0]))
        return Schema(type=OpenAPIType.ARRAY, items=items)


def _asset(name: str, media_type: str) -> Any:
    body = (swagger_ui_path / name).read_bytes()

    @get(f"/assets/{name}", opt=READERS, include_in_schema=False, name=f"asset {name}")
    async def asset() -> Response[bytes]:
        return Response(body, media_type=media_type, headers={"Cache-Control": "private, max-age=86400"})

    return asset


@get("/assets/start.js", opt=READERS, include_in_schema=False)
async def start_script() -> Response[bytes]:
    """What starts the page: a file, so that the page needs no inline script."""
    return Response(_START.encode(), media_type="text/javascript")


def content_security_policy(content_type: str) -> str:
    """What a browser may load for such an answer: for all but the page, nothing at all."""
    return _CSP if content_type.startswith("text/html") else "default-src 'none'; frame-ancestors 'none'"


def openapi_config(version: str) -> OpenAPIConfig:
    """Where the document is and who may read it."""
    assets = [
        _asset("swagger-ui.css", "text/css"),
        _asset("swagger-ui-bundle.js", "text/javascript"),
        start_script,
    ]
    return OpenAPIConfig(
        title="Allotment control plane",
        version=version,
        description="Plans, customers, subscriptions, usage and balances. Show a token as `Authorization: Bearer`, "
        "or as the password of HTTP Basic. Every error is an RFC 9457 problem.",
        use_handler_docstrings=True,
        render_plugins=[OfflineSwagger(path="/swagger")],
        openapi_router=Router(SCHEMA_PATH, route_handlers=assets, opt=READERS, include_in_schema=False),
        components=Components(
            security_schemes={
                "token": SecurityScheme(type="http", scheme="bearer", bearer_format="alt_<role>_<id>_<secret>"),
                "password": SecurityScheme(type="http", scheme="basic"),
            }
        ),
        security=[{"token": []}, {"password": []}],
    )
