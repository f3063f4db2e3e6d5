"""What the gateway sent and answered, against the providers' own specifications.

Every request that the scripted upstreams received and every answer or event that a caller received in `test_matrix` is
checked: OpenAI's and Anthropic's by their OpenAPI documents, Google's by its protocol buffers, strictly, so that an
unknown field is a failure. The documents are not part of the project: where they are absent, the check is skipped and
says so.
"""

import json
import tempfile
import unittest
from collections import Counter
from pathlib import Path

import jsonschema
import test_matrix
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SPECS = Path(__file__).resolve().parents[4] / "shared/reference/specs"
GEMINI = "google/ai/generativelanguage/v1beta"
#: A file of Google's that the others import and that is not among them: what we speak has none of its messages.
MISSING = {"retriever.proto": f'syntax = "proto3"; package {GEMINI.replace("/", ".")}; message MetadataFilter {{}}'}
#: Where OpenAI's schemas demand more than its own examples and servers give: null before there is a value.
NULL_AT = {
    "CreateChatCompletionStreamResponse": ["usage"],
    "ResponseCreatedEvent": ["response/usage"],
    "ResponseInProgressEvent": ["response/usage"],
    "ResponseFailedEvent": ["response/usage"],
}
#: Failures that are told for one run.
TOLD_MAX = 40

#: The schema of what a dialect calls by its type; OpenAI's and Anthropic's documents have one for each event.
EVENT_UNIONS = {"responses": "ResponseStreamEvent", "messages": "MessageStreamEvent"}


class OpenApi:
    """An OpenAPI document whose schemas can be asked by name."""

    def __init__(self, path):
        text = path.read_text()
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.document = json.loads(text) if path.suffix == ".json" else yaml.load(text, loader)
        as_meant(self.document)
        self.uri = f"urn:{path.stem}"
        self.schemas = self.document["components"]["schemas"]
        resource = Resource.from_contents(self.document, default_specification=DRAFT202012)
        self.registry = Registry().with_resource(self.uri, resource)

    def faults(self, name, value):
        """What is wrong with a value, by the schema of that name; nulls that it forbids by mistake are left out of it."""
        for place in NULL_AT.get(name, []):
            value = without_null(value, place.split("/"))
        schema = {"$ref": f"{self.uri}#/components/schemas/{name}"}
        validator = jsonschema.Draft202012Validator(schema, registry=self.registry)
        return [told(error) for error in validator.iter_errors(value)]

    def fields(self, name):
        """All fields that an object of that schema can have."""
        schema = self.schemas[name]
        found = set(schema.get("properties", {}))
        for part in schema.get("allOf", []):
            found |= self.fields(part["$ref"].split("/")[-1]) if "$ref" in part else set(part.get("properties", {}))
        return found

    def events(self, name):
        """The schema of each type of event in a union."""
        schema, events = self.schemas[name], {}
        for part in schema.get("anyOf", []) + schema.get("oneOf", []):
            event = part["$ref"].split("/")[-1]
            kind = self.schemas[event]["properties"]["type"]
            events[kind["const"] if "const" in kind else kind["enum"][0]] = event
        return events


class Gemini:
    """Google's messages, compiled from their definitions."""

    def __init__(self, specs):
        import grpc_tools

        with tempfile.TemporaryDirectory(prefix="tollgate-protos-") as folder:
            root = Path(folder)
            for source, package in ((specs / "gemini-v1beta-proto", GEMINI), (specs / "google-rpc-proto", "google/rpc")):
                (root / package).mkdir(parents=True)
                for proto in source.glob("*.proto"):
                    (root / package / proto.name).write_text(proto.read_text())
            for name, text in MISSING.items():
                path = root / GEMINI / name
                if not path.exists():
                    path.write_text(text)
            compiled = root / "all.pb"
            # What Google's definitions import comes with `googleapis-common-protos`, beside `google.protobuf`.
            common = Path(grpc_tools.__file__).parents[1]
            wanted = [f"{GEMINI}/generative_service.proto"]
            wanted += [f"google/rpc/{name}.proto" for name in ("status", "error_details", "code")]
            includes = [root, common, Path(grpc_tools.__file__).parent / "_proto"]
            arguments = ["", *(f"-I{include}" for include in includes), f"--descriptor_set_out={compiled}"]
            assert protoc.main([*arguments, "--include_imports", *wanted]) == 0, "the definitions do not compile"
            files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)

    def faults(self, name, value):
        """What is wrong with a value, by the message of that name; an unknown field is."""
        full = name if "." in name else f"{GEMINI.replace('/', '.')}.{name}"
        message = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full))()
        try:
            json_format.ParseDict(value, message, descriptor_pool=self.pool)
        except json_format.ParseError as error:
            return [f"{name}: {error}"]
        return []

    def error_faults(self, body):
        """`{"error": google.rpc.Status}`, which in JSON has the name of its code too."""
        error = dict(body["error"])
        status = error.pop("status")
        codes = self.pool.FindEnumTypeByName("google.rpc.Code").values_by_name
        unknown = [] if status in codes else [f"{status} is none of google.rpc.Code"]
        return unknown + self.faults("google.rpc.Status", error)


def as_meant(schema):
    """A schema as its authors use it.

    Where it says `nullable`, as OpenAPI did before 3.1, null is one of the types. Where it says `oneOf`, several may fit: a
    message of the user is both an easy and a full item of Responses' input.
    """
    if isinstance(schema, list):
        for element in schema:
            as_meant(element)
    elif isinstance(schema, dict):
        if isinstance(schema.get("oneOf"), list) and "anyOf" not in schema:
            schema["anyOf"] = schema.pop("oneOf")
        if schema.get("nullable") is True:
            if isinstance(schema.get("type"), str):
                schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        for member in schema.values():
            as_meant(member)


def without_null(value, place):
    """A copy without the member at a place, where it is null."""
    name, *rest = place
    if name == "*" and isinstance(value, list):
        return [without_null(element, rest) for element in value]
    if not isinstance(value, dict) or name not in value:
        return value
    if not rest:
        return {key: kept for key, kept in value.items() if key != name or kept is not None}
    return {**value, name: without_null(value[name], rest)}


def told(error):
    """The deepest reason: of alternatives, those of the best match."""
    best = jsonschema.exceptions.best_match([error])
    return f"{'/'.join(map(str, best.absolute_path)) or 'body'}: {best.message[:300]}"


@unittest.skipUnless(SPECS.exists(), f"SKIPPED: the providers' specifications are not at {SPECS}, nothing was compared")
class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.openai = OpenApi(SPECS / "openai-openapi.yaml")
        cls.anthropic = OpenApi(SPECS / "anthropic-openapi.json")
        cls.google = Gemini(SPECS)

    def test_requests_are_as_their_provider_specifies(self):
        checked = self.check("request", self.request_faults)
        self.assertTrue({"chat", "messages", "gemini"} <= checked.keys(), checked)

    def test_answers_are_as_the_dialect_of_the_caller_specifies(self):
        checked = self.check("answer", self.answer_faults)
        self.assertTrue({"chat", "responses", "messages", "gemini"} <= checked.keys(), checked)

    def check(self, side, faults_of):
        """How many were checked, by dialect. All faults are told, each kind once."""
        exchanges = [exchange for exchange in getattr(test_matrix.Matrix, "exchanges", []) if exchange["side"] == side]
        if not exchanges:
            self.skipTest("SKIPPED: no scenario of test_matrix ran, nothing was compared")
        checked, faults = Counter(), {}
        for exchange in exchanges:
            checked[exchange["dialect"]] += 1
            who = f"{exchange['scenario']}: {exchange['caller']} over {exchange['upstream']}"
            for fault in faults_of(exchange):
                faults.setdefault((exchange["dialect"], fault), []).append(who)
        print(f"{side}s compared: {dict(checked)}")
        lines = [f"{dialect}: {fault}\n    {len(who)} times, as in {who[0]}" for (dialect, fault), who in faults.items()]
        self.assertFalse(faults, f"{len(lines)} kinds of faults:\n" + "\n".join(lines[:TOLD_MAX]))
        return checked

    def request_faults(self, exchange):
        body = json.loads(exchange["body"])
        match exchange["dialect"]:
            case "chat":
                return self.openai_faults("CreateChatCompletionRequest", body)
            case "embeddings":
                return self.openai_faults("CreateEmbeddingRequest", body)
            case "responses":
                return self.openai_faults("CreateResponse", body)
            case "messages":
                return self.anthropic.faults("CreateMessageParams", body)
            case _:
                # The path has the model, which the message has as a field.
                name = {"batchEmbedContents": "BatchEmbedContentsRequest", "embedContent": "EmbedContentRequest"}
                method = exchange["line"].split(" ")[1].split("?")[0].rsplit(":", 1)[1]
                return self.google.faults(name.get(method, "GenerateContentRequest"), body)

    def openai_faults(self, name, body):
        """OpenAI's schemas let unknown fields through, its servers do not."""
        unknown = body.keys() - self.openai.fields(name)
        return self.openai.faults(name, body) + [f"{field} is no field of {name}" for field in sorted(unknown)]

    def answer_faults(self, exchange):
        dialect, body = exchange["dialect"], exchange["body"]
        if exchange["type"].startswith("text/event-stream"):
            return self.stream_faults(dialect, events_of(body))
        try:
            body = json.loads(body)
        except ValueError:
            return [f"{exchange['status']} {exchange['line']}: not JSON: {body[:100]!r}"]
        if exchange["status"] != 200:
            return self.error_faults(dialect, body)
        match dialect, exchange["kind"]:
            case "chat", "embeddings":
                return self.openai.faults("CreateEmbeddingResponse", body)
            case "chat", _:
                return self.openai.faults("CreateChatCompletionResponse", body)
            case "responses", "count":
                return self.openai.faults("TokenCountsResource", body)
            case "responses", _:
                return self.openai.faults("Response", body)
            case "messages", "count":
                return self.anthropic.faults("CountMessageTokensResponse", body)
            case "messages", _:
                return self.anthropic.faults("Message", body)
            case _, "count":
                return self.google.faults("CountTokensResponse", body)
            case _, "embeddings":
                return self.google.faults("BatchEmbedContentsResponse", body)
            case _:
                return self.google.faults("GenerateContentResponse", body)

    def error_faults(self, dialect, body):
        match dialect:
            case "messages":
                return self.anthropic.faults("ErrorResponse", body)
            case "gemini":
                return self.google.error_faults(body)
            case _:
                return self.openai.faults("ErrorResponse", body)

    def stream_faults(self, dialect, events):
        match dialect:
            case "chat":
                return self.chat_stream_faults(events)
            case "gemini":
                pieces = [json.loads(data) for _, data in events]
                checks = (self.google.error_faults if "error" in piece else self.piece_faults for piece in pieces)
                return [fault for check, piece in zip(checks, pieces) for fault in check(piece)]
        spec = self.openai if dialect == "responses" else self.anthropic
        schemas = spec.events(EVENT_UNIONS[dialect])
        faults = []
        for number, (name, data) in enumerate(events):
            data = json.loads(data)
            kind = data["type"]
            if name != kind:
                faults.append(f"the event {name} says that it is {kind}")
            if dialect == "messages" and kind == "error":
                # Anthropic's own examples of this event have no request id; the schema is that of whole answers.
                faults += self.anthropic.faults("ErrorResponse", {"request_id": None, **data})
            elif kind in schemas:
                faults += [f"{kind}: {fault}" for fault in spec.faults(schemas[kind], data)]
            elif (dialect, kind) != ("messages", "ping"):
                faults.append(f"{kind} is no event")
            if dialect == "responses" and data["sequence_number"] != number:
                faults.append(f"{kind}: sequence_number is not its place")
        return faults + self.order_faults(dialect, [json.loads(data) for _, data in events])

    def piece_faults(self, piece):
        return self.google.faults("GenerateContentResponse", piece)

    def chat_stream_faults(self, events):
        faults = []
        for _, data in events:
            if data == "[DONE]":
                continue
            data = json.loads(data)
            name = "ErrorResponse" if "error" in data else "CreateChatCompletionStreamResponse"
            faults += self.openai.faults(name, data)
        ended = events[-1][1] == "[DONE]" or "error" in json.loads(events[-1][1])
        return faults if ended else [*faults, "neither [DONE] nor an error ends the stream"]

    def order_faults(self, dialect, events):
        """What begins and ends a stream, and that what is opened within it is closed."""
        kinds = [event["type"] for event in events]
        if dialect == "messages":
            first, last = "message_start", ["message_stop", "error"]
            open_by, close_by, place = "content_block_start", "content_block_stop", "index"
        else:
            first, last = "response.created", ["response.completed", "response.incomplete", "response.failed", "error"]
            open_by, close_by, place = "response.output_item.added", "response.output_item.done", "output_index"
        faults = []
        if kinds[0] != first or kinds[-1] not in last:
            faults.append(f"the stream goes from {kinds[0]} to {kinds[-1]}")
        opened = [event[place] for event in events if event["type"] == open_by]
        closed = [event[place] for event in events if event["type"] == close_by]
        if opened != list(range(len(opened))):
            faults.append(f"{open_by} counts {opened}")
        if kinds[-1] == last[0] and sorted(closed) != opened:
            faults.append(f"{close_by} closes {closed} of {opened}")
        return faults


def events_of(body):
    """Name and data of each event; comments are none."""
    events = []
    for block in body.replace("\r\n", "\n").split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        fields = {line[0]: line[1] for line in lines if len(line) == 2}
        if "data" in fields:
            events.append((fields.get("event"), fields["data"]))
    return events
