/**
 * What all parts of `HubState` work with: the store, the model that follows it, one decision at a time, signed records, and
 * what a member looks like in Cilium's key space.
 */
import { toBase64, toHex } from "../../src/bytes/text.ts";
import { allocateIdentity } from "../../src/hub/allocate.ts";
import { recordMessageOf } from "../../src/hub/join.ts";
import {
  IDENTITIES_PREFIX,
  identityKey,
  ipKey,
  nodeKey,
  writeIdentity,
  writeIp,
  writeNode,
} from "../../src/hub/keyspace.ts";
import {
  CIDR_GROUPS_PREFIX,
  DEVICES_PREFIX,
  ENDPOINT_SLICES_PREFIX,
  type MemberRow,
  MEMBERS_PREFIX,
  NAMESPACES_PREFIX,
  POLICIES_PREFIX,
  readSettingsRow,
  RELEASED_PREFIX,
  SERVICES_PREFIX,
  SETTINGS_KEY,
  type SettingsRow,
  writeRow,
} from "../../src/hub/records.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import type { Labels } from "../../src/identity/labels.ts";
import { formatLabelList } from "../../src/identity/labels.ts";
import { parseAddress, parsePrefix, prefixContains } from "../../src/ip/address.ts";
import type { MemberRecord, MeshSettings } from "../../src/mesh/entries.ts";
import { encodeMsgpack } from "../sync/msgpack.ts";
import { HubModel, type ModelChange } from "./model.ts";
import type { HubStateOptions } from "./state_types.ts";
import type { StoreCompare, StoreEvent, StoreOp } from "./store.ts";

/** A record is good for so long, and signed anew when half of it is over. */
const RECORD_VALID_MS = 30 * 24 * 3600 * 1000;
export const RECORD_RENEW_MS = RECORD_VALID_MS / 2;
/** Members' clocks may be behind. */
const RECORD_EARLY_MS = 24 * 3600 * 1000;
const VIEW_RULES = 2;

/** A member's row before it is signed. */
export type MemberDraft = Omit<MemberRow, "record" | "signature" | "notAfter">;

const encoder = new TextEncoder();

export class HubCore {
  readonly options: HubStateOptions;
  readonly model: HubModel;
  /** newest revision that the model shows */
  appliedRevision = 0;
  /** nothing that members are sent has changed after it, when the hub opened */
  logStart = 0;
  onChange: (change: ModelChange, revision: number) => void = () => {};
  #stopWatch: () => void = () => {};
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(options: HubStateOptions) {
    this.options = options;
    this.model = new HubModel(options.settings.cluster);
  }

  /** @throws Error when the store belongs to another cluster, or its members do not fit the settings */
  static async open(options: HubStateOptions): Promise<HubCore> {
    const core = new HubCore(options);
    await core.#load();
    await core.#claim();
    core.logStart = core.#findLogStart();
    return core;
  }

  get settings(): MeshSettings {
    return this.options.settings;
  }

  get clusterName(): string {
    return this.options.settings.cluster.name;
  }

  now(): number {
    return this.options.now();
  }

  async #load(): Promise<void> {
    const { store, log } = this.options;
    const own = await store.list("edgemesh/");
    const identities = await store.list(IDENTITIES_PREFIX);
    for (const entry of [...identities.entries, ...own.entries]) this.model.apply({ type: "put", entry });
    this.appliedRevision = own.revision;
    for (const key of this.model.unreadable) log.error("hub-entry-unreadable", { key });
    this.#stopWatch = store.watch("", own.revision + 1, (batch) => {
      if (batch.type === "compacted") throw new Error("The hub has lost its watch of the store");
      this.appliedRevision = batch.revision;
      for (const event of batch.events) this.#follow(event, batch.revision);
    });
  }

  #follow(event: StoreEvent, revision: number): void {
    const key = event.type === "put" ? event.entry.key : event.key;
    this.onChange(this.model.apply(event), revision);
    if (this.model.unreadable.has(key)) this.options.log.error("hub-entry-unreadable", { key });
  }

  /** Writes whose store this is, or finds that it is another's. */
  async #claim(): Promise<void> {
    const { store, settings, recordKey } = this.options;
    const { cluster } = settings;
    const entry = await store.get(SETTINGS_KEY);
    const found = entry && readSettingsRow(entry.value);
    if (found !== undefined && (found.cluster !== cluster.name || found.clusterId !== cluster.id)) {
      const theirs = `"${found.cluster}" (${found.clusterId})`;
      throw new Error(`Cannot use the store for cluster "${cluster.name}" (${cluster.id}): it belongs to ${theirs}`);
    }
    this.#checkAddresses();
    const row: SettingsRow = {
      cluster: cluster.name,
      clusterId: cluster.id,
      recordKey: toBase64(recordKey.publicKey),
      mesh: JSON.stringify(settings),
      viewRules: VIEW_RULES,
    };
    if (found !== undefined && found.recordKey !== row.recordKey) await this.#signAllAnew();
    if (JSON.stringify(found) !== JSON.stringify(row)) await store.put(SETTINGS_KEY, writeRow(row));
  }

  #checkAddresses(): void {
    const prefixes = this.settings.memberCidrs.map((text) => parsePrefix(text)!);
    for (const [text, name] of this.model.addresses) {
      const address = parseAddress(text)!;
      if (!prefixes.some((prefix) => prefixContains(prefix, address))) {
        throw new Error(`Cannot use these member prefixes: member "${name}" has the address ${text} outside of them`);
      }
    }
  }

  async #signAllAnew(): Promise<void> {
    this.options.log.warn("hub-record-key-changed", { members: this.model.members.size });
    for (const row of [...this.model.members.values()]) {
      await this.options.store.put(MEMBERS_PREFIX + row.name, writeRow(this.sign(row)));
    }
  }

  /** The newest revision in the store's history that changed something members are sent. */
  #findLogStart(): number {
    const { store } = this.options;
    let found: number | undefined;
    let from = 1;
    for (let isCompacted = true; isCompacted;) {
      isCompacted = false;
      store.watch("", from, (batch) => {
        if (batch.type === "compacted") {
          isCompacted = from <= batch.compactRevision;
          from = batch.compactRevision + 1;
          found = batch.compactRevision;
        } else if (found === undefined || batch.events.some(isSentToMembers)) found = batch.revision;
      })();
    }
    return found ?? store.revision;
  }

  /** Runs `task` when all before it are done: decisions that depend on what is free must not overlap. */
  exclusive<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(task);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** One transaction; the model shows it afterwards. @returns false when another hub was faster */
  async commit(compares: readonly StoreCompare[], ops: readonly StoreOp[]): Promise<boolean> {
    const { succeeded } = await this.options.store.txn(compares, ops);
    return succeeded;
  }

  /** The condition that a key is as the model shows it. */
  unchanged(key: string): StoreCompare {
    return { key, modRevision: this.model.revisionOf(key) };
  }

  /** The row with a fresh record. */
  sign(draft: MemberDraft): MemberRow {
    const now = this.now();
    const notAfter = now + RECORD_VALID_MS;
    const record: MemberRecord = {
      name: draft.name,
      cluster: this.settings.cluster,
      publicKey: draft.publicKey,
      deviceKey: draft.deviceKey,
      addresses: draft.addresses,
      underlay: draft.underlay,
      endpoints: draft.endpoints,
      network: draft.network,
      namespace: draft.namespace,
      labels: draft.labels,
      namedPorts: draft.namedPorts,
      aeads: draft.aeads,
      identity: draft.identity,
      notBefore: Math.max(0, now - RECORD_EARLY_MS),
      notAfter,
      isHub: draft.isHub,
    };
    const bytes = encodeMsgpack(record);
    const signature = this.options.ciphers.sign(this.options.recordKey.secretKey, recordMessageOf(bytes));
    return { ...draft, record: bytes, signature, notAfter };
  }

  labelsOf(
    member: Pick<MemberRow, "namespace" | "labels">,
    namespaceLabels?: Readonly<Record<string, string>>,
  ): Labels {
    return labelsOfMember({
      cluster: this.clusterName,
      namespace: member.namespace,
      namespaceLabels: namespaceLabels ?? this.model.namespaceLabels(member.namespace),
      labels: member.labels,
    });
  }

  /**
   * The identity of a set of labels, with what it takes to make it when there is none yet.
   *
   * @param isAlsoTaken numbers that the same transaction gives out
   * @returns undefined when all numbers are given out
   */
  identityFor(
    labels: Labels,
    isAlsoTaken: (identity: number) => boolean = () => false,
  ): { readonly identity: number; readonly compares: StoreCompare[]; readonly ops: StoreOp[] } | undefined {
    const known = this.model.identityOf.get(formatLabelList(labels));
    if (known !== undefined) return { identity: known, compares: [this.unchanged(identityKey(known))], ops: [] };
    const isTaken = (n: number) => isAlsoTaken(n) || this.model.revisionOf(identityKey(n)) !== 0;
    const identity = allocateIdentity(this.settings.cluster.id, isTaken);
    if (identity === undefined) return undefined;
    const key = identityKey(identity);
    const value = encoder.encode(writeIdentity(labels));
    return { identity, compares: [{ key, modRevision: 0 }], ops: [{ op: "put", key, value }] };
  }

  /** Everything that is stored for a member: its row, and, when it is active, what Cilium is to see of it. */
  storeMember(row: MemberRow): StoreOp[] {
    const published = row.state === "active" ? this.publishedOf(row) : [];
    return [
      { op: "put", key: MEMBERS_PREFIX + row.name, value: writeRow(row) },
      { op: "put", key: DEVICES_PREFIX + toHex(row.deviceKey), value: encoder.encode(row.name) },
      ...published.map(([key, text]) => ({ op: "put" as const, key, value: encoder.encode(text) })),
    ];
  }

  /** The reverse; its addresses are left alone for a while. */
  dropMember(row: MemberRow): StoreOp[] {
    const keys = [MEMBERS_PREFIX + row.name, DEVICES_PREFIX + toHex(row.deviceKey)];
    keys.push(...this.publishedOf(row).map(([key]) => key));
    const released = row.addresses.map((address) => RELEASED_PREFIX + address);
    return [
      ...keys.map((key) => ({ op: "delete" as const, key })),
      ...released.map((key) => ({ op: "put" as const, key, value: writeRow({ at: this.now() }) })),
    ];
  }

  /** A member's keys and values in Cilium's key space. */
  publishedOf(row: MemberRow): [key: string, text: string][] {
    const isEncrypted = this.settings.routing.encryption === "wireguard";
    const node = writeNode({
      name: row.name,
      cluster: this.settings.cluster,
      internalIp: row.underlay,
      labels: row.labels,
      ...(isEncrypted && { publicKey: row.publicKey }),
    });
    const ips = row.addresses.map((ip): [string, string] => [
      ipKey(ip),
      writeIp({
        ip,
        hostIp: row.underlay,
        identity: row.identity,
        isEncrypted,
        namespace: row.namespace,
        podName: row.name,
        namedPorts: row.namedPorts,
      }),
    ]);
    return [[nodeKey(this.clusterName, row.name), node], ...ips];
  }

  close(): void {
    this.#stopWatch();
  }
}

const SENT_PREFIXES = [
  MEMBERS_PREFIX,
  POLICIES_PREFIX,
  NAMESPACES_PREFIX,
  IDENTITIES_PREFIX,
  CIDR_GROUPS_PREFIX,
  SERVICES_PREFIX,
  ENDPOINT_SLICES_PREFIX,
];

function isSentToMembers(event: StoreEvent): boolean {
  const key = event.type === "put" ? event.entry.key : event.key;
  return key === SETTINGS_KEY || SENT_PREFIXES.some((prefix) => key.startsWith(prefix));
}
