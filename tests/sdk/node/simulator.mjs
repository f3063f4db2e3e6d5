// A start without any configuration answers at once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { collect, nanos, startGateway, textOf } from "./gateway.mjs";

const messages = [{ role: "user", content: "Hello" }];

export function simulator() {
  let gateway;
  let client;
  before(async () => {
    gateway = await startGateway();
    client = gateway.client(gateway.firstKey);
  });
  after(() => gateway.stop());

  test("a chat is answered and priced", async () => {
    const { data, response } = await client.chat.completions.create({ model: "sim-small", messages }).withResponse();
    assert.ok(data.choices[0].message.content);
    const cost = BigInt(data.usage.prompt_tokens) * 100n + BigInt(data.usage.completion_tokens) * 400n;
    assert.equal(nanos(response.headers.get("x-tollgate-cost")), cost);
  });

  test("a chat streams", async () => {
    const chunks = await collect(client.chat.completions.create({ model: "sim-large", messages, stream: true }));
    assert.ok(textOf(chunks));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  });

  test("embeddings are the same in both encodings", async () => {
    const embed = async (encoding) => {
      const answer = await client.embeddings.create({ model: "sim-embed", input: ["a", "b"], ...encoding });
      assert.deepEqual(answer.data.map((item) => item.index), [0, 1]);
      return answer.data[0].embedding;
    };
    // The SDK asks for base64 by itself, and takes whatever comes for that.
    const [base64, floats] = [await embed({}), await embed({ encoding_format: "float" })];
    assert.ok(floats.length > 0);
    assert.equal(base64.length, floats.length);
    base64.forEach((value, place) => assert.ok(Math.abs(value - floats[place]) < 1e-6));
  });

  test("its models are listed", async () => {
    const models = (await client.models.list()).data.map((model) => model.id).sort();
    assert.deepEqual(models, ["sim-embed", "sim-large", "sim-small"]);
  });
}
