"""Anthropic's and Google's own SDKs, and OpenAI's Responses, over an upstream that speaks chat."""

import json
import unittest
from decimal import Decimal

import anthropic
import openai
from gateway import INPUT_NANOS, OUTPUT_NANOS, Bed, usd
from google import genai
from google.genai import errors, types

MODEL = "mock-model"
USER = [{"role": "user", "content": "Say it."}]
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def messages(key=None):
    """Anthropic's client."""
    return anthropic.Anthropic(api_key=key or Bed.key, base_url=Bed.gateway.url, max_retries=0, timeout=20)


def gemini(key=None):
    """Google's client."""
    options = types.HttpOptions(base_url=Bed.gateway.url, timeout=20_000)
    return genai.Client(api_key=key or Bed.key, http_options=options)


class Scripted(unittest.TestCase):
    def play(self, **script):
        Bed.mock.play(script)
        self.addCleanup(Bed.mock.play, None)


class Messages(Scripted):
    def test_a_message_has_text_usage_and_a_price(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        raw = messages().messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=USER)
        message = raw.parse()
        self.assertEqual((message.content[0].text, message.stop_reason), (" word" * 9, "end_turn"))
        self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (21, 9))
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), usd(21 * INPUT_NANOS + 9 * OUTPUT_NANOS))
        self.assertEqual(message._request_id, raw.headers["x-request-id"])

    def test_a_stream_is_the_message(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        with messages().messages.stream(model=MODEL, max_tokens=50, messages=USER) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        self.assertEqual((text, message.content[0].text), (" word" * 9, " word" * 9))
        self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (21, 9))

    def test_tools_are_called_and_answered(self):
        self.play(tool_calls=True, completion_tokens=3)
        tool = {"name": "mock_tool", "description": "d", "input_schema": SCHEMA}
        with messages().messages.stream(model=MODEL, max_tokens=50, messages=USER, tools=[tool]) as stream:
            message = stream.get_final_message()
        call = message.content[0]
        self.assertEqual((call.name, call.input, message.stop_reason), ("mock_tool", {"text": " word" * 3}, "tool_use"))
        self.play()
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
        turns = [*USER, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        messages().messages.create(model=MODEL, max_tokens=50, messages=turns, tools=[tool])
        sent = json.loads(Bed.mock.last_request()["body"])["messages"]
        self.assertEqual([turn["role"] for turn in sent], ["user", "assistant", "tool"])
        self.assertEqual(sent[2]["tool_call_id"], sent[1]["tool_calls"][0]["id"])

    def test_tokens_are_counted(self):
        self.assertGreater(messages().messages.count_tokens(model=MODEL, messages=USER).input_tokens, 0)

    def test_models_are_listed(self):
        self.assertIn(MODEL, [model.id for model in messages().models.list()])

    def test_errors_are_of_their_kinds(self):
        with self.assertRaises(anthropic.AuthenticationError):
            messages("sk-nobody").messages.create(model=MODEL, max_tokens=5, messages=USER)
        with self.assertRaises(anthropic.NotFoundError) as caught:
            messages().messages.create(model="none", max_tokens=5, messages=USER)
        self.assertEqual(caught.exception.body["error"]["type"], "not_found_error")
        self.assertTrue(caught.exception.request_id.startswith("req_"))

    def test_a_stream_that_is_cut_raises_after_what_came(self):
        self.play(completion_tokens=9, cut_after=4)
        seen = ""
        with self.assertRaises(anthropic.APIStatusError):
            with messages().messages.stream(model=MODEL, max_tokens=50, messages=USER) as stream:
                for piece in stream.text_stream:
                    seen += piece
        self.assertEqual(seen, " word" * 3)


class Gemini(Scripted):
    def setUp(self):
        # It closes its connections when nobody holds it any more.
        self.models = self.client().models

    def client(self, key=None):
        client = gemini(key)
        self.addCleanup(client.close)
        return client

    def test_content_has_text_and_usage(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        answer = self.models.generate_content(model=MODEL, contents="Say it.")
        self.assertEqual(answer.text, " word" * 9)
        usage = answer.usage_metadata
        self.assertEqual((usage.prompt_token_count, usage.candidates_token_count), (21, 9))

    def test_a_stream_is_the_content(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        pieces = list(self.models.generate_content_stream(model=MODEL, contents="Say it."))
        self.assertEqual("".join(piece.text or "" for piece in pieces), " word" * 9)
        self.assertEqual(pieces[-1].usage_metadata.candidates_token_count, 9)

    def test_functions_are_called(self):
        self.play(tool_calls=True, completion_tokens=3)
        declared = types.FunctionDeclaration(name="mock_tool", description="d", parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        for answer in (
            self.models.generate_content(model=MODEL, contents="Say it.", config=config),
            list(self.models.generate_content_stream(model=MODEL, contents="Say it.", config=config))[0],
        ):
            call = answer.function_calls[0]
            self.assertEqual((call.name, call.args), ("mock_tool", {"text": " word" * 3}))

    def test_tokens_are_counted_and_models_listed(self):
        self.assertGreater(self.models.count_tokens(model=MODEL, contents="Say it.").total_tokens, 0)
        self.assertIn(f"models/{MODEL}", [model.name for model in self.models.list()])

    def test_errors_have_google_s_status(self):
        with self.assertRaises(errors.ClientError) as caught:
            self.models.generate_content(model="none", contents="Say it.")
        self.assertEqual((caught.exception.code, caught.exception.status), (404, "NOT_FOUND"))
        with self.assertRaises(errors.ClientError) as caught:
            self.client("sk-nobody").models.generate_content(model=MODEL, contents="Say it.")
        self.assertEqual((caught.exception.code, caught.exception.status), (401, "UNAUTHENTICATED"))


class Responses(Scripted):
    def test_a_response_has_text_and_usage(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        response = Bed.client().responses.create(model=MODEL, input="Say it.")
        self.assertEqual((response.output_text, response.status), (" word" * 9, "completed"))
        self.assertEqual((response.usage.input_tokens, response.usage.output_tokens), (21, 9))

    def test_a_stream_is_the_response(self):
        self.play(prompt_tokens=21, completion_tokens=9)
        with Bed.client().responses.stream(model=MODEL, input="Say it.") as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            response = stream.get_final_response()
        self.assertEqual((text, response.output_text), (" word" * 9, " word" * 9))
        self.assertEqual(response.usage.output_tokens, 9)

    def test_errors_are_of_their_kinds(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            Bed.client().responses.create(model="none", input="Say it.")
        self.assertEqual(caught.exception.code, "model_not_found")
