/**
 * The hub's state: who is a member, who may become one, what each member is sent. All of it lives in the store; this keeps
 * an index in memory, follows the store's watch, and decides. Read `src/hub/` first: the rules are there, pure.
 *
 * Used by `server.ts` (join, sync, administration over TLS) and by `edgemesh hub run`.
 */
import type { JoinAnswer, JoinRequest } from "../../src/hub/join.ts";
import type { JoinRefusal } from "../../src/hub/refusal.ts";
import type { MeshSettings, NamedPort, SignedRecord, StateFrame } from "../../src/mesh/entries.ts";
import type { Ciphers, Log, RandomBytes } from "../../src/ports.ts";
import type { Store } from "./store.ts";

/** What every member is told, and what allocation needs. `cluster.id` 1 to 255. */
export type HubSettings = MeshSettings;

export interface HubStateOptions {
  readonly store: Store;
  readonly settings: HubSettings;
  /** Ed25519; signs member records. Secret key in the 64-octet form (seed || public key) */
  readonly recordKey: { readonly publicKey: Uint8Array; readonly secretKey: Uint8Array };
  readonly ciphers: Pick<Ciphers, "sign" | "verify">;
  readonly random: RandomBytes;
  /** Unix milliseconds */
  readonly now: () => number;
  readonly log: Log;
  /** runs `task` once after `ms`; default: setTimeout. Tests bring their own. @returns cancels it */
  readonly schedule?: (task: () => void, ms: number) => () => void;
}

export interface CreateTokenOptions {
  /** `host:port`, 1 to 3 */
  readonly endpoints: readonly string[];
  /** SHA-256 of the CA's SPKI, 32 octets */
  readonly caPin: Uint8Array;
  /** default 1; Infinity = unlimited */
  readonly uses?: number;
  /** default 24 h; Infinity = never expires */
  readonly ttlMs?: number;
  /** labels that every member gets that joins with it; a device may add others, not change these */
  readonly labels?: Readonly<Record<string, string>>;
  readonly namespace?: string;
  /** the member's name; only for a token of one use */
  readonly name?: string;
  /** default "auto" */
  readonly approve?: "auto" | "manual";
}

/** A token as `token list` shows it; no secret in it. */
export interface TokenSummary {
  /** 16 hexadecimal digits */
  readonly id: string;
  readonly state: "valid" | "expired" | "used-up" | "revoked";
  /** `null` = unlimited */
  readonly uses: number | null;
  readonly used: number;
  /** Unix milliseconds; `notAfter` `null` = never */
  readonly createdAt: number;
  readonly notAfter: number | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly name: string;
  readonly approve: "auto" | "manual";
  readonly lastUsedBy: string;
  readonly lastUsedAt: number | null;
}

/** A member as the hub knows it. */
export interface Member {
  readonly name: string;
  readonly state: "active" | "pending" | "revoked";
  readonly isHub: boolean;
  readonly deviceKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly addresses: readonly string[];
  readonly underlay: string;
  readonly endpoints: readonly string[];
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  readonly identity: number;
  /** Unix milliseconds */
  readonly joinedAt: number;
  /** id of the token it joined with; empty for the hub */
  readonly tokenId: string;
  readonly record: SignedRecord;
}

export interface JoinContext {
  /** where the TLS connection comes from */
  readonly remoteAddress: string;
  readonly remotePort: number;
}

/** The hub as a member of its own mesh. */
export interface HubMemberFacts {
  readonly name: string;
  readonly deviceKey: Uint8Array;
  readonly publicKey: Uint8Array;
  /** its address in outer headers; empty: its first mesh address */
  readonly underlay: string;
  /** `address:port` that members reach its WireGuard at, best first */
  readonly endpoints: readonly string[];
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
}

export interface ConnectionFacts {
  /** `address:port` of the member's WireGuard as seen or as reported, best first */
  readonly endpoints: readonly string[];
  /** the member's own address on its network, or "" */
  readonly localAddress: string;
}

/** One try to join, kept for the administrator. */
export interface AuditRecord {
  readonly sequence: number;
  /** Unix milliseconds */
  readonly at: number;
  readonly event: "join" | "approve" | "revoke" | "remove" | "token-create" | "token-revoke";
  /** "joined", "pending", "repeated", "ok" or a refusal code */
  readonly result: string;
  readonly tokenId: string;
  readonly member: string;
  /** hexadecimal of the first 8 octets of the device key */
  readonly device: string;
  readonly from: string;
  /** identical tries that were not written one by one */
  readonly repeated: number;
}

/** A fault in one of the documents of `apply`. */
export interface ApplyFault {
  /** position among the documents given */
  readonly index: number;
  readonly object: string;
  readonly message: string;
}

export interface AppliedObject {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly action: "created" | "configured" | "unchanged";
}

export type ApplyResult =
  | { readonly applied: readonly AppliedObject[]; readonly revision: number }
  | { readonly errors: readonly ApplyFault[] };

/** Where a member's knowledge stands. */
export interface ResumePoint {
  readonly epoch: string;
  readonly revision: number;
}

/**
 * A member's subscription; calling it ends it. While paused (its connection is full) nothing is sent, and what was missed
 * comes as one delta or snapshot after `resume`.
 */
export interface Subscription {
  (): void;
  pause(): void;
  resume(): void;
}

export class HubState {
  /** Opens the state in a store; an empty store starts a new mesh. Rejects when the store belongs to another cluster. */
  static open(_options: HubStateOptions): Promise<HubState> {
    throw new Error("in progress");
  }
  get epoch(): string {
    throw new Error("in progress");
  }
  get revision(): number {
    throw new Error("in progress");
  }
  get settings(): HubSettings {
    throw new Error("in progress");
  }
  /** Makes a token; its text is given out here and never again. */
  createToken(_options: CreateTokenOptions): Promise<{ readonly id: string; readonly token: string }> {
    throw new Error("in progress");
  }
  listTokens(): TokenSummary[] {
    throw new Error("in progress");
  }
  /** @returns false when there is no such token */
  revokeToken(_id: string): Promise<boolean> {
    throw new Error("in progress");
  }
  /** A single-use challenge of 32 octets, good for two minutes; kept in memory, a bounded number of them. */
  challenge(): Uint8Array {
    throw new Error("in progress");
  }
  /** Decides a join. Takes anything that came over the network; a malformed request is refused, never thrown. */
  join(_request: JoinRequest, _context: JoinContext): Promise<JoinAnswer | JoinRefusal> {
    throw new Error("in progress");
  }
  /** Writes or renews the hub's own member record; first addresses of the member CIDRs. */
  putHubMember(_facts: HubMemberFacts): Promise<Member> {
    throw new Error("in progress");
  }
  /** Whose device key this is. The caller has checked that the connection holds the key. */
  authenticate(_deviceKey: Uint8Array): Member | { readonly refused: "revoked" | "unknown" | "pending" } {
    throw new Error("in progress");
  }
  /** What a connected member reports; its record is signed anew only if that changes it. */
  noteConnection(_memberName: string, _facts: ConnectionFacts): Promise<void> {
    throw new Error("in progress");
  }
  /** All members, by name; pending and revoked ones too. */
  members(): Member[] {
    throw new Error("in progress");
  }
  /** @returns undefined when there is no such pending member */
  approveMember(_name: string): Promise<Member | undefined> {
    throw new Error("in progress");
  }
  /** Its device key is refused for ever; peers drop it with their next delta. @returns false when there is no such member */
  revokeMember(_name: string): Promise<boolean> {
    throw new Error("in progress");
  }
  /** It leaves; the device may join again with a new token. @returns false when there is no such member */
  removeMember(_name: string): Promise<boolean> {
    throw new Error("in progress");
  }
  /** Stores policies and namespaces: all of them, or, if one has a fault, none. With `dryRun` only says what would happen. */
  apply(_documents: readonly unknown[], _dryRun?: boolean): Promise<ApplyResult> {
    throw new Error("in progress");
  }
  /** The documents as they were applied, by kind, namespace and name. */
  get(_kind?: string, _namespace?: string): Readonly<Record<string, unknown>>[] {
    throw new Error("in progress");
  }
  /** @returns false when there is no such object */
  delete(_kind: string, _namespace: string, _name: string): Promise<boolean> {
    throw new Error("in progress");
  }
  /**
   * Sends a member its state: at once a snapshot, or a delta where `resume` still allows one, then deltas. The same frame
   * object goes to all members that need the same; `encodeFrame` (frames.ts) encodes it once.
   *
   * @param onGone the member was revoked or removed; nothing is sent any more, its connection should be closed
   */
  subscribe(
    _memberName: string,
    _resume: ResumePoint | undefined,
    _send: (frame: StateFrame) => void,
    _onGone?: (reason: "revoked" | "removed") => void,
  ): Subscription {
    throw new Error("in progress");
  }
  /** The newest tries and administrative acts, newest first. */
  audit(_limit: number): Promise<AuditRecord[]> {
    throw new Error("in progress");
  }
  /** Computes and sends what has changed since the last time, without waiting for the batch timer. */
  flush(): void {
    throw new Error("in progress");
  }
  /** Upkeep: heartbeat, leases, records that need a new signature, identities that nobody has. Call it every second or so. */
  tick(): Promise<void> {
    throw new Error("in progress");
  }
  /** Ends subscriptions and the watch; the store stays open, it is its owner's. */
  close(): void {
    throw new Error("in progress");
  }
}
