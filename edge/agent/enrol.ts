/**
 * Enrolment: from a token to an identity on disk. Keys are saved before the token is used, so that a power cut in between cannot
 * strand the device: the same keys with the same token get the same answer.
 */
import type { EntryValue } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";
import type { Config } from "../config.ts";
import { EdgeError } from "../errors.ts";
import { joinHub } from "../sync/join_client.ts";
import { makeDeviceKeys, x25519PublicKey } from "./device_keys.ts";
import type { Membership, MemberStore } from "./store.ts";

/** Outcome of an enrolment. */
export interface Enrolment {
  readonly membership: Membership;
  readonly addresses: readonly string[];
  /** false: members send to each other without encryption */
  readonly isEncrypted: boolean;
}

/**
 * Joins with a token and saves what came.
 * @throws EdgeError EDGE_ALREADY_JOINED, EDGE_STATE_UNWRITABLE, and those of `joinHub`
 */
export async function enrol(token: string, config: Config, store: MemberStore, log: Log): Promise<Enrolment> {
  const before = store.loadIdentity();
  if (before?.membership !== undefined && !before.membership.isPending) {
    const { name, cluster } = before.membership;
    throw new EdgeError("EDGE_ALREADY_JOINED", `Cannot join: this machine is "${name}" of mesh "${cluster}"`);
  }
  const keys = before ?? { ...makeDeviceKeys(), membership: undefined };
  store.saveIdentity(keys);
  const { answer, caPem, endpoints } = await joinHub(token, {
    deviceSecretKey: keys.deviceSeed,
    wireguardPublicKey: x25519PublicKey(keys.wireguardKey),
    wireguardPort: config.wireguardPort,
    labels: Object.fromEntries(config.labels),
    log,
    ...(config.name === undefined ? {} : { name: config.name }),
    ...(config.namespace === undefined ? {} : { namespace: config.namespace }),
    ...(config.timeoutMs === undefined ? {} : { timeoutMs: config.timeoutMs }),
  });
  const cluster = answer.settings.cluster.name;
  const membership: Membership = {
    name: answer.name,
    cluster,
    hubEndpoints: endpoints,
    caPem,
    recordKey: answer.recordKey,
    isPending: answer.status === "pending",
    joinedUnixMs: answer.unixMs,
  };
  const entries: (readonly [string, EntryValue])[] = [
    ["settings", answer.settings],
    [`member/${cluster}/${answer.name}`, answer.record],
  ];
  // revision 0: enough for addresses, not a state to go on from
  store.saveState({ epoch: answer.epoch, revision: 0, entries, syncedUnixMs: answer.unixMs }, 0);
  store.saveIdentity({ ...keys, membership });
  const isEncrypted = answer.settings.routing?.encryption !== "none";
  return { membership, addresses: answer.addresses, isEncrypted };
}
