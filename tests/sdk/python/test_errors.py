"""Refusals: the SDK's own exception class, the status, the code, and no request more than was sent."""

import unittest

import openai
from gateway import Bed, chat, get_json

MINIMAL_QUOTA = ("--quota", "0.000001")


class Errors(unittest.TestCase):
    def refused(self, call, exception, status, code, kind=None):
        """The exception of a call that must not reach the upstream."""
        before = Bed.mock.requests()
        error = self.raised(call, exception, status, code, kind)
        self.assertEqual(Bed.mock.requests(), before, "the upstream was asked all the same")
        return error

    def raised(self, call, exception, status, code, kind=None):
        with self.assertRaises(openai.APIStatusError) as caught:
            call()
        error = caught.exception
        self.assertIs(type(error), exception)
        self.assertEqual((error.status_code, error.code), (status, code))
        self.assertTrue(error.request_id)
        self.assertEqual(error.request_id, error.response.headers["x-request-id"])
        if kind:
            self.assertEqual(error.type, kind)
        return error

    def test_401_an_unknown_key(self):
        client = Bed.gateway.client("sk-nobody")
        for call in (lambda: chat(client), lambda: chat(client, stream=True), client.models.list):
            self.refused(call, openai.AuthenticationError, 401, "invalid_api_key", "authentication_error")

    def test_402_a_quota_that_is_used_up(self):
        key_id, key = Bed.new_key("short", *MINIMAL_QUOTA)
        client = Bed.gateway.client(key)
        for stream in (False, True):
            error = self.refused(
                lambda: chat(client, stream=stream), openai.APIStatusError, 402, "quota_exceeded", "billing_error"
            )
            self.assertEqual(error.response.headers["x-tollgate-quota-scope"], "key")
            self.assertIn('"short"', error.message)
        # It can still read its own usage.
        self.assertEqual(get_json(f"{Bed.gateway.url}/api/user/token", key)["data"]["id"], key_id)

    def test_402_an_account_without_balance(self):
        Bed.gateway.create_account("poor", "0.00")
        _, key = Bed.gateway.create_key("poor", "poor")
        error = self.refused(
            lambda: chat(Bed.gateway.client(key)), openai.APIStatusError, 402, "quota_exceeded", "billing_error"
        )
        self.assertEqual(error.response.headers["x-tollgate-quota-scope"], "wallet")

    def test_403_a_blocked_key(self):
        key_id, key = Bed.new_key("blocked")
        client = Bed.gateway.client(key)
        chat(client)
        Bed.gateway.cli("key", "block", str(key_id))
        for call in (lambda: chat(client), client.models.list):
            self.refused(call, openai.PermissionDeniedError, 403, "key_disabled", "permission_error")

    def test_403_a_model_that_the_key_may_not_ask_for(self):
        _, key = Bed.new_key("embeds-only", "--model", "mock-embed")
        client = Bed.gateway.client(key)
        self.refused(
            lambda: chat(client), openai.PermissionDeniedError, 403, "model_not_allowed", "permission_error"
        )
        client.embeddings.create(model="mock-embed", input="allowed")
        self.refused(
            lambda: client.models.retrieve("mock-model"), openai.NotFoundError, 404, "model_not_found"
        )

    def test_403_a_used_up_quota_in_the_relay_profile(self):
        _, key = Bed.new_key("relay", *MINIMAL_QUOTA, "--error-profile", "relay")
        self.refused(
            lambda: chat(Bed.gateway.client(key)), openai.PermissionDeniedError, 403, "insufficient_user_quota"
        )

    def test_404_an_unknown_model(self):
        client = Bed.client()
        messages = [{"role": "user", "content": "x"}]
        for call in (
            lambda: client.chat.completions.create(model="no-such-model", messages=messages),
            lambda: client.models.retrieve("no-such-model"),
        ):
            error = self.refused(call, openai.NotFoundError, 404, "model_not_found", "invalid_request_error")
            self.assertEqual(error.param, "model")

    def test_429_a_used_up_quota_in_the_openai_profile_is_not_retried(self):
        _, key = Bed.new_key("openai", *MINIMAL_QUOTA, "--error-profile", "openai")
        sent = []
        http = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
        with Bed.gateway.client(key, max_retries=2, http_client=http) as client:
            self.refused(
                lambda: chat(client), openai.RateLimitError, 429, "insufficient_quota", "insufficient_quota"
            )
        self.assertEqual(len(sent), 1)

    def test_400_what_the_gateway_refuses(self):
        client = Bed.client()
        for param, options in (("n", {"n": -1}), ("max_tokens", {"max_tokens": 10**15}), ("stream", {"stream": "x"})):
            with self.subTest(param):
                call = lambda: chat(client, extra_body=options)
                error = self.refused(call, openai.BadRequestError, 400, "invalid_request", "invalid_request_error")
                self.assertEqual(error.param, param)

    def test_400_what_the_upstream_refuses_comes_in_its_own_words(self):
        words = {"message": "Too hot.", "type": "invalid_request_error", "code": "too_hot", "param": "temperature"}
        for stream in (False, True):
            call = lambda: chat(Bed.client(), {"status": 400, "error": words}, stream=stream)
            error = self.raised(call, openai.BadRequestError, 400, "too_hot")
            self.assertEqual((error.body, error.param), (words, "temperature"))

    def test_503_an_upstream_that_is_out_and_says_for_how_long(self):
        # 429 and 401 are between the operator and the provider: they are not the caller's. No time mends a credential, so
        # what an upstream says of one is not passed on.
        for status, wait in ((503, "7"), (429, "7"), (401, "5")):
            with self.subTest(status):
                call = lambda: chat(Bed.client(), {"status": status, "retry_after": 7})
                error = self.raised(
                    call, openai.InternalServerError, 503, "no_upstream_available", "upstream_error"
                )
                self.assertEqual(error.response.headers["retry-after"], wait)

    def test_502_an_upstream_that_fails(self):
        call = lambda: chat(Bed.client(), {"status": 500})
        self.raised(call, openai.InternalServerError, 502, "upstream_failed", "upstream_error")

    def test_a_failed_request_costs_nothing(self):
        _, key = Bed.new_key("fails")
        client = Bed.gateway.client(key)
        for script in ({"status": 500}, {"status": 400}, {"cut_after": 0}, {"raw_body": "<html>"}):
            with self.subTest(script), self.assertRaises(openai.APIError):
                chat(client, script)
        standing = get_json(f"{Bed.gateway.url}/api/user/token", key)["data"]
        self.assertEqual((standing["used_usd"], standing["used_tokens"]), ("0.00", 0))
