/** The stage "policy" of `micro.ts`: the lookup of a packet that opens a flow. What the engine costs is in `bench/policy.ts`. */
import { PolicyTable } from "../../../src/policy/table.ts";
import { FORWARD } from "../../../src/verdict.ts";
import { policyOf, type TestRule } from "../../../test/fakes/mesh_node.ts";
import type { Measure } from "./measure.ts";

const IDENTITIES = 500;
const PORTS = 20;
const FIRST_IDENTITY = 65536;
const TCP = 6;

export function benchPolicy(measure: Measure): void {
  const rules: TestRule[] = [];
  for (let identity = 0; identity < IDENTITIES; identity++) {
    for (let port = 0; port < PORTS; port++) {
      rules.push({ identity: FIRST_IDENTITY + identity, protocol: TCP, port: 1000 + port, verdict: "allow" });
    }
  }
  const table = new PolicyTable();
  table.apply(policyOf(1, rules, rules));
  for (const [name, firstPort] of [["allowed", 1000], ["refused", 5000]] as const) {
    measure(`policy ${name}, ${IDENTITIES} identities with ${PORTS} ports`, 4_000_000, (count) => {
      let forwarded = 0;
      for (let i = 0; i < count; i++) {
        if (table.lookup(0, FIRST_IDENTITY + (i % IDENTITIES), TCP, firstPort + (i % PORTS)) === FORWARD) forwarded++;
      }
      if (forwarded !== (name === "allowed" ? count : 0)) {
        throw new Error(`Cannot measure: ${forwarded} of ${count} pass`);
      }
      return forwarded;
    });
  }
}
