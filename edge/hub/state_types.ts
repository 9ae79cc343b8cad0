/** What `HubState` takes and gives (state.ts). */
import type { EntryValue, MeshSettings, NamedPort, SignedRecord } from "../../src/mesh/entries.ts";
import type { Ciphers, Log, RandomBytes } from "../../src/ports.ts";
import type { AppliedObject, ApplyFault, ObjectName } from "../sync/admin_messages.ts";
import type { Store } from "./store.ts";

export interface HubStateOptions {
  readonly store: Store;
  /** what every member is told, and what allocation needs; `cluster.id` 1 to 255 */
  readonly settings: MeshSettings;
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
  /** the network that it says it is in, "" = none */
  readonly network: string;
  /** what its record announces for transport data, beside WireGuard's own */
  readonly aeads: readonly string[];
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
  /** absent: as before; "" = none */
  readonly network?: string;
}

export interface ConnectionFacts {
  /** `address:port` of the member's WireGuard as seen or as reported, best first */
  readonly endpoints: readonly string[];
  /** the member's own address on its network, or "" */
  readonly localAddress: string;
  /** what it seals transport data with where others do too; absent: WireGuard's own only */
  readonly aeads?: readonly string[];
  /** the network that it says it is in, "" = none; absent: as before */
  readonly network?: string;
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

export type ApplyResult =
  | {
    readonly applied: readonly AppliedObject[];
    readonly revision: number;
    /** of a dry run: what members would be sent, were it in earnest */
    readonly puts?: readonly (readonly [key: string, value: EntryValue])[];
  }
  | { readonly errors: readonly ApplyFault[] };

/** What members would be sent, were objects deleted. */
export interface DeletePreview {
  /** those that do not exist */
  readonly missing: readonly ObjectName[];
  readonly puts: readonly (readonly [key: string, value: EntryValue])[];
  readonly deletes: readonly string[];
}

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
