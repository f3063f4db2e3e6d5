// Last of all: after everything that the other tests did, the books are right and nothing is left open.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bed, eventually } from "./gateway.mjs";

export function ledger() {
  test("the ledger verifies and no hold is open", async () => {
    let report;
    await eventually("no hold is open", async () => {
      report = await bed.gateway.verifyLedger();
      assert.equal(report.ok, true, report.difference);
      return report.verified.open_holds === 0;
    });
    assert.ok(report.verified.charges > 20);
    assert.equal((await bed.mock.stats()).in_flight, 0);
  });

  test("the gateway stops in order", async () => {
    assert.ok(bed.gateway.isAlive());
    assert.equal(await bed.gateway.stop(), 0);
  });
}
