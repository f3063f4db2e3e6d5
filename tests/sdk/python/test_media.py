"""Images, sound, moderations and reranking: the SDK reads every answer, and each costs what it says."""

import io
import json
import struct
import unittest
import urllib.request
from decimal import Decimal

import openai

from gateway import CONFIG, WAIT_SECONDS_MAX, Bed, Gateway, eventually

MODELS = {
    "omni-moderation-latest": "free = true",
    "rerank-v3.5": 'per_request = "0.002"',
    "dall-e-3": 'per_image = "0.04"',
    "gpt-image-1": 'input_per_million = "5"\ninput_image_per_million = "10"\noutput_image_per_million = "40"',
    "tts-1": 'per_character = "0.000015"',
    "gpt-4o-mini-tts": 'input_per_million = "0.60"\noutput_per_million = "10"\noutput_audio_per_million = "12"',
    "whisper-1": 'per_second = "0.0001"',
    "gpt-4o-transcribe": 'input_per_million = "2.5"\ninput_audio_per_million = "6"\noutput_per_million = "10"',
}
SECTION = '\n[[routes]]\nmodel = "{0}"\nupstreams = ["mock"]\n\n[[prices]]\nmodel = "{0}"\n{1}\n'


def wav(seconds):
    """Silence, 8,000 bytes a second."""
    size = 8_000 * seconds
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, 8_000, 8_000, 1, 8, b"data", size)
    return ("silence.wav", io.BytesIO(head + b"\x80" * size))


class Media(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config = CONFIG + "".join(SECTION.format(model, price) for model, price in MODELS.items())
        cls.gateway = Gateway(Bed.mock, config)
        cls.gateway.create_account("media")

    @classmethod
    def tearDownClass(cls):
        verified = cls.gateway.verify_ledger()
        cls.gateway.stop()
        assert verified["ok"] and verified["verified"]["open_holds"] == 0, verified

    def setUp(self):
        self.key_id, self.key = self.gateway.create_key("media", self.id())
        self.client = self.gateway.client(self.key)

    def assert_spent(self, usd):
        def used():
            request = urllib.request.Request(
                f"{self.gateway.url}/api/user/token", headers={"authorization": f"Bearer {self.key}"}
            )
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX) as answer:
                return Decimal(str(json.loads(answer.read(), parse_float=Decimal)["data"]["used_usd"]))

        eventually(f"{usd} spent", lambda: used() == Decimal(usd))

    def test_moderations(self):
        answer = self.client.moderations.create(input=["one", "two"])
        self.assertEqual((answer.model, len(answer.results)), ("omni-moderation-latest", 2))
        self.assertFalse(answer.results[0].categories.self_harm)
        self.assert_spent("0")

    def test_reranking(self):
        body = {"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"], "top_n": 1}
        answer = self.client.post("/rerank", body=body, cast_to=object)
        self.assertEqual(answer["meta"]["billed_units"]["search_units"], 1)
        self.assert_spent("0.002")

    def test_images(self):
        answer = self.client.images.generate(model="dall-e-3", prompt="a cat", n=2, response_format="b64_json")
        self.assertEqual(len(answer.data), 2)
        raw = self.client.images.with_raw_response.generate(model="gpt-image-1", prompt="a cat")
        usage = raw.parse().usage
        self.assertEqual((usage.input_tokens, usage.output_tokens), (10, 16))
        self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), Decimal("0.00069"))
        events = list(self.client.images.generate(model="gpt-image-1", prompt="a cat", stream=True, partial_images=1))
        self.assertEqual([event.type for event in events], ["image_generation.partial_image", "image_generation.completed"])
        self.assert_spent("0.08138")

    def test_image_edits(self):
        images = [("a.png", b"\x89PNG 1", "image/png"), ("b.png", b"\x89PNG 2", "image/png")]
        answer = self.client.images.edit(model="gpt-image-1", image=images, prompt="both", n=1)
        self.assertEqual(answer.usage.input_tokens_details.image_tokens, 5)
        self.assert_spent("0.000715")

    def test_speech(self):
        with self.client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Grüße") as answer:
            self.assertEqual(answer.headers["content-type"], "audio/mpeg")
            sound = b"".join(answer.iter_bytes())
        self.assertTrue(sound.startswith(b"ID3"))
        whole = self.client.audio.speech.create(model="tts-1", voice="alloy", input="Grüße", response_format="wav")
        self.assertEqual(len(whole.content), len(sound))
        request = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello there", "stream_format": "sse"}
        with self.client.audio.speech.with_streaming_response.create(**request) as answer:
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        self.assertEqual(events[-1]["type"], "speech.audio.done")
        self.assert_spent("0.0003438")

    def test_transcriptions(self):
        create = self.client.audio.transcriptions.create
        self.assertEqual(create(model="whisper-1", file=wav(9)).text, "word word word word")
        verbose = create(model="whisper-1", file=wav(9), response_format="verbose_json")
        self.assertEqual((verbose.duration, verbose.usage.seconds), (8.47, 9))
        self.assertIn("-->", create(model="whisper-1", file=wav(9), response_format="srt"))
        self.assertEqual(self.client.audio.translations.create(model="whisper-1", file=wav(9)).text, "word word word word")
        tokens = create(model="gpt-4o-transcribe", file=wav(2))
        self.assertEqual((tokens.usage.input_tokens, tokens.usage.output_tokens), (9, 16))
        events = list(create(model="gpt-4o-transcribe", file=wav(2), stream=True))
        self.assertEqual((events[-1].type, events[-1].text), ("transcript.text.done", "word word word word"))
        self.assert_spent("0.004028")

    def test_what_is_wrong_is_an_error_of_the_sdk(self):
        requests = Bed.mock.requests()
        for error, call in [
            (openai.BadRequestError, lambda: self.client.images.generate(model="dall-e-3", prompt="a", n=1000)),
            (openai.BadRequestError, lambda: self.client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b""))),
            (openai.BadRequestError, lambda: self.client.audio.speech.create(model="tts-1", voice="alloy", input="")),
            (openai.NotFoundError, lambda: self.client.moderations.create(model="no-such-model", input="a")),
        ]:
            with self.subTest(error=error):
                self.assertRaises(error, call)
        self.assertEqual(Bed.mock.requests(), requests)

    def test_a_cut_answer_raises(self):
        Bed.mock.play({"cut_after": 1, "words": 100_000})
        try:
            with self.assertRaises(Exception) as raised:
                self.client.audio.speech.create(model="tts-1", voice="alloy", input="abc")
        finally:
            Bed.mock.play(None)
        self.assertIn("incomplete", repr(raised.exception).lower() + repr(raised.exception.__cause__).lower())
        self.assert_spent("0")


if __name__ == "__main__":
    unittest.main()
