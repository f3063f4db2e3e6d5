"""Every official SDK with every family of providers: one list of scenarios, `../scenarios.json`.

Each outcome is one of `supported`, `drops` (with what is named in `x-tollgate-dropped`), `partly` (with what does not reach
the provider), `refused` (with its status) or `absent` (the dialect has no such thing, so there is nothing to call). Any but
the first is listed there with its reason. What was found is left in `MATRIX_RESULTS`, for the page of the documentation and for `conformance.py`.
"""

import json
import os
import re
import socket
import unittest
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from callers import CALLERS, Failed
from gateway import UPSTREAM_SECRET, Gateway, Mock, usd

SCENARIOS = json.loads((Path(__file__).parent.parent / "scenarios.json").read_text())

CONFIG = """
[[upstreams]]
name = "openai"
provider = "openai"
base_url = "{upstream}/v1"
api_key = "${{MOCK_KEY}}"

[[upstreams]]
name = "anthropic"
provider = "anthropic"
base_url = "{upstream}"
api_key = "${{MOCK_KEY}}"

[[upstreams]]
name = "gemini"
provider = "gemini"
base_url = "{upstream}/v1beta"
api_key = "${{MOCK_KEY}}"
"""
ROUTE = """
[[routes]]
model = "over-{family}"
upstreams = ["{family}"]
upstream_model = "mock-model"

[[prices]]
model = "over-{family}"
input_per_million = "1.00"
cached_input_per_million = "0.10"
output_per_million = "2.00"
"""
INPUT_NANOS, CACHED_NANOS, OUTPUT_NANOS = 1000, 100, 2000

#: By the path at which a provider was asked.
SEEN_AT = {
    "/v1/chat/completions": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1beta/": "gemini",
}


class Matrix(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mock = Mock()
        cls.addClassCleanup(cls.mock.stop)
        config = CONFIG + "".join(ROUTE.format(family=family) for family in SCENARIOS["upstreams"])
        cls.gateway = Gateway(cls.mock, config)
        cls.addClassCleanup(cls.gateway.stop)
        cls.gateway.create_account("matrix")
        limited_id, limited = cls.gateway.create_key("matrix", "limited")
        options = ("--metric", "requests", "--amount", "1", "--window", "day", "--key", str(limited_id))
        cls.gateway.cli("limit", "create", "one", *options)
        _, usual = cls.gateway.create_key("matrix", "usual")
        cls.keys = {"usual": usual, "limited": limited, "unknown": "sk-nobody"}
        CALLERS["chat"](cls.gateway.url, limited).send(SCENARIOS["asks"]["plain"]["chat"], "over-openai")
        cls.results, cls.exchanges = [], []

    @classmethod
    def tearDownClass(cls):
        # Whatever failed, no money is held and every entry balances.
        verified = cls.gateway.verify_ledger()
        folder = os.environ.get("MATRIX_RESULTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "python.json").write_text(json.dumps(cls.results, indent=1))
            lines = (json.dumps(exchange) for exchange in cls.exchanges)
            (Path(folder) / "exchanges.jsonl").write_text("\n".join(lines))
        assert verified["problems"] == [] if "problems" in verified else True, verified

    def scenario(self, scenario, name, family):
        """One scenario by one SDK with one family of providers."""
        exception = exception_of(scenario["name"], name, family)
        expected = exception["outcome"] if exception else "supported"
        ask = SCENARIOS["asks"].get(scenario.get("ask"), {}).get(name)
        kind = scenario.get("kind", "answer")
        result = {"scenario": scenario["name"], "caller": name, "upstream": family}
        if expected == "absent":
            is_there = hasattr(CALLERS[name], {"count": "count", "embeddings": "vectors"}.get(kind, "send"))
            self.assertTrue(ask is None or not is_there, "there is something to ask")
            self.results.append({**result, "outcome": "absent"})
            return
        caller = CALLERS[name](self.gateway.url, self.keys[scenario.get("key", "usual")])
        self.addCleanup(caller.close)
        model = scenario.get("model", f"over-{family}")
        self.mock.play(scenario["script"])
        self.mock.reset()
        refused, self.unseen = None, exception.get("unseen", []) if exception else []
        try:
            dropped = self.run_kind(kind, caller, scenario, ask, model, family)
        except Failed as failed:
            self.assertEqual("refused", expected, failed)
            refused = failed.status
        asked_in = self.record_requests(scenario, name, family)
        if expected == "refused":
            self.assertEqual(exception["status"], refused)
            found = {"outcome": "refused", "status": refused}
        else:
            self.assertEqual(dropped, exception.get("drops", []) if exception else [])
            found = {"outcome": "drops", "drops": dropped} if dropped else {"outcome": expected}
        self.results.append({**result, **found, "asked_in": asked_in})
        if kind != "models":
            self.mock.play(scenario["script"])
            self.say_again(caller, kind, ask, model, scenario, family)

    def run_kind(self, kind, caller, scenario, ask, model, family):
        """What was dropped."""
        expect = scenario["expect"]
        match kind:
            case "models":
                self.assertIn(model, caller.models())
            case "count":
                self.assertGreater(caller.count(ask, model), 0)
            case "embeddings":
                vectors, usage, headers = caller.vectors(ask, model)
                self.assertEqual([len(vector) for vector in vectors], [8] * expect["vectors"])
                if usage:
                    self.assert_price(headers, usage)
            case _ if "error" in expect or "broken" in expect:
                self.fails(caller, scenario, ask, model)
            case _:
                return self.answers(caller, scenario, ask, model)
        if expect.get("reaches") is False:
            self.assertEqual(self.mock.requests(), 0)
        return []

    def fails(self, caller, scenario, ask, model):
        with self.assertRaises(Failed) as caught:
            caller.stream(ask, model) if scenario.get("stream") else caller.send(ask, model)
        if "broken" in scenario["expect"]:
            self.assertTrue(" word" * 9 != caught.exception.seen and caught.exception.seen, "a part of it came")
        else:
            self.assertEqual(caught.exception.status, scenario["expect"]["error"], caught.exception)

    def answers(self, caller, scenario, ask, model):
        expect = scenario["expect"]
        answer = caller.stream(ask, model) if scenario.get("stream") else caller.send(ask, model)
        self.check(answer, expect)
        if not scenario.get("stream"):
            self.assert_price(answer.headers, answer.usage)
        self.assert_seen(expect.get("seen", {}))
        dropped = [name for name in answer.headers.get("x-tollgate-dropped", "").split(", ") if name]
        if then := expect.get("then"):
            self.mock.play(then["script"])
            following = caller.answered(ask, answer, "done")
            answer = caller.stream(following, model) if scenario.get("stream") else caller.send(following, model)
            self.assertEqual(answer.text, " word" * then["words"])
            self.assert_seen(then.get("seen", {}))
        return dropped

    def check(self, answer, expect):
        words = " word" * expect.get("words", 0)
        if calls := expect.get("calls"):
            self.assertEqual([(call.name, call.arguments) for call in answer.calls], [("mock_tool", {"text": words})] * calls)
            self.assertEqual(len({call.id for call in answer.calls}), calls)
        elif "json" in expect:
            self.assertEqual(json.loads(answer.text), expect["json"])
        else:
            self.assertEqual(answer.text, words)
        self.assertEqual(answer.choices, expect.get("choices", 1))
        if "finish" in expect:
            self.assertEqual(answer.finish, expect["finish"])
        for name, count in expect.get("usage", {}).items():
            self.assertEqual((name, answer.usage[name]), (name, count))

    def assert_price(self, headers, usage):
        self.assertEqual(Decimal(headers["x-tollgate-cost"]), price_of(usage))

    def assert_seen(self, seen):
        request = self.mock.last_request()
        dialect = dialect_at(request["line"])
        body = json.loads(request["body"])
        for pointer, value in seen.get(dialect, {}).items():
            found = at(body, pointer)
            if pointer in self.unseen:
                self.assertIsNone(found, pointer)
                continue
            self.assertEqual((pointer, "*" if value == "*" and found is not None else found), (pointer, value))

    def record_requests(self, scenario, name, family):
        """What the upstream was sent, for the check against its specification, and in which dialect."""
        dialect = None
        for request in self.mock.stats()["recent"]:
            dialect = dialect_at(request["line"])
            self.exchanges.append({
                "scenario": scenario["name"], "caller": name, "upstream": family, "side": "request",
                "dialect": dialect, "line": request["line"], "body": request["body"],
            })
        return dialect

    def say_again(self, caller, kind, ask, model, scenario, family):
        """The same without an SDK: the bytes that came, for the check against the caller's specification, and their price."""
        path, body = caller.plain(kind, ask, model, scenario.get("stream", False))
        status, headers, body, trailers = exchange(self.gateway.url, path, caller.head(), body)
        self.exchanges.append({
            "scenario": scenario["name"], "caller": caller.name, "upstream": family, "side": "answer", "kind": kind,
            "dialect": caller.name, "line": path, "status": status, "type": headers.get("content-type", ""), "body": body,
        })
        usage = scenario["expect"].get("usage", {})
        if scenario.get("stream") and status == 200 and {"input", "cached", "output"} <= usage.keys():
            self.assertEqual(Decimal(trailers["x-tollgate-cost"]), price_of(usage))


def price_of(usage):
    cached = usage["cached"]
    return usd((usage["input"] - cached) * INPUT_NANOS + cached * CACHED_NANOS + usage["output"] * OUTPUT_NANOS)


def exception_of(scenario, caller, upstream):
    """The first that fits; what it leaves open fits all."""
    asked = {"scenario": scenario, "caller": caller, "upstream": upstream}
    fits = lambda exception: all(exception.get(name, value) == value for name, value in asked.items())
    return next(filter(fits, SCENARIOS["exceptions"]), None)


def dialect_at(line):
    path = line.split(" ")[1]
    return next(dialect for begin, dialect in SEEN_AT.items() if path.startswith(begin))


def at(body, pointer):
    """What a JSON pointer finds; Google's names may come in either spelling, and pass as they came."""
    if "/*/" in pointer:
        before, after = pointer.split("/*/", 1)
        found = (at(element, f"/{after}") for element in at(body, before) or [])
        return next((value for value in found if value is not None), None)
    for name in pointer.split("/")[1:]:
        if isinstance(body, list):
            body = body[int(name)] if int(name) < len(body) else None
        else:
            body = (body or {}).get(name, (body or {}).get(re.sub("[A-Z]", lambda c: f"_{c[0].lower()}", name)))
    return body


def exchange(url, path, head, body):
    """One request over a socket of its own: status, headers, body and trailers, as they came."""
    where, body = urlsplit(url), json.dumps(body).encode()
    lines = {**head, "host": where.netloc, "content-type": "application/json", "connection": "close", "te": "trailers"}
    lines["content-length"] = len(body)
    text = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(text.encode() + b"\r\n" + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, body = answer.split(b"\r\n\r\n", 1)
    status, *fields = head.decode().split("\r\n")
    headers, trailers = fields_of(fields), {}
    if headers.get("transfer-encoding") == "chunked":
        body, trailers = dechunked(body)
    return int(status.split(" ")[1]), headers, body.decode(), trailers


def dechunked(body):
    joined = b""
    while body:
        size, body = body.split(b"\r\n", 1)
        size = int(size, 16)
        if size == 0:
            return joined, fields_of(body.decode().strip().split("\r\n"))
        joined, body = joined + body[:size], body[size + 2 :]
    return joined, {}


def fields_of(lines):
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.lower(): value.strip() for name, value in pairs}


def add_tests():
    """A test of its own for each, so that one failure hides no other and each can be run alone."""
    for scenario in SCENARIOS["scenarios"]:
        for caller in SCENARIOS["callers"]:
            for family in SCENARIOS["upstreams"]:
                def test(self, scenario=scenario, caller=caller, family=family):
                    self.scenario(scenario, caller, family)

                setattr(Matrix, f"test_{scenario['name']}__{caller}_over_{family}", test)


add_tests()
