// Limits: the SDK's own way to come again, by nothing but the headers of a refusal, brings every request through.

import assert from "node:assert/strict";
import { test } from "node:test";
import { RateLimitError } from "openai";
import { bed, chat } from "./gateway.mjs";

const PER_SECOND = 5;

async function limitedKey(name, amount, window) {
  const { id, key } = await bed.newKey(name);
  const terms = ["--metric", "requests", "--amount", `${amount}`, "--window", window, "--key", `${id}`];
  await bed.gateway.cli("limit", "create", `sdk-node-${name}`, ...terms);
  return key;
}

export function limits() {
  for (const [requests, maxRetries] of [[20, 5]]) {
    test(`${requests} requests at once succeed under a limit of ${PER_SECOND} per second`, async () => {
      const client = bed.gateway.client(await limitedKey(`paced-${requests}`, PER_SECOND, "second"), { maxRetries });
      const before = await bed.mock.requests();
      const began = performance.now();
      await Promise.all(Array.from({ length: requests }, () => chat(client)));
      const tookSeconds = (performance.now() - began) / 1000;
      assert.equal((await bed.mock.requests()) - before, requests, "what was refused did not reach the upstream");
      // Of the last request and the fifth before it, one came a second or more after the other, and so on to the first.
      assert.ok(tookSeconds >= Math.floor((requests - 1) / PER_SECOND), `${tookSeconds} s`);
    });
  }

  test("429: a refusal says when to come again", async () => {
    const client = bed.gateway.client(await limitedKey("refused-once", 1, "hour"));
    const { response } = await chat(client).withResponse();
    assert.equal(response.headers.get("x-ratelimit-remaining-requests"), "0");
    await assert.rejects(async () => chat(client), (error) => {
      assert.equal(error.constructor, RateLimitError, `${error}`);
      assert.equal(error.code, "rate_limit_exceeded");
      const waitMs = Number(error.headers.get("retry-after-ms"));
      assert.ok(waitMs > 0 && waitMs <= 3_600_000, `${waitMs}`);
      return true;
    });
  });
}
