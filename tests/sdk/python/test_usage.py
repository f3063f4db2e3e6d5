"""The usage endpoints that client tools read agree with what the calls cost, to the nano-USD."""

import unittest
from decimal import Decimal

from gateway import EMBED_NANOS, Bed, chat, cost_of, get_json, usd

QUOTA = Decimal("1.00")
UNITS_PER_USD = 500_000


class Usage(unittest.TestCase):
    def test_every_endpoint_tells_the_sum_of_the_costs(self):
        key_id, key = Bed.new_key("counted", "--quota", str(QUOTA))
        client = Bed.gateway.client(key)
        total, tokens = Decimal(0), 0
        for prompt, completion in ((1, 1), (17, 3), (1000, 999), (123_457, 2)):
            script = {"prompt_tokens": prompt, "completion_tokens": completion, "words": 1}
            raw = chat(client.with_raw_response, script)
            self.assertEqual(Decimal(raw.headers["x-tollgate-cost"]), cost_of(raw.parse().usage))
            total += Decimal(raw.headers["x-tollgate-cost"])
            tokens += prompt + completion
            *_, last = chat(client, script, stream=True, stream_options={"include_usage": True})
            total += cost_of(last.usage)
            tokens += prompt + completion
        embedded = client.embeddings.create(model="mock-embed", input="one two three")
        total += usd(embedded.usage.prompt_tokens * EMBED_NANOS)
        tokens += embedded.usage.prompt_tokens
        self.assertEqual(total, Decimal("0.25297006"))

        url = Bed.gateway.url
        for prefix in ("/v1", ""):
            usage = get_json(f"{url}{prefix}/dashboard/billing/usage", key)
            self.assertEqual((usage["object"], usage["total_usage"]), ("list", total * 100))
            subscription = get_json(f"{url}{prefix}/dashboard/billing/subscription", key)
            self.assertEqual(subscription["object"], "billing_subscription")
            self.assertEqual(Decimal(subscription["hard_limit_usd"]), QUOTA)
        # Client tools ask for days; the SDK's own transport reaches them too.
        dated = client.get("/dashboard/billing/usage?start_date=2020-01-01&end_date=2099-12-31", cast_to=object)
        self.assertAlmostEqual(dated["total_usage"], float(total * 100), places=9)
        early = client.get("/dashboard/billing/usage?start_date=2020-01-01&end_date=2020-12-31", cast_to=object)
        self.assertEqual(early["total_usage"], 0)

        standing = get_json(f"{url}/api/user/token", key)["data"]
        self.assertEqual((standing["id"], standing["name"], standing["account"]), (key_id, "counted", "sdk"))
        self.assertEqual((Decimal(standing["used_usd"]), Decimal(standing["remain_usd"])), (total, QUOTA - total))
        self.assertEqual((standing["used_tokens"], standing["request_count"]), (tokens, 9))
        self.assertEqual(standing["unlimited_quota"], False)

        units = get_json(f"{url}/api/usage/token/", key)["data"]
        # Rounded down, each: what is shown is never more than what is there.
        self.assertEqual(units["total_granted"], int(QUOTA * UNITS_PER_USD))
        self.assertEqual(units["total_used"], int(total * UNITS_PER_USD))
        self.assertEqual(units["total_available"], int((QUOTA - total) * UNITS_PER_USD))

    def test_a_quota_pays_for_what_fits_and_for_nothing_more(self):
        _, key = Bed.new_key("fits", "--quota", "0.01", "--on-short-funds", "refuse")
        client, served = Bed.gateway.client(key), 0
        before = Bed.mock.requests()
        script = {"prompt_tokens": 100, "completion_tokens": 1000, "words": 1}
        for _ in range(12):
            try:
                chat(client, script, max_tokens=1000)
                served += 1
            except Exception as error:
                self.assertEqual(error.status_code, 402)
        # Each costs 0.0021; the fifth would need more than what is left.
        self.assertEqual((served, Bed.mock.requests() - before), (4, 4))
        standing = get_json(f"{Bed.gateway.url}/api/user/token", key)["data"]
        self.assertEqual((standing["used_usd"], standing["remain_usd"]), ("0.0084", "0.0016"))
