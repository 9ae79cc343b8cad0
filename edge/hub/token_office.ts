/** Where administrators make, list and revoke tokens. What a token admits is decided at the join desk. */
import { isDnsLabel, isLabel } from "../../src/hub/allocate.ts";
import { type TokenRow, TOKENS_PREFIX, writeRow } from "../../src/hub/records.ts";
import { TOKEN_ID_BYTES, TOKEN_SECRET_BYTES, tokenIdText, verifierOf, writeToken } from "../../src/hub/token.ts";
import { stateOfToken } from "../../src/hub/token_rules.ts";
import { auditFacts, type AuditTrail } from "./audit.ts";
import type { HubCore } from "./core.ts";
import type { AdminToken } from "../sync/admin_messages.ts";
import type { CreateTokenOptions } from "./state_types.ts";
import type { StoreOp } from "./store.ts";

const DEFAULT_TTL_MS = 24 * 3600 * 1000;

export class TokenOffice {
  readonly #core: HubCore;
  readonly #audit: AuditTrail;

  constructor(core: HubCore, audit: AuditTrail) {
    this.#core = core;
    this.#audit = audit;
  }

  /**
   * Makes a token; its text is given out here and never again.
   *
   * @throws RangeError for options that no token can have
   */
  async create(options: CreateTokenOptions): Promise<{ readonly id: string; readonly token: string }> {
    checkTokenOptions(options);
    const id = new Uint8Array(TOKEN_ID_BYTES);
    const secret = new Uint8Array(TOKEN_SECRET_BYTES);
    this.#core.options.random(id);
    this.#core.options.random(secret);
    const createdAt = Math.floor(this.#core.now() / 1000) * 1000;
    const notAfter = createdAt + Math.ceil((options.ttlMs ?? DEFAULT_TTL_MS) / 1000) * 1000;
    const { endpoints, caPin } = options;
    const needsApproval = options.approve === "manual";
    const token = writeToken({ id, secret, caPin, endpoints, issuedAt: createdAt, notAfter, needsApproval });
    const uses = options.uses ?? 1;
    const row: TokenRow = {
      id: tokenIdText(id),
      verifier: verifierOf(secret),
      caPin,
      createdAt,
      notAfter: notAfter === Infinity ? null : notAfter,
      uses: uses === Infinity ? null : uses,
      used: 0,
      revokedAt: null,
      labels: options.labels ?? {},
      namespace: options.namespace ?? "",
      name: options.name ?? "",
      approve: options.approve ?? "auto",
      lastUsedBy: "",
      lastUsedAt: null,
    };
    await this.#core.exclusive(() =>
      this.#core.commit([], [
        { op: "put", key: TOKENS_PREFIX + row.id, value: writeRow(row) },
        this.#act("token-create", row.id),
      ])
    );
    return { id: row.id, token };
  }

  /** Oldest first. */
  list(): AdminToken[] {
    const now = this.#core.now();
    const rows = [...this.#core.model.tokens.values()].sort((a, b) =>
      a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1)
    );
    return rows.map(({ verifier: _verifier, caPin: _caPin, revokedAt: _revokedAt, ...shown }) => ({
      ...shown,
      state: stateOfToken(this.#core.model.tokens.get(shown.id)!, now),
    }));
  }

  /** @returns false when there is no such token */
  async revoke(id: string): Promise<boolean> {
    return await this.#core.exclusive(async () => {
      const row = this.#core.model.tokens.get(id);
      if (row === undefined) return false;
      if (row.revokedAt !== null) return true;
      return await this.#core.commit([], [
        { op: "put", key: TOKENS_PREFIX + id, value: writeRow({ ...row, revokedAt: this.#core.now() }) },
        this.#act("token-revoke", id),
      ]);
    });
  }

  #act(event: "token-create" | "token-revoke", tokenId: string): StoreOp {
    return this.#audit.record(auditFacts({ at: this.#core.now(), event, result: "ok", tokenId }));
  }
}

/** @throws RangeError */
function checkTokenOptions(options: CreateTokenOptions): void {
  const { uses = 1, ttlMs = DEFAULT_TTL_MS, name = "", namespace = "", labels = {} } = options;
  const fail = (why: string): never => {
    throw new RangeError(`Cannot make a token: ${why}`);
  };
  if (uses !== Infinity && !(Number.isSafeInteger(uses) && uses >= 1)) {
    fail("uses must be a whole number of at least 1");
  }
  if (!(ttlMs >= 1000)) fail("its time must be at least one second");
  if (name !== "" && !isDnsLabel(name)) fail(`name "${name}" is no DNS label`);
  if (name !== "" && uses !== 1) fail("a token with a name can have one use only");
  if (namespace !== "" && !isDnsLabel(namespace)) fail(`namespace "${namespace}" is no DNS label`);
  for (const [key, value] of Object.entries(labels)) if (!isLabel(key, value)) fail(`"${key}=${value}" is no label`);
}
