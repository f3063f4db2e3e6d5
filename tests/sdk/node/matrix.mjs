// Every official SDK with every family of providers: one list of scenarios, `scenarios.json` beside the folders of the
// runners, which MATRIX_SCENARIOS names. What was found is left in the folder MATRIX_RESULTS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CALLERS, Failed } from "./callers.mjs";
import { nanos, startGateway, startMock, words } from "./gateway.mjs";

const SCENARIOS = JSON.parse(readFileSync(process.env.MATRIX_SCENARIOS, "utf8"));

const UPSTREAM = (family, url) => `
[[upstreams]]
name = "${family}"
provider = "${family}"
base_url = "${url}"
api_key = "\${MOCK_KEY}"

[[routes]]
model = "over-${family}"
upstreams = ["${family}"]
upstream_model = "mock-model"

[[prices]]
model = "over-${family}"
input_per_million = "1.00"
cached_input_per_million = "0.10"
output_per_million = "2.00"
`;
/** Where each family is asked, below the mock's address. */
const BASES = { openai: "/v1", anthropic: "", gemini: "/v1beta" };
const CONFIG = (upstream) => SCENARIOS.upstreams.map((family) => UPSTREAM(family, upstream + BASES[family])).join("");
const INPUT_NANOS = 1000n;
const CACHED_NANOS = 100n;
const OUTPUT_NANOS = 2000n;

/** By the path at which a provider was asked. */
const SEEN_AT = {
  "/v1/chat/completions": "chat",
  "/v1/embeddings": "embeddings",
  "/v1/responses": "responses",
  "/v1/messages": "messages",
  "/v1beta/": "gemini",
};

export function matrix() {
  let mock, gateway, keys;
  const results = [];

  before(async () => {
    mock = await startMock();
    gateway = await startGateway(mock, CONFIG);
    await gateway.createAccount("matrix");
    const limited = await gateway.createKey("matrix", "limited");
    const options = ["--metric", "requests", "--amount", "1", "--window", "day", "--key", String(limited.id)];
    await gateway.cli("limit", "create", "one", ...options);
    keys = { limited: limited.key, usual: (await gateway.createKey("matrix", "usual")).key, unknown: "sk-nobody" };
    await new CALLERS.chat(gateway.url, limited.key).send(SCENARIOS.asks.plain.chat, "over-openai");
  });

  after(async () => {
    for (const server of [gateway, mock]) if (server?.isAlive()) await server.stop();
    if (!process.env.MATRIX_RESULTS) return;
    await mkdir(process.env.MATRIX_RESULTS, { recursive: true });
    await writeFile(join(process.env.MATRIX_RESULTS, "node.json"), JSON.stringify(results, undefined, 1));
  });

  // A test of its own for each, so that one failure hides no other.
  for (const scenario of SCENARIOS.scenarios) {
    for (const name of SCENARIOS.callers) {
      for (const family of SCENARIOS.upstreams) {
        test(`${scenario.name}: ${name} over ${family}`, async () => {
          const found = await run({ mock, gateway, keys }, scenario, name, family);
          results.push({ scenario: scenario.name, caller: name, upstream: family, ...found });
        });
      }
    }
  }
}

/** One scenario by one SDK with one family of providers: what came of it. */
async function run({ mock, gateway, keys }, scenario, name, family) {
  const exception = exceptionOf(scenario.name, name, family);
  const expected = exception?.outcome ?? "supported";
  const ask = SCENARIOS.asks[scenario.ask]?.[name];
  const kind = scenario.kind ?? "answer";
  const caller = new CALLERS[name](gateway.url, keys[scenario.key ?? "usual"]);
  if (expected === "absent") {
    const method = { count: "count", embeddings: "vectors" }[kind] ?? "send";
    assert.ok(!ask || !caller[method], "there is something to ask");
    return { outcome: "absent" };
  }
  const model = scenario.model ?? `over-${family}`;
  await mock.play(scenario.script);
  await mock.reset();
  const askedIn = async () => {
    const last = await mock.lastRequest();
    return { asked_in: last ? dialectAt(last.line) : null };
  };
  try {
    const unseen = exception?.unseen ?? [];
    const dropped = await perform(kind, { mock, caller, scenario, ask, model, unseen });
    assert.notEqual(expected, "refused", "it was answered");
    assert.deepEqual(dropped, exception?.drops ?? []);
    const found = dropped.length > 0 ? { outcome: "drops", drops: dropped } : { outcome: expected };
    return { ...found, ...(await askedIn()) };
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    assert.equal(expected, "refused", error.message);
    assert.equal(error.status, exception.status, error.message);
    return { outcome: "refused", status: error.status, ...(await askedIn()) };
  }
}

/** What was dropped. */
async function perform(kind, { mock, caller, scenario, ask, model, unseen }) {
  const { expect } = scenario;
  let dropped = [];
  if (kind === "models") {
    assert.ok((await caller.models()).includes(model));
  } else if (kind === "count") {
    assert.ok((await caller.count(ask, model)) > 0);
  } else if (kind === "embeddings") {
    const { vectors, usage, headers } = await caller.vectors(ask, model);
    assert.deepEqual(vectors.map((vector) => vector.length), Array(expect.vectors).fill(8));
    if (usage) assert.equal(nanos(headers["x-tollgate-cost"]), priceOf(usage));
  } else if (expect.error || expect.broken) {
    await fails(caller, scenario, ask, model);
  } else {
    dropped = await answers({ mock, caller, scenario, ask, model, unseen });
  }
  if (expect.reaches === false) assert.equal(await mock.requests(), 0);
  return dropped;
}

const call = (caller, scenario, ask, model) => (scenario.stream ? caller.stream(ask, model) : caller.send(ask, model));

async function fails(caller, scenario, ask, model) {
  const failed = await call(caller, scenario, ask, model).then(
    () => assert.fail("it did not fail"),
    (error) => error,
  );
  if (!(failed instanceof Failed)) throw failed;
  if (scenario.expect.broken) assert.ok(failed.seen && failed.seen !== words(9), "a part of it came");
  else assert.equal(failed.status, scenario.expect.error, failed.message);
}

async function answers({ mock, caller, scenario, ask, model, unseen }) {
  const { expect } = scenario;
  const answer = await call(caller, scenario, ask, model);
  check(answer, expect);
  if (!scenario.stream) assert.equal(nanos(answer.headers["x-tollgate-cost"]), priceOf(answer.usage));
  await assertSeen(mock, expect.seen, unseen);
  if (expect.then) {
    await mock.play(expect.then.script);
    const last = await call(caller, scenario, caller.answered(ask, answer, "done"), model);
    assert.equal(last.text, words(expect.then.words));
    await assertSeen(mock, expect.then.seen, unseen);
  }
  return (answer.headers["x-tollgate-dropped"] ?? "").split(", ").filter(Boolean);
}

/** What the upstream was sent last, and what it was not. */
async function assertSeen(mock, seen, unseen) {
  const request = await mock.lastRequest();
  for (const [pointer, value] of Object.entries(seen?.[dialectAt(request.line)] ?? {})) {
    const found = at(JSON.parse(request.body), pointer);
    if (unseen.includes(pointer)) assert.equal(found, undefined, pointer);
    else assert.deepEqual([pointer, value === "*" && found !== undefined ? "*" : found], [pointer, value]);
  }
}

function check(answer, expect) {
  const text = words(expect.words ?? 0);
  if (expect.calls) {
    const calls = answer.calls.map(({ name, args }) => ({ name, args }));
    assert.deepEqual(calls, Array(expect.calls).fill({ name: "mock_tool", args: { text } }));
    assert.equal(new Set(answer.calls.map(({ id }) => id)).size, expect.calls);
  } else if (expect.json) {
    assert.deepEqual(JSON.parse(answer.text), expect.json);
  } else {
    assert.equal(answer.text, text);
  }
  assert.equal(answer.choices, expect.choices ?? 1);
  if (expect.finish) assert.equal(answer.finish, expect.finish);
  for (const [name, count] of Object.entries(expect.usage ?? {})) {
    assert.deepEqual([name, answer.usage[name]], [name, count]);
  }
}

function priceOf({ input, cached, output }) {
  return BigInt(input - cached) * INPUT_NANOS + BigInt(cached) * CACHED_NANOS + BigInt(output) * OUTPUT_NANOS;
}

/** The first that fits; what it leaves open fits all. */
function exceptionOf(scenario, caller, upstream) {
  const fits = (exception) =>
    Object.entries({ scenario, caller, upstream }).every(([name, value]) => (exception[name] ?? value) === value);
  return SCENARIOS.exceptions.find(fits);
}

function dialectAt(line) {
  const path = line.split(" ")[1];
  return Object.entries(SEEN_AT).find(([begin]) => path.startsWith(begin))[1];
}

/** What a JSON pointer finds. */
function at(body, pointer) {
  const [before, after] = pointer.split("/*/");
  const found = before.split("/").slice(1).reduce((value, name) => value?.[name], body);
  if (after === undefined) return found;
  return found?.map((element) => at(element, `/${after}`)).find((value) => value !== undefined);
}
