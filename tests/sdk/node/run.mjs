// Runs all tests of the official Node SDKs against a gateway over the mock upstream.
//
// TOLLGATE_BIN and MOCK_BIN name the two executables.

import { after, describe } from "node:test";
import { answers } from "./answers.mjs";
import { errors } from "./errors.mjs";
import { bed } from "./gateway.mjs";
import { ledger } from "./ledger.mjs";
import { limits } from "./limits.mjs";
import { matrix } from "./matrix.mjs";
import { simulator } from "./simulator.mjs";
import { streams } from "./streams.mjs";
import { usage } from "./usage.mjs";

// No setting of this machine may stand between the tests and the gateway.
for (const name of Object.keys(process.env)) {
  if (/^(OPENAI|ANTHROPIC|GEMINI|GOOGLE)_/.test(name)) delete process.env[name];
}

after(() => bed.stop());
try {
  await bed.start();
} catch (error) {
  await bed.stop();
  throw error;
}

// In this order: the last one looks at what all others left behind.
for (const suite of [answers, streams, errors, limits, usage, matrix, simulator, ledger]) {
  describe(suite.name, suite);
}
