"""Realtime sessions by the SDK's own connection."""

import unittest

import websockets
from gateway import Bed, eventually

USAGE = {
    "total_tokens": 23,
    "input_tokens": 20,
    "output_tokens": 3,
    "input_token_details": {"text_tokens": 20, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 3, "audio_tokens": 0},
}
HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}


def until(connection, kind):
    """Events up to one of that type."""
    events = []
    for event in connection:
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"the session ended without {kind}: {[event.type for event in events]}")


class Realtime(unittest.TestCase):
    def setUp(self):
        Bed.mock.play({"realtime": {"usages": [USAGE]}})
        self.addCleanup(Bed.mock.play, None)

    def test_a_session_answers_turn_by_turn(self):
        _, key = Bed.new_key("realtime")
        with Bed.gateway.client(key).realtime.connect(model="mock-model") as connection:
            self.assertEqual(until(connection, "session.created")[0].session.model, "mock-model")
            connection.session.update(session={"type": "realtime", "model": "mock-model", "output_modalities": ["text"]})
            self.assertEqual(until(connection, "session.updated")[-1].session.output_modalities, ["text"])
            for _ in range(2):
                connection.conversation.item.create(item=HELLO)
                connection.response.create()
                events = until(connection, "response.done")
                text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
                self.assertEqual(text, " word" * 3)
                self.assertEqual(events[-1].response.usage.input_tokens, 20)
        eventually("no open hold", lambda: Bed.gateway.verify_ledger()["verified"]["open_holds"] == 0)

    def test_an_error_is_an_event_and_the_session_goes_on(self):
        with Bed.client().realtime.connect(model="mock-model") as connection:
            until(connection, "session.created")
            connection.session.update(session={"type": "realtime", "model": "another"})
            error = until(connection, "error")[-1].error
            self.assertEqual((error.code, error.param), ("model_not_allowed", "session.model"))
            connection.response.create()
            until(connection, "response.done")

    def test_without_money_there_is_no_session(self):
        _, key = Bed.new_key("poor-realtime", "--quota", "0.001")
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            with Bed.gateway.client(key).realtime.connect(model="mock-model"):
                pass
        self.assertEqual(refused.exception.response.status_code, 402)

    def test_a_model_that_is_not_there_is_refused(self):
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            with Bed.client().realtime.connect(model="no-such-model"):
                pass
        self.assertEqual(refused.exception.response.status_code, 404)
