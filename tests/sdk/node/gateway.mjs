// The mock upstream and the gateway as processes, and what tests ask of them beside the SDK's calls.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import OpenAI from "openai";

const { TOLLGATE_BIN, MOCK_BIN, PATH } = process.env;
export const UPSTREAM_SECRET = "upstream-secret";
const START_MS_MAX = 30_000;
const WAIT_MS_MAX = 10_000;

const CONFIG = (upstream) => `
[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "${upstream}/v1"
api_key = "\${MOCK_KEY}"

[[routes]]
model = "mock-model"
upstreams = ["mock"]

[[prices]]
model = "mock-model"
input_per_million = "1.00"
output_per_million = "2.00"

[[routes]]
model = "mock-embed"
upstreams = ["mock"]

[[prices]]
model = "mock-embed"
input_per_million = "0.02"
`;

export const INPUT_NANOS = 1000n;
export const OUTPUT_NANOS = 2000n;
export const EMBED_NANOS = 20n;

/** What a usage costs at the prices above, in nano-USD. */
export function costOf(usage) {
  return BigInt(usage.prompt_tokens) * INPUT_NANOS + BigInt(usage.completion_tokens ?? 0) * OUTPUT_NANOS;
}

/** A decimal USD amount in nano-USD, exactly: a float would hide a difference of one. */
export function nanos(text) {
  const [, whole, fraction = ""] = /^(\d+)(?:\.(\d{1,9}))?$/.exec(text) ?? assert.fail(`${text} is no amount`);
  return BigInt(whole) * 1_000_000_000n + BigInt(fraction.padEnd(9, "0"));
}

/** Waits for what happens after an answer's last byte; a condition that never holds fails the test. */
export async function eventually(what, condition) {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not within ${WAIT_MS_MAX} ms: ${what}`);
    await sleep(20);
  }
}

export async function getText(url, key) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch(url, { headers, signal: AbortSignal.timeout(WAIT_MS_MAX) });
  assert.equal(answer.status, 200, url);
  return answer.text();
}

export async function getJson(url, key) {
  return JSON.parse(await getText(url, key));
}

/** Starts a server that says where it listens on its standard output. */
async function start(command, args, marker, environment = {}) {
  // Nothing is inherited: a credential in the environment would give the gateway further upstreams.
  const env = { PATH, RUST_LOG: "error", ...environment };
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
  let output = "";
  for await (const line of createInterface({ input: child.stdout })) {
    output += `${line}\n`;
    if (line.startsWith(marker)) break;
  }
  clearTimeout(timer);
  const url = output.match(/ listening on (http:\S+)/)?.[1];
  assert.ok(url, `${command} did not say "${marker}" but: ${output}`);
  const isAlive = () => child.exitCode === null && child.signalCode === null;
  /** Asks it to stop; its exit code. */
  const stop = async () => {
    const force = setTimeout(() => child.kill("SIGKILL"), WAIT_MS_MAX);
    child.kill("SIGTERM");
    const [code] = await exited;
    clearTimeout(force);
    return code;
  };
  return { url, output, isAlive, stop };
}

export async function startMock() {
  const args = ["--listen", "127.0.0.1:0", "--key", UPSTREAM_SECRET];
  const server = await start(MOCK_BIN, args, "mock listening on");
  const stats = () => getJson(`${server.url}/mock/stats`);
  const tell = async (path, body) => {
    const answer = await fetch(server.url + path, { method: "POST", body, signal: AbortSignal.timeout(WAIT_MS_MAX) });
    assert.equal(answer.status, 200, path);
    await answer.text();
  };
  return {
    ...server,
    stats,
    /** What requests get that bring no script, as those of other dialects cannot; `null` is the usual answer. */
    play: (script) => tell("/mock/script", JSON.stringify(script)),
    /** Forgets what it was asked. */
    reset: () => tell("/mock/reset", ""),
    requests: async () => (await stats()).requests,
    lastRequest: async () => (await stats()).recent.at(-1),
  };
}

/** Starts a gateway over a mock; without one, as it starts with no configuration at all. */
export async function startGateway(mock, text = CONFIG) {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-sdk-"));
  const data = join(folder, "data");
  const args = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0"];
  if (mock) {
    const config = join(folder, "tollgate.toml");
    await writeFile(config, text(mock.url));
    args.push("--config", config);
  }
  const server = await start(TOLLGATE_BIN, args, "tollgate listening on", { MOCK_KEY: UPSTREAM_SECRET });
  const cli = async (...words) => {
    const done = promisify(execFile)(TOLLGATE_BIN, [...words, "--data-dir", data], { timeout: WAIT_MS_MAX });
    return (await done).stdout;
  };
  return {
    ...server,
    /** The key that a first start shows. */
    firstKey: server.output.match(/^\s+key\s+(sk-\S+)/m)?.[1],
    cli,
    createAccount: (name, balance = "5.00") => cli("account", "create", name, "--balance", balance),
    createKey: async (account, name, ...options) =>
      JSON.parse(await cli("key", "create", "--account", account, "--name", name, ...options, "--json")),
    verifyLedger: async () => JSON.parse(await cli("ledger", "verify", "--json")),
    // A retry would hide the failure that a test is about.
    client: (apiKey, options = {}) =>
      new OpenAI({ apiKey, baseURL: `${server.url}/v1`, maxRetries: 0, timeout: 20_000, ...options }),
    stop: async () => {
      const code = await server.stop();
      await rm(folder, { recursive: true, force: true });
      return code;
    },
  };
}

/** What all tests share: one mock, one gateway, one account with a key without restrictions. */
export const bed = {
  async start() {
    this.mock = await startMock();
    this.gateway = await startGateway(this.mock);
    await this.gateway.createAccount("sdk");
    this.key = (await this.newKey("main")).key;
  },
  client(options) {
    return this.gateway.client(this.key, options);
  },
  newKey(name, ...options) {
    return this.gateway.createKey("sdk", name, ...options);
  },
  async stop() {
    for (const server of [this.gateway, this.mock]) {
      if (server?.isAlive()) await server.stop();
    }
  },
};

/** A short chat; `script` is what the mock shall do. Unknown fields need no special place in this SDK. */
export function chat(client, script, options = {}) {
  const messages = [{ role: "user", content: "Say it." }];
  return client.chat.completions.create({ model: "mock-model", messages, mock: script, ...options });
}

/** Everything that a stream gives. */
export async function collect(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

export function textOf(chunks) {
  return chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta.content ?? "")).join("");
}

export const words = (count) => " word".repeat(count);
