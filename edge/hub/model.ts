/**
 * The store's content as the hub needs it: rows by every key that they are looked up with. Changed by nothing but the store's
 * own events, so that it is always what a restart would find.
 */
import { toHex } from "../../src/bytes/text.ts";
import type { Labels } from "../../src/identity/labels.ts";
import { formatLabelList } from "../../src/identity/labels.ts";
import { IDENTITIES_PREFIX } from "../../src/hub/keyspace.ts";
import { readIdentity } from "../../src/hub/keyspace_read.ts";
import type { JsonObject } from "../../src/hub/json.ts";
import {
  CIDR_GROUPS_PREFIX,
  ENDPOINT_SLICES_PREFIX,
  type MemberRow,
  MEMBERS_PREFIX,
  NAMESPACES_PREFIX,
  objectOf,
  POLICIES_PREFIX,
  readMemberRow,
  readReleasedRow,
  readTokenRow,
  RELEASED_PREFIX,
  REVOKED_PREFIX,
  SERVICES_PREFIX,
  type TokenRow,
  TOKENS_PREFIX,
} from "../../src/hub/records.ts";
import {
  type EndpointSlice,
  readEndpointSlice,
  readService,
  type Service,
  serviceEntryOf,
} from "../../src/hub/services.ts";
import type { ClusterRef, ServiceEntry } from "../../src/mesh/entries.ts";
import type { Policy } from "../../src/policy/model.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import type { StoreEvent } from "./store.ts";

/** What an event changed, for whoever shows it to members. */
export type ModelChange =
  /** `device`: key (hexadecimal) of the row that was there before, "" for none */
  | { readonly kind: "member"; readonly name: string; readonly device: string }
  | { readonly kind: "policy"; readonly name: string }
  | { readonly kind: "cidrgroup"; readonly name: string }
  /** by "<ns>/<name>": those that its slices belonged or belong to */
  | { readonly kind: "services"; readonly names: readonly string[] }
  | { readonly kind: "namespace"; readonly name: string }
  | { readonly kind: "identity"; readonly identity: number }
  | { readonly kind: "other" };

export interface StoredPolicy {
  readonly policy: Policy;
  readonly document: JsonObject;
}

/** A Service or an EndpointSlice, read, beside its document. */
export interface StoredService {
  readonly service: Service;
  readonly document: JsonObject;
}

export interface StoredSlice {
  readonly slice: EndpointSlice;
  readonly document: JsonObject;
}

const OTHER: ModelChange = { kind: "other" };

export class HubModel {
  /** active and pending members, by name */
  readonly members = new Map<string, MemberRow>();
  /** by device key, hexadecimal */
  readonly devices = new Map<string, MemberRow>();
  readonly revoked = new Map<string, MemberRow>();
  /** names of members, by WireGuard key (hexadecimal), mesh address, underlay address */
  readonly publicKeys = new Map<string, string>();
  readonly addresses = new Map<string, string>();
  readonly underlays = new Map<string, string>();
  /** by id */
  readonly tokens = new Map<string, TokenRow>();
  /** by `<kind>/<namespace>/<name>` */
  readonly policies = new Map<string, StoredPolicy>();
  readonly namespaces = new Map<string, JsonObject>();
  /** by name */
  readonly cidrGroups = new Map<string, JsonObject>();
  /** by `<namespace>/<name>` */
  readonly services = new Map<string, StoredService>();
  readonly endpointSlices = new Map<string, StoredSlice>();
  /** slices by the service that they belong to */
  readonly #slicesOf = new Map<string, Map<string, EndpointSlice>>();
  readonly identities = new Map<number, Labels>();
  readonly identityOf = new Map<string, number>();
  /** addresses that were freed, and when */
  readonly released = new Map<string, number>();
  /** keys whose value does not read */
  readonly unreadable = new Set<string>();
  readonly #revisions = new Map<string, number>();
  readonly #cluster: ClusterRef;

  constructor(cluster: ClusterRef) {
    this.#cluster = cluster;
  }

  /** Revision of a key's last change, 0 when it does not exist: for the conditions of a transaction. */
  revisionOf(key: string): number {
    return this.#revisions.get(key) ?? 0;
  }

  /** Labels of a namespace's object; none when there is no such object. */
  namespaceLabels(name: string): Readonly<Record<string, string>> {
    const metadata = this.namespaces.get(name)?.["metadata"] as { labels?: Record<string, string> } | undefined;
    return metadata?.labels ?? {};
  }

  /** Slices of a service, `<namespace>/<name>`, by `<namespace>/<name>` of the slice. */
  slicesOf(service: string): ReadonlyMap<string, EndpointSlice> {
    return this.#slicesOf.get(service) ?? new Map();
  }

  /** What members are told of a service; nothing while there is no such object. */
  serviceEntry(name: string): ServiceEntry | undefined {
    const stored = this.services.get(name);
    return stored && serviceEntryOf(stored.service, [...this.slicesOf(name).values()]);
  }

  /** Takes over one event. @returns what it changed */
  apply(event: StoreEvent): ModelChange {
    const key = event.type === "put" ? event.entry.key : event.key;
    const value = event.type === "put" ? event.entry.value : undefined;
    if (event.type === "put") this.#revisions.set(key, event.entry.modRevision);
    else this.#revisions.delete(key);
    this.unreadable.delete(key);
    const change = this.#applyValue(key, value);
    if (change === undefined) this.unreadable.add(key);
    return change ?? OTHER;
  }

  /** `undefined` when the value does not read: then it is as if the key did not exist. */
  #applyValue(key: string, value: Uint8Array | undefined): ModelChange | undefined {
    if (key.startsWith(MEMBERS_PREFIX)) return this.#member(key.slice(MEMBERS_PREFIX.length), value);
    if (key.startsWith(REVOKED_PREFIX)) return this.#revoke(key.slice(REVOKED_PREFIX.length), value);
    if (key.startsWith(TOKENS_PREFIX)) return this.#token(key.slice(TOKENS_PREFIX.length), value);
    if (key.startsWith(POLICIES_PREFIX)) return this.#policy(key.slice(POLICIES_PREFIX.length), value);
    if (key.startsWith(NAMESPACES_PREFIX)) return this.#namespace(key.slice(NAMESPACES_PREFIX.length), value);
    if (key.startsWith(CIDR_GROUPS_PREFIX)) return this.#cidrGroup(key.slice(CIDR_GROUPS_PREFIX.length), value);
    if (key.startsWith(SERVICES_PREFIX)) return this.#service(key.slice(SERVICES_PREFIX.length), value);
    if (key.startsWith(ENDPOINT_SLICES_PREFIX)) return this.#slice(key.slice(ENDPOINT_SLICES_PREFIX.length), value);
    if (key.startsWith(IDENTITIES_PREFIX)) return this.#identity(key.slice(IDENTITIES_PREFIX.length), value);
    if (key.startsWith(RELEASED_PREFIX)) return this.#release(key.slice(RELEASED_PREFIX.length), value);
    return OTHER;
  }

  #member(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const old = this.members.get(name);
    if (old !== undefined) this.#forget(old);
    const row = value && readMemberRow(value);
    if (value !== undefined && (row === undefined || row.name !== name)) return undefined;
    if (row !== undefined) {
      this.members.set(name, row);
      this.devices.set(toHex(row.deviceKey), row);
      this.publicKeys.set(toHex(row.publicKey), name);
      this.underlays.set(row.underlay, name);
      for (const address of row.addresses) this.addresses.set(address, name);
    }
    return { kind: "member", name, device: old === undefined ? "" : toHex(old.deviceKey) };
  }

  #forget(row: MemberRow): void {
    this.members.delete(row.name);
    this.devices.delete(toHex(row.deviceKey));
    this.publicKeys.delete(toHex(row.publicKey));
    this.underlays.delete(row.underlay);
    for (const address of row.addresses) this.addresses.delete(address);
  }

  #revoke(device: string, value: Uint8Array | undefined): ModelChange | undefined {
    const row = value && readMemberRow(value);
    if (row !== undefined) this.revoked.set(device, row);
    else this.revoked.delete(device);
    return value !== undefined && row === undefined ? undefined : OTHER;
  }

  #token(id: string, value: Uint8Array | undefined): ModelChange | undefined {
    const row = value && readTokenRow(value);
    if (row !== undefined) this.tokens.set(id, row);
    else this.tokens.delete(id);
    return value !== undefined && row === undefined ? undefined : OTHER;
  }

  #policy(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const document = value && objectOf(value);
    const result = document && readPolicy(document);
    if (document !== undefined && result !== undefined && "policy" in result) {
      this.policies.set(name, { policy: result.policy, document });
    } else this.policies.delete(name);
    return value !== undefined && !this.policies.has(name) ? undefined : { kind: "policy", name };
  }

  #namespace(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const document = value && objectOf(value);
    if (document !== undefined) this.namespaces.set(name, document);
    else this.namespaces.delete(name);
    return value !== undefined && document === undefined ? undefined : { kind: "namespace", name };
  }

  #cidrGroup(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const document = value && objectOf(value);
    if (document !== undefined) this.cidrGroups.set(name, document);
    else this.cidrGroups.delete(name);
    return value !== undefined && document === undefined ? undefined : { kind: "cidrgroup", name };
  }

  #service(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const document = value && objectOf(value);
    const result = document && readService(document);
    const isRead = document !== undefined && result !== undefined && "service" in result;
    if (isRead) this.services.set(name, { service: result.service, document });
    else this.services.delete(name);
    return value !== undefined && !isRead ? undefined : { kind: "services", names: [name] };
  }

  #slice(name: string, value: Uint8Array | undefined): ModelChange | undefined {
    const names = new Set<string>();
    const old = this.endpointSlices.get(name);
    if (old !== undefined) names.add(this.#unlinkSlice(name, old.slice));
    const document = value && objectOf(value);
    const result = document && readEndpointSlice(document);
    const isRead = document !== undefined && result !== undefined && "slice" in result;
    if (isRead) names.add(this.#linkSlice(name, result.slice, document));
    return value !== undefined && !isRead ? undefined : { kind: "services", names: [...names] };
  }

  /** @returns the service that it belongs to */
  #linkSlice(name: string, slice: EndpointSlice, document: JsonObject): string {
    const service = `${slice.namespace}/${slice.service}`;
    this.endpointSlices.set(name, { slice, document });
    const slices = this.#slicesOf.get(service) ?? new Map<string, EndpointSlice>();
    this.#slicesOf.set(service, slices.set(name, slice));
    return service;
  }

  #unlinkSlice(name: string, slice: EndpointSlice): string {
    const service = `${slice.namespace}/${slice.service}`;
    this.endpointSlices.delete(name);
    const slices = this.#slicesOf.get(service);
    slices?.delete(name);
    if (slices?.size === 0) this.#slicesOf.delete(service);
    return service;
  }

  #identity(key: string, value: Uint8Array | undefined): ModelChange | undefined {
    const identity = Number(key);
    const old = this.identities.get(identity);
    if (old !== undefined) this.identityOf.delete(formatLabelList(old));
    this.identities.delete(identity);
    if (value === undefined) return { kind: "identity", identity };
    const read = readIdentity(new TextDecoder().decode(value), key, this.#cluster);
    if (read === undefined) return undefined;
    this.identities.set(identity, read.labels);
    this.identityOf.set(formatLabelList(read.labels), identity);
    return { kind: "identity", identity };
  }

  #release(address: string, value: Uint8Array | undefined): ModelChange | undefined {
    const row = value && readReleasedRow(value);
    if (row !== undefined) this.released.set(address, row.at);
    else this.released.delete(address);
    return value !== undefined && row === undefined ? undefined : OTHER;
  }
}
