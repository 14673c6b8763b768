"""The page that shows the server's OpenAPI document, as a running server answers it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.request import urlopen

from tools.site.repository_links import ROOT

Node = dict[str, Any]

INTRODUCTION = """# Routes by OpenAPI

Every route that a running server describes at `/openapi.json`, from which generators make clients. This page is made
from that document. [HTTP API](http.md) explains the routes of streams, and [Limits and
errors](../limits-and-errors.md#error-codes) the error codes.
"""

BANNER = re.compile(r"(http://[^/\s]+)/v1/stream/")


def openapi_page() -> str:
    """The page's Markdown."""
    document = fetch_document()
    schemas = document.get("components", {}).get("schemas", {})
    return "\n".join((INTRODUCTION, *routes(document), *bodies(schemas)))


def fetch_document() -> Node:
    """Start a server that keeps nothing, and ask it."""
    command = [sys.executable, "-m", "fluvial", "serve", "--port", "0", "--store", "memory"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "shared")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = next((found for line in process.stdout if (found := BANNER.search(line))), None)
            assert found is not None, "the server did not start"
            with urlopen(f"{found[1]}/openapi.json", timeout=10) as answer:  # noqa: S310  this machine's
                document: Node = json.load(answer)
                return document
        finally:
            process.terminate()


def routes(document: Node) -> Iterator[str]:
    """A section for each path, and below it each method."""
    for path, methods in sorted(document["paths"].items()):
        yield f"## `{path}`\n"
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method == "parameters":
                continue
            yield f"### {method.upper()} `{path}` {{: #{anchor(method, path)} }}\n"
            text = operation.get("description") or operation.get("summary", "")
            yield f"{text}\n"
            parameters = [resolve(document, parameter) for parameter in (*shared, *operation.get("parameters", []))]
            if parameters:
                yield "| parameter | in | type | |\n| --- | --- | --- | --- |"
                yield from (parameter_row(parameter) for parameter in parameters)
                yield ""
            body = resolve(document, operation.get("requestBody", {})).get("content", {})
            yield from (f"Body, `{kind}`: {type_of(media.get('schema', {}))}\n" for kind, media in body.items())
            yield "| status | answer |\n| --- | --- |"
            for status, response in sorted(operation["responses"].items()):
                yield response_row(status, resolve(document, response))
            yield ""


def anchor(method: str, path: str) -> str:
    """The name of a method's section."""
    return re.sub(r"[^a-z0-9]+", "-", f"{method} {path}".lower()).strip("-")


def resolve(document: Node, node: Node) -> Node:
    """What a reference refers to."""
    reference = node.get("$ref")
    if reference is None:
        return node
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


def parameter_row(parameter: Node) -> str:
    """A line of the table of parameters."""
    schema = parameter.get("schema", {})
    required = "required" if parameter.get("required") else "optional"
    default = f", `{json.dumps(schema['default'])}` unless set" if "default" in schema else ""
    text = cell(parameter.get("description") or schema.get("description", ""))
    return (
        f"| `{parameter['name']}` | {parameter['in']} | {type_of(schema)} | {required}{default}. {text}".rstrip() + " |"
    )


def response_row(status: str, response: Node) -> str:
    """A line of the table of answers."""
    phrase = HTTPStatus(int(status)).phrase if status.isdecimal() else ""
    kinds = ", ".join(
        f"`{kind}`" + (f" {type_of(schema)}" if (schema := media.get("schema")) else "")
        for kind, media in response.get("content", {}).items()
    )
    text = cell(response.get("description", ""))
    words = [] if text.rstrip(".") in {phrase, "Successful Response"} else [text]
    return f"| {status} {phrase} | {' '.join((*words, kinds)).strip()} |"


def bodies(schemas: Node) -> Iterator[str]:
    """A table for each schema."""
    if schemas:
        yield "## Schemas\n"
    for name, schema in sorted(schemas.items()):
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{schema['description']}\n"
        fields = schema.get("properties", {})
        if not fields:
            yield f"{type_of(schema)}\n"
            continue
        required = set(schema.get("required", ()))
        yield "| field | type | |\n| --- | --- | --- |"
        for field, value in fields.items():
            must = "required" if field in required else "optional"
            yield f"| `{field}` | {type_of(value)} | {must}. {cell(value.get('description', ''))}".rstrip() + " |"
        yield ""


def type_of(schema: Node) -> str:
    """A type in words, with a link to what it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(type_of(choice) for choice in schema[key]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"array of {type_of(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def cell(text: str) -> str:
    """Text that fits into a line of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
