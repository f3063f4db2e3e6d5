// Streams: pieces in order, usage only for those who ask, and every way in which one can end early.

import assert from "node:assert/strict";
import { test } from "node:test";
import { APIError } from "openai";
import { TOOL } from "./answers.mjs";
import { bed, chat, collect, eventually, getJson, textOf, words } from "./gateway.mjs";

export function streams() {
  test("the pieces are the answer in order", async () => {
    const chunks = await collect(chat(bed.client(), { completion_tokens: 40 }, { stream: true }));
    assert.equal(textOf(chunks), words(40));
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const reasons = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason));
    assert.deepEqual(reasons, [...Array(41).fill(null), "stop"]);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  });

  test("usage is not seen by those who did not ask", async () => {
    const chunks = await collect(chat(bed.client(), { completion_tokens: 5 }, { stream: true }));
    assert.ok(chunks.every((chunk) => !chunk.usage && chunk.choices.length === 1));
    // The gateway asked in the caller's place.
    assert.equal(JSON.parse((await bed.mock.lastRequest()).body).stream_options.include_usage, true);
  });

  test("usage comes last for those who ask", async () => {
    const script = { prompt_tokens: 11, completion_tokens: 5 };
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(chat(bed.client(), script, options));
    const last = chunks.pop();
    assert.ok(chunks.every((chunk) => !chunk.usage));
    assert.deepEqual([last.choices, last.usage.prompt_tokens, last.usage.completion_tokens], [[], 11, 5]);
  });

  test("tool calls arrive in pieces", async () => {
    const script = { tool_calls: true, completion_tokens: 3 };
    const chunks = await collect(chat(bed.client(), script, { stream: true, tools: [TOOL] }));
    const calls = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    assert.equal(calls[0].function.name, "mock_tool");
    assert.deepEqual(JSON.parse(calls.map((call) => call.function.arguments ?? "").join("")), { text: words(3) });
  });

  test("the stream helper of the SDK works", async () => {
    const messages = [{ role: "user", content: "Say it." }];
    const runner = bed.client().chat.completions.stream({ model: "mock-model", messages });
    assert.equal(await runner.finalContent(), words(16));
  });

  test("a completion streams", async () => {
    const options = { model: "mock-model", prompt: "one", max_tokens: 6, stream: true };
    const chunks = await collect(bed.client().completions.create(options));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), words(6));
  });

  for (const script of [{ crlf: true }, { comments: true }, { bom: true }, { split: 3 }, { done_twice: true }]) {
    test(`the caller need not care for ${JSON.stringify(script)} of the upstream`, async () => {
      const chunks = await collect(chat(bed.client(), { completion_tokens: 9, ...script }, { stream: true }));
      assert.equal(textOf(chunks), words(9));
    });
  }

  const error = { message: "The model tripped.", type: "server_error", code: "tripped" };
  for (const [script, code] of [
    [{ error_after: 4, error }, "tripped"],
    [{ cut_after: 4, how: "fin" }, "upstream_cut"],
    [{ cut_after: 4, how: "rst" }, "upstream_cut"],
    [{ malformed_after: 4 }, "upstream_malformed"],
  ]) {
    test(`a stream with ${JSON.stringify(script)} throws ${code} after what came before`, async () => {
      const seen = [];
      const reading = (async () => {
        const stream = await chat(bed.client(), { completion_tokens: 10, ...script }, { stream: true });
        for await (const chunk of stream) seen.push(chunk);
      })();
      await assert.rejects(reading, (raised) => {
        // An error of the answer, not of the connection: that would be retried by callers as if nothing had come.
        assert.equal(raised.constructor, APIError);
        assert.equal(raised.code, code);
        return true;
      });
      assert.equal(textOf(seen), words(3));
    });
  }

  test("where the money ends the answer ends as by its length", async () => {
    await bed.gateway.createAccount("short", "0.01");
    const { key } = await bed.gateway.createKey("short", "short");
    const script = { prompt_tokens: 10, completion_tokens: 2000, gap_ms: 8 };
    const options = { stream: true, stream_options: { include_usage: true }, max_tokens: 4000 };
    const seen = [];
    for await (const chunk of await chat(bed.gateway.client(key), script, options)) {
      seen.push(chunk);
      if (seen.length > 1) continue;
      // What the answer would have been paid with is taken away.
      const { balance } = JSON.parse(await bed.gateway.cli("account", "show", "short", "--json"));
      await bed.gateway.cli("account", "top-up", "short", `-${balance}`);
    }
    const usage = seen.pop();
    const count = textOf(seen).split(" word").length - 1;
    assert.ok(count > 100 && count < 2000, `${count}`);
    assert.deepEqual(seen.at(-1).choices.map((choice) => choice.finish_reason), ["length"]);
    assert.deepEqual([usage.choices, usage.usage.completion_tokens], [[], count]);
    assert.equal(new Set([...seen, usage].map((chunk) => chunk.id)).size, 1);
  });

  test("a caller who leaves stops the upstream and nothing else", async () => {
    const { key } = await bed.newKey("leaves");
    const client = bed.gateway.client(key);
    const { cancelled } = await bed.mock.stats();
    // Ten seconds of stream if it were waited for.
    const stream = await chat(client, { completion_tokens: 400, gap_ms: 25 }, { stream: true });
    const seen = [];
    for await (const chunk of stream) {
      seen.push(chunk);
      if (seen.length < 4) continue;
      stream.controller.abort();
      break;
    }
    assert.equal(textOf(seen), words(3));
    await eventually("the upstream is stopped", async () => (await bed.mock.stats()).cancelled === cancelled + 1);
    const standing = async () => (await getJson(`${bed.gateway.url}/api/user/token`, key)).data;
    await eventually("what was produced is charged", async () => (await standing()).request_count === 1);
    // The prompt, and the words that were on their way when the caller left; far from all 400.
    const { used_tokens } = await standing();
    assert.ok(used_tokens >= 3 && used_tokens < 120, `${used_tokens}`);
    assert.ok(bed.gateway.isAlive());
    assert.equal((await chat(client)).choices[0].message.content, words(16));
  });
}
