// Answers in one piece, and lists: what the SDK gives is what the upstream said.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMBED_NANOS, UPSTREAM_SECRET, bed, chat, collect, costOf, nanos, words } from "./gateway.mjs";

export const TOOL = {
  type: "function",
  function: { name: "mock_tool", parameters: { type: "object", properties: { text: { type: "string" } } } },
};

export function answers() {
  test("a chat is answered and priced exactly", async () => {
    const call = chat(bed.client(), { prompt_tokens: 1234, completion_tokens: 567 });
    const { data, response, request_id } = await call.withResponse();
    assert.equal(data.choices[0].message.content, words(567));
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.deepEqual([data.usage.prompt_tokens, data.usage.completion_tokens, data.usage.total_tokens], [1234, 567, 1801]);
    assert.equal(response.headers.get("x-tollgate-model"), "mock-model");
    assert.match(request_id, /^req_[0-9a-z]+$/);
    assert.equal(data._request_id, request_id);
    assert.equal(response.headers.get("x-tollgate-upstream"), null);
    assert.equal(nanos(response.headers.get("x-tollgate-cost")), costOf(data.usage));
    assert.equal(response.headers.get("x-tollgate-cost"), "0.002368");
  });

  test("several choices are all billed", async () => {
    const call = chat(bed.client(), { prompt_tokens: 10, completion_tokens: 5 }, { n: 3 });
    const { data, response } = await call.withResponse();
    assert.deepEqual(data.choices.map((choice) => choice.index), [0, 1, 2]);
    assert.equal(nanos(response.headers.get("x-tollgate-cost")), 10n * 1000n + 15n * 2000n);
  });

  test("a cap reaches the upstream", async () => {
    const completion = await chat(bed.client(), undefined, { max_completion_tokens: 4 });
    assert.equal(completion.choices[0].message.content, words(4));
    assert.equal(completion.choices[0].finish_reason, "length");
  });

  test("parallel calls are each answered", async () => {
    const client = bed.client();
    const tokens = [1, 2, 3, 4, 5, 6, 7, 8];
    const calls = tokens.map((count) => chat(client, { completion_tokens: count, first_byte_ms: 50 }));
    const completions = await Promise.all(calls);
    assert.deepEqual(completions.map((c) => c.choices[0].message.content), tokens.map(words));
    assert.equal(new Set(completions.map((c) => c._request_id)).size, 8);
  });

  test("tool calls arrive", async () => {
    const completion = await chat(bed.client(), { tool_calls: true, completion_tokens: 3 }, { tools: [TOOL] });
    assert.equal(completion.choices[0].finish_reason, "tool_calls");
    const [call] = completion.choices[0].message.tool_calls;
    assert.equal(call.function.name, "mock_tool");
    assert.deepEqual(JSON.parse(call.function.arguments), { text: words(3) });
    assert.deepEqual(JSON.parse((await bed.mock.lastRequest()).body).tools, [TOOL]);
  });

  test("a completion is answered", async () => {
    const call = bed.client().completions.create({ model: "mock-model", prompt: "one two three", max_tokens: 7 });
    const { data, response } = await call.withResponse();
    assert.equal(data.choices[0].text, words(7));
    assert.equal(data.usage.prompt_tokens, 3);
    assert.equal(nanos(response.headers.get("x-tollgate-cost")), costOf(data.usage));
  });

  test("embeddings are answered in both encodings", async () => {
    const vectors = [];
    // The SDK asks for base64 unless told otherwise, and gives numbers either way.
    for (const encoding of [{}, { encoding_format: "float" }]) {
      const input = ["one two", "three"];
      const call = bed.client().embeddings.create({ model: "mock-embed", input, ...encoding });
      const { data, response } = await call.withResponse();
      assert.deepEqual(data.data.map((item) => [item.index, item.embedding.length]), [[0, 8], [1, 8]]);
      assert.equal(nanos(response.headers.get("x-tollgate-cost")), 3n * EMBED_NANOS);
      vectors.push(data.data[1].embedding);
    }
    const [base64, floats] = vectors;
    base64.forEach((value, place) => assert.ok(Math.abs(value - floats[place]) < 1e-6));
  });

  test("an idempotency key makes a call happen once", async () => {
    const client = bed.client();
    const ask = (key, options) => client.chat.completions.create(
      {
        model: "mock-model",
        messages: [{ role: "user", content: "Say it." }],
        mock: { prompt_tokens: 10, completion_tokens: 5 },
        ...options,
      },
      { headers: { "Idempotency-Key": key } },
    );
    const before = (await bed.mock.stats()).requests;
    const first = await ask("node-answers").withResponse();
    const again = await ask("node-answers").withResponse();
    assert.deepEqual(again.data, first.data);
    assert.equal(again.response.headers.get("idempotent-replayed"), "true");
    for (const name of ["x-request-id", "x-tollgate-cost"]) {
      assert.equal(again.response.headers.get(name), first.response.headers.get(name));
    }
    const streamed = [];
    for (let repeat = 0; repeat < 2; repeat += 1) streamed.push(await collect(ask("node-stream", { stream: true })));
    assert.deepEqual(streamed[1], streamed[0]);
    assert.equal((await bed.mock.stats()).requests, before + 2);
    await assert.rejects(ask("node-answers", { max_tokens: 9 }), { status: 422, code: "idempotency_mismatch" });
  });

  test("unknown fields survive and secrets do not", async () => {
    const vendor = { nested: [1, 2.5, null, "é\u2028"], deep: { top_k: 40 } };
    await chat(bed.client(), undefined, { x_vendor: vendor, top_k: 40, user: "end-user-7" });
    const seen = await bed.mock.lastRequest();
    const body = JSON.parse(seen.body);
    assert.deepEqual([body.x_vendor, body.top_k, body.user], [vendor, 40, "end-user-7"]);
    assert.equal(seen.headers.authorization, `Bearer ${UPSTREAM_SECRET}`);
    assert.ok(!JSON.stringify(seen).includes(bed.key));
  });

  test("models are listed and retrieved", async () => {
    const models = [];
    for await (const model of bed.client().models.list()) models.push(model.id);
    assert.deepEqual(models.sort(), ["mock-embed", "mock-model"]);
    const one = await bed.client().models.retrieve("mock-model");
    assert.deepEqual([one.id, one.object], ["mock-model", "model"]);
  });
}
