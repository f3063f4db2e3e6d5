// Refusals: the SDK's own exception class, the status, the code, and no request more than was sent.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from "openai";
import { bed, chat, getJson } from "./gateway.mjs";

const MINIMAL_QUOTA = ["--quota", "0.000001"];

async function raised(call, exception, status, code, type) {
  let error;
  await assert.rejects(async () => call(), (caught) => {
    error = caught;
    return true;
  });
  assert.equal(error.constructor, exception, `${error}`);
  assert.deepEqual([error.status, error.code], [status, code]);
  assert.match(error.requestID, /^req_/);
  if (type) assert.equal(error.type, type);
  return error;
}

/** The error of a call that must not reach the upstream. */
async function refused(call, ...expected) {
  const before = await bed.mock.requests();
  const error = await raised(call, ...expected);
  assert.equal(await bed.mock.requests(), before, "the upstream was asked all the same");
  return error;
}

export function errors() {
  test("401: an unknown key", async () => {
    const client = bed.gateway.client("sk-nobody");
    for (const call of [() => chat(client), () => chat(client, undefined, { stream: true }), () => client.models.list()]) {
      await refused(call, AuthenticationError, 401, "invalid_api_key", "authentication_error");
    }
  });

  test("402: a quota that is used up", async () => {
    const { id, key } = await bed.newKey("short", ...MINIMAL_QUOTA);
    const client = bed.gateway.client(key);
    for (const stream of [false, true]) {
      const call = () => chat(client, undefined, { stream });
      const error = await refused(call, APIError, 402, "quota_exceeded", "billing_error");
      assert.equal(error.headers.get("x-tollgate-quota-scope"), "key");
      assert.ok(error.message.includes('"short"'), error.message);
    }
    // It can still read its own usage.
    assert.equal((await getJson(`${bed.gateway.url}/api/user/token`, key)).data.id, id);
  });

  test("403: a blocked key", async () => {
    const { id, key } = await bed.newKey("blocked");
    const client = bed.gateway.client(key);
    await chat(client);
    await bed.gateway.cli("key", "block", `${id}`);
    for (const call of [() => chat(client), () => client.models.list()]) {
      await refused(call, PermissionDeniedError, 403, "key_disabled", "permission_error");
    }
  });

  test("403: a model that the key may not ask for", async () => {
    const { key } = await bed.newKey("embeds-only", "--model", "mock-embed");
    const client = bed.gateway.client(key);
    await refused(() => chat(client), PermissionDeniedError, 403, "model_not_allowed", "permission_error");
    await client.embeddings.create({ model: "mock-embed", input: "allowed" });
  });

  test("403: a used-up quota in the relay profile", async () => {
    const { key } = await bed.newKey("relay", ...MINIMAL_QUOTA, "--error-profile", "relay");
    await refused(() => chat(bed.gateway.client(key)), PermissionDeniedError, 403, "insufficient_user_quota");
  });

  test("404: an unknown model", async () => {
    const client = bed.client();
    for (const call of [
      () => chat(client, undefined, { model: "no-such-model" }),
      () => client.models.retrieve("no-such-model"),
    ]) {
      const error = await refused(call, NotFoundError, 404, "model_not_found", "invalid_request_error");
      assert.equal(error.param, "model");
    }
  });

  test("429: a used-up quota in the openai profile is not retried", async () => {
    const { key } = await bed.newKey("openai", ...MINIMAL_QUOTA, "--error-profile", "openai");
    let sent = 0;
    const counted = (...request) => {
      sent += 1;
      return fetch(...request);
    };
    const client = bed.gateway.client(key, { maxRetries: 2, fetch: counted });
    await refused(() => chat(client), RateLimitError, 429, "insufficient_quota", "insufficient_quota");
    assert.equal(sent, 1);
  });

  for (const [param, value] of [["n", -1], ["max_tokens", 10 ** 15], ["stream", "x"]]) {
    test(`400: ${param} is ${value}`, async () => {
      const call = () => chat(bed.client(), undefined, { [param]: value });
      const error = await refused(call, BadRequestError, 400, "invalid_request", "invalid_request_error");
      assert.equal(error.param, param);
    });
  }

  test("400: what the upstream refuses comes in its own words", async () => {
    const words = { message: "Too hot.", type: "invalid_request_error", code: "too_hot", param: "temperature" };
    for (const stream of [false, true]) {
      const call = () => chat(bed.client(), { status: 400, error: words }, { stream });
      const error = await raised(call, BadRequestError, 400, "too_hot");
      assert.deepEqual(error.error, words);
    }
  });

  // 429 and 401 are between the operator and the provider: they are not the caller's. No time mends a credential, so what an
  // upstream says of one is not passed on.
  for (const [status, wait] of [[503, "7"], [429, "7"], [401, "5"]]) {
    test(`503: an upstream that answers ${status} and says for how long`, async () => {
      const call = () => chat(bed.client(), { status, retry_after: 7 });
      const error = await raised(call, InternalServerError, 503, "no_upstream_available", "upstream_error");
      assert.equal(error.headers.get("retry-after"), wait);
    });
  }

  test("502: an upstream that fails costs nothing", async () => {
    const { key } = await bed.newKey("fails");
    const client = bed.gateway.client(key);
    for (const script of [{ status: 500 }, { cut_after: 0 }, { raw_body: "<html>" }]) {
      await raised(() => chat(client, script), InternalServerError, 502, "upstream_failed", "upstream_error");
    }
    const { data } = await getJson(`${bed.gateway.url}/api/user/token`, key);
    assert.deepEqual([data.used_usd, data.used_tokens], ["0.00", 0]);
  });
}
