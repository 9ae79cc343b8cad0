/**
 * The named checks behind `/livez` and `/readyz`, in Kubernetes' manner. Live asks only whether this process works: never the hub.
 * Ready asks whether traffic can flow.
 */
import type { Agent } from "./agent.ts";
import { snapshotOf } from "./views.ts";

/** One check's outcome. */
export interface Check {
  readonly name: string;
  /** undefined: passed; else why not */
  readonly failure: string | undefined;
}

/** A handshake is renewed every two minutes while there is traffic; WireGuard gives up a session after three. */
const SESSION_FRESH_MS = 180_000;

export const LIVE_CHECKS = ["loop", "datapath"] as const;
export const READY_CHECKS = ["datapath", "network", "state", "policy", "session"] as const;

/** What `/livez` asks. That this code runs is the check of the event loop. */
export function liveChecks(agent: Agent): readonly Check[] {
  const isHanging = agent.link !== undefined && !agent.isDatapathAlive;
  return [
    { name: "loop", failure: undefined },
    { name: "datapath", failure: isHanging ? "does not go round its loop" : undefined },
  ];
}

/** What `/readyz` asks. */
export async function readyChecks(agent: Agent): Promise<readonly Check[]> {
  const { mesh, doors } = agent;
  return [
    { name: "datapath", failure: agent.isDatapathAlive ? undefined : "is not running" },
    { name: "network", failure: agent.isNetworkDone ? undefined : networkFailure(agent) },
    { name: "state", failure: mesh.self === undefined ? "no mesh state with this member was applied yet" : undefined },
    {
      name: "policy",
      failure: doors.policies.revision > 0 ? undefined : "no policy state yet: closed to new connections",
    },
    { name: "session", failure: await sessionFailure(agent) },
  ];
}

function networkFailure(agent: Agent): string {
  const item = agent.health.items().find(({ code }) => code === "cidr-conflict" || code === "network-failed");
  return item?.text ?? "the TUN device has no addresses yet";
}

/** The hub, or a peer, was heard lately; a member without peers has nobody to hear, and one of a mesh without encryption has no sessions. */
async function sessionFailure(agent: Agent): Promise<string | undefined> {
  if (agent.hub.state === "synced" && !agent.options.isFromFile) return undefined;
  if (agent.mesh.members.size <= 1 || agent.mesh.settings?.routing.encryption === "none") return undefined;
  const { peers } = await snapshotOf(agent);
  const newestMs = Math.max(0, ...peers.map((peer) => peer.lastHandshakeUnixMs));
  if (agent.doors.unixMs() - newestMs < SESSION_FRESH_MS) return undefined;
  return "neither the hub nor a peer was heard in the last three minutes";
}
