"""A start without any configuration answers at once."""

import unittest
from decimal import Decimal

from gateway import Gateway, usd


class Simulator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.addClassCleanup(cls.gateway.stop)
        cls.client = cls.gateway.client(cls.gateway.first_key())

    def test_a_chat_is_answered_and_priced(self):
        messages = [{"role": "user", "content": "Hello"}]
        raw = self.client.chat.completions.with_raw_response.create(model="sim-small", messages=messages)
        completion = raw.parse()
        self.assertTrue(completion.choices[0].message.content)
        cost = usd(completion.usage.prompt_tokens * 100 + completion.usage.completion_tokens * 400)
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), cost)

    def test_a_chat_streams(self):
        messages = [{"role": "user", "content": "Hello"}]
        chunks = list(self.client.chat.completions.create(model="sim-large", messages=messages, stream=True))
        self.assertTrue("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_embeddings_are_the_same_in_both_encodings(self):
        def embed(**encoding):
            answer = self.client.embeddings.create(model="sim-embed", input=["a", "b"], **encoding)
            self.assertEqual([item.index for item in answer.data], [0, 1])
            return answer.data[0].embedding

        # The SDK asks for base64 by itself, and gives numbers either way.
        base64, floats = embed(), embed(encoding_format="float")
        self.assertTrue(floats)
        self.assertEqual(len(base64), len(floats))
        for left, right in zip(base64, floats):
            self.assertAlmostEqual(left, right, places=6)

    def test_base64_is_given_to_those_who_ask_for_it(self):
        raw = self.client.embeddings.with_raw_response.create(
            model="sim-embed", input="a", encoding_format="base64"
        )
        self.assertIsInstance(raw.http_response.json()["data"][0]["embedding"], str)

    def test_its_models_are_listed(self):
        models = sorted(model.id for model in self.client.models.list())
        self.assertEqual(models, ["sim-embed", "sim-large", "sim-small"])
