"""Streams: pieces in order, usage only for those who ask, and every way in which one can end early."""

import asyncio
import json
import unittest

import openai
from gateway import Bed, chat, eventually, get_json
from test_answers import TOOL


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


class Streams(unittest.TestCase):
    def test_the_pieces_are_the_answer_in_order(self):
        chunks = list(chat(Bed.client(), {"completion_tokens": 40}, stream=True))
        self.assertEqual(text_of(chunks), " word" * 40)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        self.assertEqual(reasons, [None] * 41 + ["stop"])
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)

    def test_usage_is_not_seen_by_those_who_did_not_ask(self):
        chunks = list(chat(Bed.client(), {"completion_tokens": 5}, stream=True))
        self.assertEqual([chunk.usage for chunk in chunks if chunk.usage], [])
        self.assertTrue(all(chunk.choices for chunk in chunks))
        # The gateway asked in the caller's place.
        self.assertTrue(json.loads(Bed.mock.last_request()["body"])["stream_options"]["include_usage"])

    def test_usage_comes_last_for_those_who_ask(self):
        script = {"prompt_tokens": 11, "completion_tokens": 5}
        chunks = list(chat(Bed.client(), script, stream=True, stream_options={"include_usage": True}))
        self.assertEqual([bool(chunk.usage) for chunk in chunks], [False] * (len(chunks) - 1) + [True])
        last = chunks[-1]
        self.assertEqual((last.choices, last.usage.prompt_tokens, last.usage.completion_tokens), ([], 11, 5))

    def test_pieces_arrive_as_they_are_made(self):
        # 20 pieces half a second apart would outlast this test if they were collected.
        stream = chat(Bed.client(timeout=4), {"completion_tokens": 20, "gap_ms": 500}, stream=True)
        first = [next(stream) for _ in range(3)]
        stream.close()
        self.assertEqual(text_of(first), " word" * 2)

    def test_headers_are_there_before_the_first_piece(self):
        with chat(Bed.client().with_streaming_response, stream=True) as raw:
            self.assertEqual(raw.headers["x-tollgate-model"], "mock-model")
            self.assertTrue(raw.headers["content-type"].startswith("text/event-stream"))
            self.assertTrue(raw.headers["x-request-id"].startswith("req_"))
            self.assertEqual(text_of(raw.parse()), " word" * 16)

    def test_the_cost_comes_before_the_end(self):
        script = {"prompt_tokens": 1234, "completion_tokens": 567}
        with chat(Bed.client().with_streaming_response, script, stream=True) as raw:
            lines = [line for line in raw.iter_lines() if line]
        # A comment: the SDK skips it, and whoever wants it can read it. In HTTP it is a trailer, too.
        self.assertEqual(lines[-2:], [": x-tollgate-cost: 0.002368", "data: [DONE]"])
        self.assertEqual(raw.headers["trailer"], "x-tollgate-cost")

    def test_tool_calls_arrive_in_pieces(self):
        arguments, name = "", None
        for chunk in chat(Bed.client(), {"tool_calls": True, "completion_tokens": 3}, stream=True, tools=[TOOL]):
            for call in chunk.choices[0].delta.tool_calls or []:
                name = name or call.function.name
                arguments += call.function.arguments or ""
        self.assertEqual((name, json.loads(arguments)), ("mock_tool", {"text": " word word word"}))

    def test_the_stream_helper_of_the_sdk_works(self):
        messages = [{"role": "user", "content": "Say it."}]
        with Bed.client().chat.completions.stream(model="mock-model", messages=messages) as stream:
            for _ in stream:
                pass
            completion = stream.get_final_completion()
        self.assertEqual(completion.choices[0].message.content, " word" * 16)

    def test_a_completion_streams(self):
        stream = Bed.client().completions.create(model="mock-model", prompt="one", max_tokens=6, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in stream), " word" * 6)

    def test_the_async_client_streams(self):
        async def run():
            async with Bed.gateway.async_client(Bed.key) as client:
                return [chunk async for chunk in await chat(client, {"completion_tokens": 12}, stream=True)]

        self.assertEqual(text_of(asyncio.run(run())), " word" * 12)

    def test_odd_framing_of_the_upstream_is_no_concern_of_the_caller(self):
        for script in ({"crlf": True}, {"comments": True}, {"bom": True}, {"split": 3}, {"done_twice": True}):
            with self.subTest(script):
                chunks = chat(Bed.client(), {"completion_tokens": 9, **script}, stream=True)
                self.assertEqual(text_of(chunks), " word" * 9)

    def test_where_the_money_ends_the_answer_ends_as_by_its_length(self):
        Bed.gateway.create_account("short", "0.01")
        _, key = Bed.gateway.create_key("short", "short")
        script = {"prompt_tokens": 10, "completion_tokens": 2000, "gap_ms": 8}
        options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4000}
        stream = chat(Bed.gateway.client(key), script, **options)
        seen = [next(stream)]
        # What the answer would have been paid with is taken away.
        left = json.loads(Bed.gateway.cli("account", "show", "short", "--json"))["balance"]
        Bed.gateway.cli("account", "top-up", "short", f"-{left}")
        seen += list(stream)
        *pieces, usage = seen
        words = text_of(pieces).count(" word")
        self.assertTrue(100 < words < 2000, words)
        self.assertEqual([choice.finish_reason for choice in pieces[-1].choices], ["length"])
        self.assertEqual((usage.choices, usage.usage.completion_tokens), ([], words))
        self.assertEqual(len({chunk.id for chunk in seen}), 1)

    def test_an_error_inside_the_stream_is_raised_after_what_came_before(self):
        error = {"message": "The model tripped.", "type": "server_error", "code": "tripped"}
        seen, raised = self.read_until_error({"error_after": 4, "error": error})
        self.assertEqual(text_of(seen), " word" * 3)
        self.assertEqual((raised.message, raised.code), ("The model tripped.", "tripped"))

    def test_a_stream_that_the_upstream_cuts_is_an_error_and_not_a_short_answer(self):
        for how in ("fin", "rst"):
            with self.subTest(how):
                seen, raised = self.read_until_error({"cut_after": 4, "how": how})
                self.assertEqual(text_of(seen), " word" * 3)
                self.assertEqual(raised.code, "upstream_cut")

    def test_a_malformed_event_is_an_error(self):
        seen, raised = self.read_until_error({"malformed_after": 4})
        self.assertEqual(text_of(seen), " word" * 3)
        self.assertEqual(raised.code, "upstream_malformed")

    def read_until_error(self, script):
        seen = []
        with self.assertRaises(openai.APIError) as caught:
            for chunk in chat(Bed.client(), {"completion_tokens": 10, **script}, stream=True):
                seen.append(chunk)
        # An error of the answer, not of the connection: that would be retried by callers as if nothing had come.
        self.assertIs(type(caught.exception), openai.APIError)
        return seen, caught.exception

    def test_a_caller_who_leaves_stops_the_upstream_and_nothing_else(self):
        _, key = Bed.new_key("leaves")
        client, cancelled = Bed.gateway.client(key), Bed.mock.stats()["cancelled"]
        stream = chat(client, {"completion_tokens": 400, "gap_ms": 25}, stream=True)
        seen = [next(stream) for _ in range(4)]
        stream.close()
        self.assertEqual(text_of(seen), " word" * 3)
        eventually("the upstream is stopped", lambda: Bed.mock.stats()["cancelled"] == cancelled + 1)
        standing = f"{Bed.gateway.url}/api/user/token"
        eventually("what was produced is charged", lambda: get_json(standing, key)["data"]["request_count"] == 1)
        used = get_json(standing, key)["data"]["used_tokens"]
        # The prompt, and the words that were on their way when the caller left; far from all 400.
        self.assertTrue(3 <= used < 120, used)
        self.assertTrue(Bed.gateway.is_alive())
        self.assertEqual(chat(client).choices[0].message.content, " word" * 16)
