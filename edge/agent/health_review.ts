/** Everything about a member's health that can be judged from what it holds; what only an event tells is raised where it happens. */
import { plainAddressOf } from "../../src/mesh/routing.ts";
import type { Agent } from "./agent.ts";

const RECORD_WARNING_MS = 7 * 86_400_000;

/** @param rolledBack which policies are rolled back and why; undefined: none */
export function reviewHealth(agent: Agent, rolledBack: string | undefined): void {
  reviewHub(agent);
  reviewPolicies(agent, rolledBack);
  reviewProxies(agent);
  reviewState(agent);
  reviewEncryption(agent);
  const isStuck = agent.link !== undefined && !agent.isDatapathAlive;
  agent.health.set("datapath-stuck", isStuck ? "The datapath does not go round its loop" : undefined);
}

function reviewHub({ health, hub, mesh, options, syncedUnixMs }: Agent): void {
  const isAway = hub.state === "offline" || hub.state === "connecting";
  const detail = hub.detail === undefined ? "" : `: ${hub.detail}`;
  health.set("hub-unreachable", isAway ? `No connection to the hub${detail}` : undefined);
  health.set("hub-refused", hub.state === "refused" ? `The hub refused this member${detail}` : undefined);
  const isStale = isAway && mesh.position !== undefined && !options.isFromFile;
  const since = syncedUnixMs === undefined ? "the join" : new Date(syncedUnixMs).toISOString();
  health.set("state-stale", isStale ? `Peers and policies are those of ${since}` : undefined);
}

function reviewPolicies({ health, doors: { policies } }: Agent, rolledBack: string | undefined): void {
  const isClosed = policies.revision === 0;
  health.set("policy-not-ready", isClosed ? "New inbound connections are refused: no policy state yet" : undefined);
  const unenforced = [...policies.refused.keys()];
  health.set("policy-refused", unenforced.length > 0 ? `Not enforced: ${shorten(unenforced)}` : undefined);
  health.set("policy-rolled-back", rolledBack);
}

/** Rules that judge requests hold for other users only while the proxies' own addresses are kept from them. */
function reviewProxies({ health, doors: { network }, l7 }: Agent): void {
  const fault = l7.isNeeded ? network.guardFault : undefined;
  health.set("proxy-unguarded", fault === undefined ? undefined : `Proxy addresses are open to every user: ${fault}`);
}

function reviewState({ health, mesh, doors: { clock, store } }: Agent): void {
  const isMissing = mesh.position !== undefined && mesh.self === undefined;
  health.set("not-in-mesh", isMissing ? "The mesh state has no usable record of this member" : undefined);
  const refused = [...mesh.refused.keys()];
  health.set(
    "entries-refused",
    refused.length > 0 ? `Entries of the mesh state are not used: ${shorten(refused)}` : undefined,
  );
  const behindMs = clock.behindMs();
  health.set("clock-behind", behindMs > 0 ? `The clock is ${Math.round(behindMs / 1000)} s behind` : undefined);
  const { fault, path } = store;
  health.set("state-readonly", fault === undefined ? undefined : `Cannot write to "${path}": ${fault}`);
  const leftMs = mesh.self === undefined ? Infinity : mesh.self.notAfter - clock.now();
  const days = Math.max(0, Math.floor(leftMs / 86_400_000));
  health.set("key-expiring", leftMs < RECORD_WARNING_MS ? `This member's record ends in ${days} days` : undefined);
}

/** A mesh without encryption says so for as long as it is one. */
function reviewEncryption({ health, mesh: { self, settings }, doors: { log } }: Agent): void {
  if (settings?.routing.encryption !== "none") {
    health.clear("unencrypted");
    health.clear("no-underlay-address");
    return;
  }
  const text = "Traffic of this mesh is NOT ENCRYPTED: whoever is on the network below can read and forge it";
  if (health.raise("unencrypted", text)) log.warn("unencrypted", { cluster: settings.cluster.name });
  const isCutOff = self !== undefined && plainAddressOf(self, settings) === undefined;
  health.set(
    "no-underlay-address",
    isCutOff ? "This member has no address of its own on the network below: nobody can send to it" : undefined,
  );
}

function shorten(names: readonly string[]): string {
  return names.length <= 3 ? names.join(", ") : `${names.slice(0, 3).join(", ")} and ${names.length - 3} more`;
}
