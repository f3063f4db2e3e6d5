"""Limits: the SDK's own way to come again, by nothing but the headers of a refusal, brings every request through."""

import asyncio
import json
import time
import unittest

import openai
from gateway import Bed, chat

PER_SECOND = 5


class Limits(unittest.IsolatedAsyncioTestCase):
    async def all_succeed(self, requests, max_retries):
        key_id, key = Bed.new_key(f"paced-{requests}")
        name = f"sdk-python-{requests}"
        options = ("--metric", "requests", "--amount", str(PER_SECOND), "--window", "second", "--key", str(key_id))
        Bed.gateway.cli("limit", "create", name, *options)
        before = Bed.mock.requests()
        async with Bed.gateway.async_client(key, max_retries=max_retries) as client:
            began = time.monotonic()
            answers = await asyncio.gather(*(chat(client) for _ in range(requests)))
            took = time.monotonic() - began
        self.assertEqual(len(answers), requests)
        self.assertEqual(Bed.mock.requests() - before, requests, "what was refused did not reach the upstream")
        # Of the last request and the fifth before it, one came a second or more after the other, and so on to the first.
        self.assertGreaterEqual(took, (requests - 1) // PER_SECOND)
        standing = json.loads(Bed.gateway.cli("limit", "status", "--key", str(key_id), "--json"))["data"]
        self.assertEqual([(limit["name"], limit["limit"]) for limit in standing], [(name, PER_SECOND)])

    async def test_four_times_as_many_succeed_with_five_retries(self):
        await self.all_succeed(20, 5)

    async def test_a_refusal_is_a_rate_limit_error_that_says_when(self):
        key_id, key = Bed.new_key("refused-once")
        options = ("--metric", "requests", "--amount", "1", "--window", "hour", "--key", str(key_id))
        Bed.gateway.cli("limit", "create", "sdk-python-hour", *options)
        client = Bed.gateway.client(key)
        answer = client.chat.completions.with_raw_response.create(
            model="mock-model", messages=[{"role": "user", "content": "x"}]
        )
        self.assertEqual(answer.headers["x-ratelimit-remaining-requests"], "0")
        with self.assertRaises(openai.RateLimitError) as caught:
            chat(client)
        self.assertEqual(caught.exception.code, "rate_limit_exceeded")
        wait_ms = int(caught.exception.response.headers["retry-after-ms"])
        self.assertTrue(0 < wait_ms <= 3_600_000, wait_ms)
