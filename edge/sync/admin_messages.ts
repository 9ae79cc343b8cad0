/**
 * What a hub's admin API (`edge/hub/api_admin.ts`) takes and answers, as its JSON has it; octets are base64, times Unix milliseconds.
 */
import type { DryRunReport } from "./dry_run.ts";

/** What `POST /v1/admin/tokens` takes; see `CreateTokenOptions` of the hub for defaults. */
export interface TokenRequest {
  /** `host:port` for the token, 1 to 3; default: what the hub advertises */
  readonly endpoints?: readonly string[];
  /** null = unlimited */
  readonly uses?: number | null;
  /** null = never expires */
  readonly ttlMs?: number | null;
  readonly labels?: Readonly<Record<string, string>>;
  readonly namespace?: string;
  readonly name?: string;
  readonly approve?: "auto" | "manual";
}

/** A token as `token list` shows it; no secret in it. */
export interface AdminToken {
  /** 16 hexadecimal digits */
  readonly id: string;
  readonly state: "valid" | "expired" | "used-up" | "revoked";
  /** null = unlimited */
  readonly uses: number | null;
  readonly used: number;
  readonly createdAt: number;
  /** null = never */
  readonly notAfter: number | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly name: string;
  readonly approve: "auto" | "manual";
  readonly lastUsedBy: string;
  readonly lastUsedAt: number | null;
}

export interface AdminMember {
  readonly name: string;
  readonly state: "active" | "pending" | "revoked";
  readonly isHub: boolean;
  /** base64 */
  readonly deviceKey: string;
  /** base64, as `wg` prints it */
  readonly publicKey: string;
  readonly addresses: readonly string[];
  readonly underlay: string;
  readonly endpoints: readonly string[];
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
  readonly identity: number;
  readonly joinedAt: number;
  readonly tokenId: string;
  /** its sync connection; null: none */
  readonly connection: AdminConnection | null;
}

export interface AdminConnection {
  readonly since: number;
  /** `address:port` of the member's end */
  readonly from: string;
  readonly version: string;
  /** newest revision that it has applied; null: none yet on this connection */
  readonly appliedRevision: number | null;
  /** octets of frames sent to it on this connection */
  readonly sentBytes: number;
}

export interface AdminStatus {
  readonly version: string;
  readonly cluster: { readonly name: string; readonly id: number };
  readonly epoch: string;
  readonly revision: number;
  readonly unixMs: number;
  readonly listen: string;
  readonly advertise: readonly string[];
  /** SHA-256 of the CA's SPKI, hexadecimal: what tokens pin */
  readonly caPin: string;
  readonly certificateNotAfter: number;
  readonly members: Readonly<Record<"total" | "active" | "pending" | "revoked" | "connected", number>>;
  /** the hub as a member of its own mesh: "running", or why it only serves */
  readonly member: string;
  readonly counters: Readonly<Record<string, number>>;
}

export interface AppliedObject {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly action: "created" | "configured" | "unchanged";
}

/** A fault in one of the documents of `apply`. */
export interface ApplyFault {
  /** position among the documents given */
  readonly index: number;
  readonly object: string;
  readonly message: string;
}

export interface ApplyAnswer {
  /** empty when there are errors */
  readonly applied: readonly AppliedObject[];
  readonly revision: number | null;
  /** nothing was stored if there is one */
  readonly errors: readonly ApplyFault[];
  /** of a dry run without errors; absent: a hub of an older release, or one that is busy with others */
  readonly dryRun?: DryRunReport;
}

/** An object by its name; `namespace` is "" for a cluster-wide kind. */
export interface ObjectName {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

export interface DeleteDryRunAnswer {
  /** those that do not exist */
  readonly missing: readonly ObjectName[];
  /** absent: the hub is busy with other dry runs */
  readonly dryRun?: DryRunReport;
}

export type KubernetesObject = Readonly<Record<string, unknown>>;
