/**
 * The entries of the mesh state, each one checked: what `MeshState` keeps, and what goes to disk. A frame is first read whole
 * (`stage`), then applied whole (`commit`), so that a bad frame changes nothing and a bad entry harms no other.
 */
import type { Ciphers } from "../ports.ts";
import type {
  EntryValue,
  IdentityEntry,
  IpEntry,
  MemberRecord,
  MeshSettings,
  NamespaceEntry,
  PolicyDocument,
  ServiceEntry,
  StateFrame,
} from "./entries.ts";
import { equalData } from "./equal_data.ts";
import * as read from "./records.ts";

const MAX_KEY_LENGTH = 700;
const SIGNED_PREFIX = new TextEncoder().encode("edgemesh member record v1\0");

/** How member entries are trusted. */
export type RecordTrust =
  | {
    /** records must carry a signature of one of these Ed25519 keys */
    readonly kind: "signed";
    readonly keys: readonly Uint8Array[];
    readonly ciphers: Pick<Ciphers, "verify">;
    /** msgpack to data; may throw */
    readonly decode: (record: Uint8Array) => unknown;
  }
  /** entries come from this machine's operator (a mesh file) and are plain `MemberRecord`s */
  | { readonly kind: "local" };

/** How one kind of entry changed. */
export interface Changes<K, V> {
  readonly puts: readonly (readonly [K, V])[];
  readonly deletes: readonly K[];
}

type Parsed =
  | { readonly kind: "settings"; readonly id: ""; readonly value: MeshSettings }
  | { readonly kind: "member"; readonly id: string; readonly value: MemberRecord }
  | { readonly kind: "identity"; readonly id: number; readonly value: IdentityEntry }
  | { readonly kind: "namespace"; readonly id: string; readonly value: NamespaceEntry }
  | { readonly kind: "ip"; readonly id: string; readonly value: IpEntry }
  | { readonly kind: "policy"; readonly id: string; readonly value: PolicyDocument }
  | { readonly kind: "cidrgroup"; readonly id: string; readonly value: PolicyDocument }
  | { readonly kind: "service"; readonly id: string; readonly value: ServiceEntry };

interface StagedPut {
  readonly raw: EntryValue;
  /** or the reason why it is refused */
  readonly parsed: Parsed | string;
}

/** The changes of one frame, checked, before any of them is applied. */
export interface Staged {
  readonly puts: ReadonlyMap<string, StagedPut>;
  readonly deletes: ReadonlySet<string>;
}

/** What a commit changed; equal values put again do not show. */
export interface Committed {
  /** entries of the frame that were refused: key and reason */
  readonly refused: readonly (readonly [key: string, reason: string])[];
  readonly isSettingsChanged: boolean;
  readonly isMembersChanged: boolean;
  /** prefixes whose entry came, went or changed */
  readonly ips: ReadonlySet<string>;
  readonly identities: Changes<number, IdentityEntry>;
  readonly namespaces: Changes<string, NamespaceEntry>;
  /** by "<kind>/<ns>/<name>" */
  readonly policies: Changes<string, PolicyDocument>;
  /** by name */
  readonly cidrGroups: Changes<string, PolicyDocument>;
  /** by "<ns>/<name>" */
  readonly services: Changes<string, ServiceEntry>;
  /** what stood before, by entry key, where a policy, a CIDR group or a service came, went or changed; undefined: nothing */
  readonly replaced: ReadonlyMap<string, PolicyDocument | ServiceEntry | undefined>;
}

/** Whose record is whose, and who signs. */
export interface EntrySetOptions {
  /** "<cluster>/<name>" of this member */
  readonly selfName: string;
  /** this member's WireGuard public key: a record of ours with another key is refused */
  readonly publicKey: Uint8Array;
  readonly trust: RecordTrust;
}

/** Entries by key, and the checked values by kind. */
export class EntrySet {
  readonly #options: EntrySetOptions;
  readonly #raw = new Map<string, EntryValue>();
  readonly #parsed = new Map<string, Parsed>();
  readonly #refused = new Map<string, string>();
  readonly #members = new Map<string, MemberRecord>();
  readonly #identities = new Map<number, IdentityEntry>();
  readonly #namespaces = new Map<string, NamespaceEntry>();
  readonly #ips = new Map<string, IpEntry>();
  readonly #policies = new Map<string, PolicyDocument>();
  readonly #cidrGroups = new Map<string, PolicyDocument>();
  readonly #services = new Map<string, ServiceEntry>();
  #settings: MeshSettings | undefined;

  constructor(options: EntrySetOptions) {
    this.#options = options;
  }

  get settings(): MeshSettings | undefined {
    return this.#settings;
  }

  /** by "<cluster>/<name>" */
  get members(): ReadonlyMap<string, MemberRecord> {
    return this.#members;
  }

  get identities(): ReadonlyMap<number, IdentityEntry> {
    return this.#identities;
  }

  get namespaces(): ReadonlyMap<string, NamespaceEntry> {
    return this.#namespaces;
  }

  /** by prefix in canonical text */
  get ips(): ReadonlyMap<string, IpEntry> {
    return this.#ips;
  }

  /** by "<kind>/<ns>/<name>" */
  get policies(): ReadonlyMap<string, PolicyDocument> {
    return this.#policies;
  }

  /** CiliumCIDRGroups by name */
  get cidrGroups(): ReadonlyMap<string, PolicyDocument> {
    return this.#cidrGroups;
  }

  /** by "<ns>/<name>" */
  get services(): ReadonlyMap<string, ServiceEntry> {
    return this.#services;
  }

  /** key and reason of every entry that is refused */
  get refused(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  /** All entries as they came, refused ones too. */
  get raw(): ReadonlyMap<string, EntryValue> {
    return this.#raw;
  }

  /**
   * Reads and checks a frame without changing anything.
   * @returns what `commit` takes, or why the frame is refused whole; never throws
   */
  stage(frame: StateFrame): Staged | string {
    const puts = new Map<string, StagedPut>();
    if (frame.t === "snapshot") {
      if (!isPairList(frame.entries)) return "entries are no list of key and value";
      for (const [key, value] of frame.entries) puts.set(key, this.#check(key, value));
      return { puts, deletes: new Set([...this.#raw.keys()].filter((key) => !puts.has(key))) };
    }
    if (!isPairList(frame.puts)) return "puts are no list of key and value";
    if (!Array.isArray(frame.deletes) || !frame.deletes.every((key) => typeof key === "string")) {
      return "deletes are no list of keys";
    }
    for (const [key, value] of frame.puts) puts.set(key, this.#check(key, value));
    return { puts, deletes: new Set(frame.deletes.filter((key) => !puts.has(key))) };
  }

  #check(key: string, raw: EntryValue): StagedPut {
    try {
      return { raw, parsed: this.#parse(key, raw) };
    } catch (error) {
      return { raw, parsed: error instanceof Error ? error.message : String(error) };
    }
  }

  /** @throws Error with the reason for a value that is refused */
  #parse(key: string, value: EntryValue): Parsed {
    if (key.length > MAX_KEY_LENGTH) throw new RangeError(`key must have at most ${MAX_KEY_LENGTH} characters`);
    const slash = key.indexOf("/");
    const kind = slash < 0 ? key : key.slice(0, slash);
    const rest = slash < 0 ? "" : key.slice(slash + 1);
    switch (kind) {
      case "settings":
        if (slash >= 0) throw new RangeError("key must be settings");
        return { kind, id: "", value: read.readSettings(value) };
      case "member":
        return { kind, id: rest, value: this.#parseMember(key, rest, value) };
      case "identity":
        return { kind, id: read.readIdentityNumber(rest), value: read.readIdentityEntry(value) };
      case "namespace":
        return { kind, id: read.readNamespaceName(rest), value: read.readNamespaceEntry(value) };
      case "ip":
        return { kind, id: read.readPrefixText(rest, "key"), value: read.readIpEntry(value) };
      case "policy":
        return { kind, id: rest, value: read.readPolicyDocument(rest, value) };
      case "cidrgroup":
        return { kind, id: rest, value: read.readCidrGroupDocument(rest, value) };
      case "service":
        return { kind, id: read.readServiceName(rest), value: read.readServiceEntry(value) };
      default:
        throw new RangeError(`"${kind}" is a kind that this release does not know`);
    }
  }

  #parseMember(key: string, name: string, value: EntryValue): MemberRecord {
    const record = this.#openRecord(key, value);
    if (`${record.cluster.name}/${record.name}` !== name) throw new RangeError("name must be that of the key");
    if (name === this.#options.selfName && !equalData(record.publicKey, this.#options.publicKey)) {
      throw new RangeError("publicKey must be this member's own");
    }
    return record;
  }

  #openRecord(key: string, value: EntryValue): MemberRecord {
    const trust = this.#options.trust;
    if (trust.kind === "local") return read.readMemberRecord(value);
    const signed = read.readSignedRecord(value);
    const known = this.#parsed.get(key);
    // a snapshot repeats what we hold: verified before
    if (known?.kind === "member" && equalData(this.#raw.get(key), value)) return known.value;
    const message = new Uint8Array(SIGNED_PREFIX.length + signed.record.length);
    message.set(SIGNED_PREFIX);
    message.set(signed.record, SIGNED_PREFIX.length);
    if (!trust.keys.some((publicKey) => trust.ciphers.verify(publicKey, message, signed.signature))) {
      throw new RangeError("signature must verify with the hub's record key");
    }
    return read.readMemberRecord(trust.decode(signed.record));
  }

  /** Applies what was staged. */
  commit(staged: Staged): Committed {
    const refused: [string, string][] = [];
    const changed = new Map<string, { before: Parsed | undefined; after: Parsed | undefined }>();
    for (const key of staged.deletes) {
      changed.set(key, { before: this.#parsed.get(key), after: undefined });
      this.#remove(key);
    }
    for (const [key, { raw, parsed }] of staged.puts) {
      const before = this.#parsed.get(key);
      this.#remove(key);
      this.#raw.set(key, raw);
      if (typeof parsed === "string") {
        this.#refused.set(key, parsed);
        refused.push([key, parsed]);
      } else {
        this.#parsed.set(key, parsed);
        this.#adopt(parsed);
      }
      changed.set(key, { before, after: typeof parsed === "string" ? undefined : parsed });
    }
    return { refused, ...summarise(changed.values()) };
  }

  #remove(key: string): void {
    const parsed = this.#parsed.get(key);
    this.#raw.delete(key);
    this.#refused.delete(key);
    this.#parsed.delete(key);
    if (parsed === undefined) return;
    if (parsed.kind === "settings") this.#settings = undefined;
    else this.#tableOf(parsed.kind).delete(parsed.id);
  }

  #adopt(parsed: Parsed): void {
    if (parsed.kind === "settings") this.#settings = parsed.value;
    else this.#tableOf(parsed.kind).set(parsed.id, parsed.value);
  }

  #tableOf(kind: Exclude<Parsed["kind"], "settings">): Map<string | number, unknown> {
    switch (kind) {
      case "member":
        return this.#members as Map<string | number, unknown>;
      case "identity":
        return this.#identities as Map<string | number, unknown>;
      case "namespace":
        return this.#namespaces as Map<string | number, unknown>;
      case "ip":
        return this.#ips as Map<string | number, unknown>;
      case "policy":
        return this.#policies as Map<string | number, unknown>;
      case "cidrgroup":
        return this.#cidrGroups as Map<string | number, unknown>;
      case "service":
        return this.#services as Map<string | number, unknown>;
    }
  }
}

function summarise(
  changes: Iterable<{ before: Parsed | undefined; after: Parsed | undefined }>,
): Omit<Committed, "refused"> {
  const byKind = {
    identity: noChanges(),
    namespace: noChanges(),
    policy: noChanges(),
    cidrgroup: noChanges(),
    service: noChanges(),
  };
  const ips = new Set<string>();
  const replaced = new Map<string, PolicyDocument | ServiceEntry | undefined>();
  let isSettingsChanged = false;
  let isMembersChanged = false;
  for (const { before, after } of changes) {
    if (equalData(before, after)) continue;
    const parsed = (after ?? before)!;
    if (parsed.kind === "policy" || parsed.kind === "cidrgroup" || parsed.kind === "service") {
      replaced.set(`${parsed.kind}/${parsed.id}`, before?.value as PolicyDocument | ServiceEntry | undefined);
    }
    if (parsed.kind === "settings") isSettingsChanged = true;
    else if (parsed.kind === "member") isMembersChanged = true;
    else if (parsed.kind === "ip") ips.add(parsed.id);
    else if (after !== undefined) byKind[parsed.kind].puts.push([parsed.id, parsed.value]);
    else byKind[parsed.kind].deletes.push(parsed.id);
  }
  return {
    isSettingsChanged,
    isMembersChanged,
    ips,
    identities: byKind.identity as Changes<number, IdentityEntry>,
    namespaces: byKind.namespace as Changes<string, NamespaceEntry>,
    policies: byKind.policy as Changes<string, PolicyDocument>,
    cidrGroups: byKind.cidrgroup as Changes<string, PolicyDocument>,
    services: byKind.service as Changes<string, ServiceEntry>,
    replaced,
  };
}

function noChanges(): { readonly puts: [unknown, unknown][]; readonly deletes: unknown[] } {
  return { puts: [], deletes: [] };
}

function isPairList(value: unknown): value is readonly (readonly [string, EntryValue])[] {
  return Array.isArray(value) &&
    value.every((pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string");
}
