/**
 * What the hub does without being asked: keep Cilium's keys as they should be, show that it lives, renew records, and throw away
 * what nobody needs any more.
 */
import { QUARANTINE_MS } from "../../src/hub/allocate.ts";
import {
  clusterConfigKey,
  HEARTBEAT_EVERY_MS,
  HEARTBEAT_KEY,
  identityKey,
  IPS_PREFIX,
  NODES_PREFIX,
  syncedKeys,
  writeClusterConfig,
  writeTime,
} from "../../src/hub/keyspace.ts";
import { MEMBERS_PREFIX, RELEASED_PREFIX, type TokenRow, TOKENS_PREFIX, writeRow } from "../../src/hub/records.ts";
import { stateOfToken } from "../../src/hub/token_rules.ts";
import { type HubCore, RECORD_RENEW_MS } from "./core.ts";
import type { StoreOp } from "./store.ts";

const CHUNK = 200;
const RENEWALS_AT_ONCE = 50;
const UNUSED_IDENTITY_MS = 3600 * 1000;
const DEAD_TOKEN_MS = 30 * 24 * 3600 * 1000;
const DAY_MS = 24 * 3600 * 1000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Upkeep {
  readonly #core: HubCore;
  readonly #unusedSince = new Map<number, number>();
  #lastAt = -Infinity;

  constructor(core: HubCore) {
    this.#core = core;
  }

  /** Brings Cilium's keys in line with the members, then says that they are complete. */
  async publishAll(): Promise<void> {
    const { store } = this.#core.options;
    const cluster = this.#core.clusterName;
    const wanted = new Map<string, string>();
    for (const row of this.#core.model.members.values()) {
      if (row.state !== "active") continue;
      for (const [key, text] of this.#core.publishedOf(row)) wanted.set(key, text);
    }
    const ops: StoreOp[] = [];
    for (const prefix of [`${NODES_PREFIX}${cluster}/`, IPS_PREFIX]) {
      for (const { key, value } of (await store.list(prefix)).entries) {
        if (!wanted.has(key)) ops.push({ op: "delete", key });
        else if (wanted.get(key) === decoder.decode(value)) wanted.delete(key);
      }
    }
    const { id } = this.#core.settings.cluster;
    wanted.set(clusterConfigKey(cluster), writeClusterConfig({ id, maxConnectedClusters: 255 }));
    for (const [key, text] of wanted) {
      if (decoder.decode((await store.get(key))?.value) !== text) ops.push(put(key, text));
    }
    for (let i = 0; i < ops.length; i += CHUNK) await this.#core.commit([], ops.slice(i, i + CHUNK));
    for (const key of syncedKeys(cluster)) {
      if (await store.get(key) === undefined) await this.#core.commit([], [put(key, writeTime(this.#core.now()))]);
    }
  }

  /** Called about once a second; works once a minute. */
  async tick(): Promise<void> {
    await this.#core.options.store.tick();
    const now = this.#core.now();
    if (Math.abs(now - this.#lastAt) < HEARTBEAT_EVERY_MS) return;
    this.#lastAt = now;
    await this.#core.exclusive(async () => {
      const ops = [...this.#renewals(now), ...this.#unusedIdentities(now), ...this.#forgotten(now)];
      await this.#core.commit([], [put(HEARTBEAT_KEY, writeTime(now)), ...ops]);
    });
  }

  /** Records that are half over, or were made by a clock that was far ahead. */
  #renewals(now: number): StoreOp[] {
    const ops: StoreOp[] = [];
    for (const row of this.#core.model.members.values()) {
      const leftMs = row.notAfter - now;
      if (leftMs >= RECORD_RENEW_MS && leftMs <= 2 * RECORD_RENEW_MS + DAY_MS) continue;
      ops.push({ op: "put", key: MEMBERS_PREFIX + row.name, value: writeRow(this.#core.sign(row)) });
      if (ops.length >= RENEWALS_AT_ONCE) break;
    }
    return ops;
  }

  /** Identities that no member has had for a while. */
  #unusedIdentities(now: number): StoreOp[] {
    const { model } = this.#core;
    const used = new Set(Array.from(model.members.values(), (row) => row.identity));
    const ops: StoreOp[] = [];
    for (const identity of model.identities.keys()) {
      const since = this.#unusedSince.get(identity);
      if (used.has(identity)) this.#unusedSince.delete(identity);
      else if (since === undefined) this.#unusedSince.set(identity, now);
      else if (now - since >= UNUSED_IDENTITY_MS) {
        this.#unusedSince.delete(identity);
        ops.push({ op: "delete", key: identityKey(identity) });
      }
    }
    return ops;
  }

  /** Addresses whose quarantine is over, and tokens that are long dead. */
  #forgotten(now: number): StoreOp[] {
    const ops: StoreOp[] = [];
    for (const [address, at] of this.#core.model.released) {
      if (now - at >= QUARANTINE_MS) ops.push({ op: "delete", key: RELEASED_PREFIX + address });
    }
    for (const token of this.#core.model.tokens.values()) {
      if (now - diedAt(token, now) >= DEAD_TOKEN_MS) ops.push({ op: "delete", key: TOKENS_PREFIX + token.id });
    }
    return ops;
  }
}

/** When a token stopped to be of use; in the future for one that has not. */
function diedAt(token: TokenRow, now: number): number {
  switch (stateOfToken(token, now)) {
    case "valid":
      return Infinity;
    case "expired":
      return token.notAfter!;
    case "used-up":
      return token.lastUsedAt ?? token.createdAt;
    case "revoked":
      return token.revokedAt!;
  }
}

function put(key: string, text: string): StoreOp {
  return { op: "put", key, value: encoder.encode(text) };
}
