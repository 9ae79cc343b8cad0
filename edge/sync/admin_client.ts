/**
 * Client of a hub's admin API (`edge/hub/api_admin.ts`), for `edgemesh hub token ...`, `member ...`, `apply`, `get`, `delete`. The
 * credential is a bearer secret: it is sent only after the hub was verified by its CA.
 *
 * Answers are the API's JSON, octets as base64; times are Unix milliseconds.
 */
import { EdgeError, type EdgeErrorCode } from "../errors.ts";
import { TrustedClock } from "./clock.ts";
import type { DryRunReport } from "./dry_run.ts";
import { type Endpoint, formatEndpoint, parseEndpoint } from "./endpoint.ts";
import { HttpConnection } from "./http.ts";
import { connectTls, resolveEndpoint } from "./tls.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 30_000;

export interface AdminClientOptions {
  /** `host:port` */
  readonly endpoint: string;
  readonly caPem: string;
  /** content of the hub's `admin.token`; secret */
  readonly credential: string;
  readonly timeoutMs?: number;
}

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

export interface AdminToken {
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

export interface ApplyAnswer {
  /** empty when there are errors */
  readonly applied: readonly AppliedObject[];
  readonly revision: number | null;
  /** nothing was stored if there is one */
  readonly errors: readonly { readonly index: number; readonly object: string; readonly message: string }[];
  /** of a dry run without errors; absent: a hub of an older release, or one that is busy with others */
  readonly dryRun?: DryRunReport;
}

/** An object by its name; `namespace` is "" for a cluster-wide kind. */
export interface AdminObjectName {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

export interface DeleteDryRunAnswer {
  /** those that do not exist */
  readonly missing: readonly AdminObjectName[];
  /** absent: the hub is busy with other dry runs */
  readonly dryRun?: DryRunReport;
}

export type KubernetesObject = Readonly<Record<string, unknown>>;

/** See the head of the file. Every method rejects with an EdgeError. */
export class AdminClient {
  readonly #options: AdminClientOptions;
  readonly #endpoint: Endpoint;

  constructor(options: AdminClientOptions) {
    const endpoint = parseEndpoint(options.endpoint);
    if (endpoint === undefined) {
      throw new EdgeError("EDGE_USAGE", `Cannot use hub "${options.endpoint}": not HOST:PORT`);
    }
    this.#endpoint = endpoint;
    this.#options = options;
  }

  status(): Promise<AdminStatus> {
    return this.#call("GET", "/v1/admin/status");
  }

  createToken(request: TokenRequest): Promise<{ readonly id: string; readonly token: string }> {
    return this.#call("POST", "/v1/admin/tokens", request);
  }

  async tokens(): Promise<readonly AdminToken[]> {
    return (await this.#call<{ tokens: AdminToken[] }>("GET", "/v1/admin/tokens")).tokens;
  }

  async revokeToken(id: string): Promise<void> {
    await this.#call("DELETE", `/v1/admin/tokens/${encodeURIComponent(id)}`);
  }

  async members(): Promise<readonly AdminMember[]> {
    return (await this.#call<{ members: AdminMember[] }>("GET", "/v1/admin/members")).members;
  }

  approveMember(name: string): Promise<AdminMember> {
    return this.#call("POST", `/v1/admin/members/${encodeURIComponent(name)}/approve`, {});
  }

  async revokeMember(name: string): Promise<void> {
    await this.#call("POST", `/v1/admin/members/${encodeURIComponent(name)}/revoke`, {});
  }

  async removeMember(name: string): Promise<void> {
    await this.#call("DELETE", `/v1/admin/members/${encodeURIComponent(name)}`);
  }

  /** Stores all documents, or none if one has a fault. */
  apply(documents: readonly unknown[], dryRun = false): Promise<ApplyAnswer> {
    return this.#call("POST", "/v1/admin/apply", { documents, dryRun });
  }

  async objects(filter: { kind?: string; namespace?: string } = {}): Promise<readonly KubernetesObject[]> {
    const query = new URLSearchParams(filter).toString();
    const path = `/v1/admin/objects${query === "" ? "" : `?${query}`}`;
    return (await this.#call<{ objects: KubernetesObject[] }>("GET", path)).objects;
  }

  /** @param namespace "" for a cluster-wide kind */
  async deleteObject(kind: string, namespace: string, name: string): Promise<void> {
    await this.#call("DELETE", `/v1/admin/objects?${new URLSearchParams({ kind, namespace, name }).toString()}`);
  }

  /** What members would newly drop, were these deleted. */
  deleteDryRun(objects: readonly AdminObjectName[]): Promise<DeleteDryRunAnswer> {
    return this.#call("POST", "/v1/admin/delete-dry-run", { objects });
  }

  /** Newest first. */
  async audit(limit = 100): Promise<readonly Record<string, unknown>[]> {
    return (await this.#call<{ audit: Record<string, unknown>[] }>("GET", `/v1/admin/audit?limit=${limit}`)).audit;
  }

  async #call<T>(method: "GET" | "POST" | "DELETE", path: string, value?: unknown): Promise<T> {
    const connection = await this.#connect();
    try {
      const answer = await connection.request({
        method,
        path,
        headers: {
          authorization: `Bearer ${this.#options.credential}`,
          connection: "close",
          ...(value !== undefined && { "content-type": "application/json" }),
        },
        ...(value !== undefined && { body: new TextEncoder().encode(JSON.stringify(value)) }),
      }, this.#options.timeoutMs ?? ANSWER_TIMEOUT_MS);
      return readAnswer<T>(answer.status, answer.body, this.#options.endpoint);
    } finally {
      connection.close();
    }
  }

  async #connect(): Promise<HttpConnection> {
    const trust = { caPem: this.#options.caPem, clock: new TrustedClock() };
    const timeoutMs = this.#options.timeoutMs ?? CONNECT_TIMEOUT_MS;
    let failure: unknown;
    for (const address of await resolveEndpoint(this.#endpoint)) {
      try {
        return new HttpConnection(await connectTls(address, { trust, timeoutMs }), formatEndpoint(address));
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }
}

function readAnswer<T>(status: number, body: Uint8Array, hub: string): T {
  let said: unknown;
  try {
    said = body.length === 0 ? {} : JSON.parse(new TextDecoder().decode(body));
  } catch {
    throw new EdgeError("EDGE_PROTOCOL", `Cannot read the answer of hub "${hub}": not JSON (HTTP ${status})`);
  }
  if (status >= 200 && status < 300) return said as T;
  const { message } = (said ?? {}) as { message?: unknown };
  const text = typeof message === "string" ? message : `HTTP ${status}`;
  throw new EdgeError(CODES[status] ?? "EDGE_HUB_REFUSED", `Cannot do this at hub "${hub}": ${text}`, {
    ...(status === 401 && { fix: "Use the credential in the hub's file admin.token." }),
  });
}

const CODES: Readonly<Record<number, EdgeErrorCode>> = {
  401: "EDGE_AGENT_DENIED",
  403: "EDGE_AGENT_DENIED",
  404: "EDGE_NOT_FOUND",
  429: "EDGE_TIMEOUT",
  503: "EDGE_TIMEOUT",
};
