"""Answers in one piece, and lists: what the SDK gives is what the upstream said."""

import asyncio
import json
import unittest
from decimal import Decimal

import openai
from gateway import EMBED_NANOS, UPSTREAM_SECRET, Bed, chat, cost_of, usd

TOOL = {
    "type": "function",
    "function": {"name": "mock_tool", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


class Answers(unittest.TestCase):
    def test_a_chat_is_answered_and_priced_exactly(self):
        raw = chat(Bed.client().with_raw_response, {"prompt_tokens": 1234, "completion_tokens": 567})
        completion = raw.parse()
        self.assertEqual(completion.choices[0].message.content, " word" * 567)
        self.assertEqual(completion.choices[0].finish_reason, "stop")
        usage = completion.usage
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (1234, 567, 1801))
        self.assertEqual(raw.headers["x-tollgate-model"], "mock-model")
        self.assertRegex(raw.headers["x-request-id"], r"^req_[0-9a-z]+$")
        self.assertEqual(completion._request_id, raw.headers["x-request-id"])
        self.assertNotIn("x-tollgate-upstream", raw.headers)
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), cost_of(usage))
        self.assertEqual(raw.headers["x-tollgate-cost"], "0.002368")

    def test_several_choices_are_all_billed(self):
        raw = chat(Bed.client().with_raw_response, {"prompt_tokens": 10, "completion_tokens": 5}, n=3)
        completion = raw.parse()
        self.assertEqual([choice.index for choice in completion.choices], [0, 1, 2])
        self.assertEqual(completion.usage.completion_tokens, 15)
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), usd(10 * 1000 + 15 * 2000))

    def test_a_cap_reaches_the_upstream(self):
        completion = chat(Bed.client(), max_completion_tokens=4)
        self.assertEqual(completion.choices[0].message.content, " word" * 4)
        self.assertEqual(completion.choices[0].finish_reason, "length")

    def test_the_async_client_is_served_in_parallel(self):
        async def run():
            async with Bed.gateway.async_client(Bed.key) as client:
                calls = [chat(client, {"completion_tokens": tokens, "first_byte_ms": 50}) for tokens in range(1, 9)]
                return await asyncio.gather(*calls)

        completions = asyncio.run(run())
        self.assertEqual([c.choices[0].message.content for c in completions], [" word" * n for n in range(1, 9)])
        self.assertEqual(len({c._request_id for c in completions}), 8)

    def test_tool_calls_arrive(self):
        completion = chat(Bed.client(), {"tool_calls": True, "completion_tokens": 3}, tools=[TOOL])
        self.assertEqual(completion.choices[0].finish_reason, "tool_calls")
        call = completion.choices[0].message.tool_calls[0]
        self.assertEqual(call.function.name, "mock_tool")
        self.assertEqual(json.loads(call.function.arguments), {"text": " word word word"})
        self.assertEqual(json.loads(Bed.mock.last_request()["body"])["tools"], [TOOL])

    def test_a_completion_is_answered(self):
        raw = Bed.client().completions.with_raw_response.create(
            model="mock-model", prompt="one two three", max_tokens=7
        )
        completion = raw.parse()
        self.assertEqual(completion.choices[0].text, " word" * 7)
        self.assertEqual(completion.usage.prompt_tokens, 3)
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), cost_of(completion.usage))

    def test_embeddings_are_answered_in_both_encodings(self):
        client = Bed.client().embeddings.with_raw_response
        texts = ["one two", "three"]
        # The SDK asks for base64 unless told otherwise, and gives numbers either way.
        raws = [
            client.create(model="mock-embed", input=texts),
            client.create(model="mock-embed", input=texts, encoding_format="float"),
        ]
        for raw in raws:
            answer = raw.parse()
            self.assertEqual([item.index for item in answer.data], [0, 1])
            self.assertEqual([len(item.embedding) for item in answer.data], [8, 8])
            self.assertEqual(answer.usage.prompt_tokens, 3)
            self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), usd(3 * EMBED_NANOS))
        base64, floats = [raw.parse().data[1].embedding for raw in raws]
        for left, right in zip(base64, floats):
            self.assertAlmostEqual(left, right, places=6)

    def test_an_idempotency_key_makes_a_call_happen_once(self):
        client, key = Bed.client(), {"Idempotency-Key": "python-answers"}
        before = Bed.mock.requests()
        script = {"prompt_tokens": 10, "completion_tokens": 5}
        first, again = (chat(client.with_raw_response, script, extra_headers=key) for _ in range(2))
        self.assertEqual(first.text, again.text)
        self.assertEqual(again.headers["idempotent-replayed"], "true")
        for name in ["x-request-id", "x-tollgate-cost"]:
            self.assertEqual(first.headers[name], again.headers[name])
        streams = [list(chat(client, script, stream=True, extra_headers={"Idempotency-Key": "s"})) for _ in range(2)]
        self.assertEqual(*streams)
        self.assertEqual(Bed.mock.requests(), before + 2)
        with self.assertRaises(openai.UnprocessableEntityError) as refused:
            chat(client, script, text="Something else.", extra_headers=key)
        self.assertEqual(refused.exception.code, "idempotency_mismatch")

    def test_unknown_fields_and_headers_survive_and_secrets_do_not(self):
        vendor = {"nested": [1, 2.5, None, "é\u2028"], "deep": {"top_k": 40}}
        chat(Bed.client(), extra_body={"x_vendor": vendor, "top_k": 40}, user="end-user-7")
        seen = Bed.mock.last_request()
        body = json.loads(seen["body"])
        self.assertEqual((body["x_vendor"], body["top_k"], body["user"]), (vendor, 40, "end-user-7"))
        self.assertEqual(seen["headers"]["authorization"], f"Bearer {UPSTREAM_SECRET}")
        self.assertNotIn(Bed.key, json.dumps(seen))

    def test_unknown_fields_of_an_answer_survive(self):
        completion = chat(Bed.client())
        self.assertEqual(completion.system_fingerprint, "fp_mock")
        self.assertEqual(completion.choices[0].message.annotations, [])

    def test_models_are_listed_and_retrieved(self):
        models = {model.id: model for model in Bed.client().models.list()}
        self.assertEqual(sorted(models), ["mock-embed", "mock-model"])
        one = Bed.client().models.retrieve("mock-model")
        self.assertEqual((one.id, one.object), ("mock-model", "model"))
        self.assertEqual(one, models["mock-model"])

    def test_a_key_lists_only_the_models_that_it_may_ask_for(self):
        _, key = Bed.new_key("lists-embed", "--model", "mock-embed")
        self.assertEqual([model.id for model in Bed.gateway.client(key).models.list()], ["mock-embed"])
