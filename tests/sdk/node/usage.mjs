// The usage endpoints that client tools read agree with what the calls cost, to the nano-USD.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMBED_NANOS, bed, chat, collect, costOf, getJson, getText, nanos } from "./gateway.mjs";

const NANOS_PER_UNIT = 2000n;
const QUOTA = nanos("1.00");

export function usage() {
  test("every endpoint tells the sum of the costs", async () => {
    const { key } = await bed.newKey("counted", "--quota", "1.00");
    const client = bed.gateway.client(key);
    let [total, tokens] = [0n, 0];
    for (const [prompt_tokens, completion_tokens] of [[1, 1], [17, 3], [1000, 999], [123_457, 2]]) {
      const script = { prompt_tokens, completion_tokens, words: 1 };
      const { data, response } = await chat(client, script).withResponse();
      const cost = nanos(response.headers.get("x-tollgate-cost"));
      assert.equal(cost, costOf(data.usage));
      const options = { stream: true, stream_options: { include_usage: true } };
      const last = (await collect(chat(client, script, options))).at(-1);
      total += cost + costOf(last.usage);
      tokens += 2 * (prompt_tokens + completion_tokens);
    }
    const embedded = await client.embeddings.create({ model: "mock-embed", input: "one two three" });
    total += BigInt(embedded.usage.prompt_tokens) * EMBED_NANOS;
    tokens += embedded.usage.prompt_tokens;
    assert.equal(total, 252_970_060n);

    const { url } = bed.gateway;
    for (const prefix of ["/v1", ""]) {
      // Cents, as text: the number is exact and JavaScript's is not.
      const used = await getText(`${url}${prefix}/dashboard/billing/usage`, key);
      assert.equal(used.match(/"total_usage":([\d.]+)/)[1], "25.297006");
      const subscription = await getJson(`${url}${prefix}/dashboard/billing/subscription`, key);
      assert.deepEqual([subscription.object, subscription.hard_limit_usd], ["billing_subscription", 1]);
    }
    // Client tools ask for days; the SDK's own transport reaches them too.
    const dated = (start, end) =>
      client.get("/dashboard/billing/usage", { query: { start_date: start, end_date: end } });
    assert.equal((await dated("2020-01-01", "2099-12-31")).total_usage, 25.297006);
    assert.equal((await dated("2020-01-01", "2020-12-31")).total_usage, 0);

    const standing = (await getJson(`${url}/api/user/token`, key)).data;
    assert.deepEqual([nanos(standing.used_usd), nanos(standing.remain_usd)], [total, QUOTA - total]);
    assert.deepEqual([standing.used_tokens, standing.request_count, standing.name], [tokens, 9, "counted"]);

    const units = (await getJson(`${url}/api/usage/token/`, key)).data;
    // Rounded down, each: what is shown is never more than what is there.
    const expected = [QUOTA, total, QUOTA - total].map((amount) => Number(amount / NANOS_PER_UNIT));
    assert.deepEqual([units.total_granted, units.total_used, units.total_available], expected);
  });
}
