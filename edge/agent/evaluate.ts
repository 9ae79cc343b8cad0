/**
 * Which of this member's recent flows a change of policies would newly drop. Asked by its hub over the stream, and by
 * `edgemesh policy dry-run`.
 */
import type { FlowRecord } from "../../src/datapath/control.ts";
import { isWireIdentity } from "../../src/identity/ranges.ts";
import { isWorldIdentity } from "../../src/identity/reserved.ts";
import { parseAddress } from "../../src/ip/address.ts";
import type { EntryValue } from "../../src/mesh/entries.ts";
import type { MeshState } from "../../src/mesh/state.ts";
import { EGRESS, INGRESS } from "../../src/policy/model.ts";
import { type DryRunResult, NO_FLOWS } from "../sync/dry_run.ts";
import { dryRunResult, type NamedFlow } from "./dry_run.ts";
import type { Policies } from "./policies.ts";
import { changeTo, type EntriesBefore } from "./policy_trial.ts";

/** Flows that are looked at, the newest. */
const MAX_FLOWS = 4096;

/** What is needed of an agent. */
export interface EvaluateParts {
  readonly mesh: MeshState;
  readonly policies: Policies;
  /** the newest flows; undefined: no datapath runs */
  readonly flows: (limit: number) => Promise<readonly FlowRecord[]> | undefined;
}

/** @param puts, deletes entries that the change gives other values (`policy/...`, `cidrgroup/...`, `service/...`) */
export async function evaluateChange(
  { mesh, policies, flows }: EvaluateParts,
  puts: readonly (readonly [key: string, value: EntryValue])[],
  deletes: readonly string[],
): Promise<DryRunResult> {
  const recent = await flows(MAX_FLOWS);
  if (recent === undefined || policies.revision === 0) {
    return { ...NO_FLOWS, fault: "the datapath is not running yet, so there are no flows to look at" };
  }
  const values = new Map<string, EntryValue | undefined>([...deletes.map((key) => [key, undefined] as const), ...puts]);
  const { before, after } = policies.tryChange(changeTo(values as EntriesBefore), mesh);
  const peers = peersOf(mesh);
  return dryRunResult(recent.flatMap((flow) => namedFlow(flow, peers)), before, after);
}

/** "<cluster>/<name>" by address. */
function peersOf(mesh: MeshState): ReadonlyMap<string, string> {
  return new Map(
    [...mesh.members].flatMap(([name, { addresses }]) => addresses.map((address) => [address, name] as const)),
  );
}

function namedFlow(flow: FlowRecord, peers: ReadonlyMap<string, string>): NamedFlow[] {
  const { source, destination, protocol, destinationPort: port, identity } = flow;
  const other = flow.direction === "ingress" ? source : destination;
  const address = parseAddress(other);
  if (address === undefined) return [];
  return [{
    direction: flow.direction === "ingress" ? INGRESS : EGRESS,
    address,
    // outside, and in this node's own scope, each engine has identities of its own
    ...(isWireIdentity(identity) && !isWorldIdentity(identity) && { identity }),
    protocol,
    port,
    source,
    destination,
    peer: peers.get(other) ?? null,
  }];
}
