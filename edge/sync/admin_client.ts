/**
 * Client of a hub's admin API (`edge/hub/api_admin.ts`), for `edgemesh hub token ...`, `member ...`, `apply`, `get`, `delete`. The
 * credential is a bearer secret: it is sent only after the hub was verified by its CA.
 */
import { EdgeError, type EdgeErrorCode } from "../errors.ts";
import type {
  AdminMember,
  AdminStatus,
  AdminToken,
  ApplyAnswer,
  DeleteDryRunAnswer,
  KubernetesObject,
  ObjectName,
  TokenRequest,
} from "./admin_messages.ts";
import { TrustedClock } from "./clock.ts";
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
  deleteDryRun(objects: readonly ObjectName[]): Promise<DeleteDryRunAnswer> {
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
