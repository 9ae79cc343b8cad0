/**
 * Where devices ask to join. One request goes through these steps, and the first that fails answers:
 *
 *     1. is it a request at all; has its source, or its token, failed too often
 *     2. is there such a token; does the device know its secret and hold its key
 *     3. was this very request seen before
 *     4. is the device known: revoked, repeating itself, or too late to repeat
 *     5. does the token still admit; does it grant what the device asks for
 *     6. give name, addresses, identity, underlay address; sign; store all of it in one transaction
 */
import { equalConstantTime } from "../../src/bytes/compare.ts";
import { toHex } from "../../src/bytes/text.ts";
import { allocateAddresses, chooseUnderlay, makeMemberName } from "../../src/hub/allocate.ts";
import { Challenges } from "../../src/hub/challenges.ts";
import {
  deviceMessageOf,
  isJoinProof,
  type JoinAnswer,
  type JoinRequest,
  readJoinRequest,
  transcriptOf,
} from "../../src/hub/join.ts";
import { RateLimiter, sourceOf } from "../../src/hub/rate_limit.ts";
import {
  DEVICES_PREFIX,
  type MemberRow,
  MEMBERS_PREFIX,
  RELEASED_PREFIX,
  REVOKED_PREFIX,
  type TokenRow,
  TOKENS_PREFIX,
  writeRow,
} from "../../src/hub/records.ts";
import { ipKey } from "../../src/hub/keyspace.ts";
import { type JoinRefusal, refuse } from "../../src/hub/refusal.ts";
import { tokenIdText } from "../../src/hub/token.ts";
import { type Grant, grantOf, refusalOfToken, REPEAT_WINDOW_MS } from "../../src/hub/token_rules.ts";
import { formatUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { parseAddress } from "../../src/ip/address.ts";
import { auditFacts, type AuditTrail } from "./audit.ts";
import type { HubCore, MemberDraft } from "./core.ts";
import type { JoinContext } from "./state_types.ts";
import type { StoreCompare, StoreOp } from "./store.ts";

/** Failures of one source address, and about one token, before they have to wait. */
const SOURCE_LIMIT = { burst: 20, refillMs: 6_000 };
const TOKEN_LIMIT = { burst: 40, refillMs: 3_000 };
/** Another hub may be faster this often. */
const MAX_RACES = 5;
/** Attempts that these refusals end are guesses, or may be: they count against the source. */
const FAILURES: ReadonlySet<string> = new Set([
  "unknown",
  "bad-proof",
  "bad-request",
  "replayed",
  "used-up",
  "revoked",
]);

/** A request whose proof and signature are right. */
interface Proven {
  readonly request: JoinRequest;
  readonly token: TokenRow;
  readonly device: string;
  readonly context: JoinContext;
}

type Outcome = { readonly row: MemberRow; readonly isRepeat: boolean } | { readonly refusal: JoinRefusal };

export class JoinDesk {
  readonly #core: HubCore;
  readonly #audit: AuditTrail;
  readonly #challenges: Challenges;
  readonly #sources = new RateLimiter(SOURCE_LIMIT);
  readonly #tokens = new RateLimiter(TOKEN_LIMIT);
  /** tries that were refused unheard since the last audit record, by source */
  readonly #unheard = new Map<string, number>();

  constructor(core: HubCore, audit: AuditTrail) {
    this.#core = core;
    this.#audit = audit;
    this.#challenges = new Challenges(core.options.random);
  }

  challenge(): Uint8Array {
    return this.#challenges.make(this.#core.now());
  }

  /** See `HubState.join`. */
  async join(value: unknown, context: JoinContext): Promise<JoinAnswer | JoinRefusal> {
    const request = readJoinRequest(value);
    const tokenId = request === undefined ? "" : tokenIdText(request.tokenId);
    const source = sourceOf(context.remoteAddress);
    const waitMs = Math.max(
      this.#sources.waitMs(source, this.#core.now()),
      tokenId === "" ? 0 : this.#tokens.waitMs(tokenId, this.#core.now()),
    );
    if (waitMs > 0) {
      this.#unheard.set(source, (this.#unheard.get(source) ?? 0) + 1);
      return refuse("rate-limited", `too many failed tries; wait ${Math.ceil(waitMs / 1000)} s`, waitMs);
    }
    const outcome = request === undefined
      ? { refusal: refuse("bad-request", "the request is malformed") }
      : await this.#decide(request, tokenId, context);
    if ("row" in outcome) return this.#answerOf(outcome.row);
    await this.#noteRefusal(outcome.refusal, request, tokenId, source, context);
    return outcome.refusal;
  }

  async #noteRefusal(
    refusal: JoinRefusal,
    request: JoinRequest | undefined,
    tokenId: string,
    source: string,
    context: JoinContext,
  ): Promise<void> {
    const now = this.#core.now();
    if (FAILURES.has(refusal.code)) {
      this.#sources.fail(source, now);
      if (this.#core.model.tokens.has(tokenId)) this.#tokens.fail(tokenId, now);
    }
    const device = request === undefined ? "" : shortDevice(toHex(request.deviceKey));
    const repeated = this.#unheard.get(source) ?? 0;
    this.#unheard.delete(source);
    const from = fromText(context);
    this.#core.options.log.warn("join-refused", { code: refusal.code, token: tokenId, from });
    const facts = { at: now, event: "join" as const, result: refusal.code, tokenId, device, from, repeated };
    await this.#core.commit([], [this.#audit.record(auditFacts(facts))]);
  }

  async #decide(request: JoinRequest, tokenId: string, context: JoinContext): Promise<Outcome> {
    const token = this.#core.model.tokens.get(tokenId);
    if (token === undefined) return { refusal: refuse("unknown", "this hub knows no such token") };
    const transcript = transcriptOf(request);
    const isProven = isJoinProof(token.verifier, transcript, request.proof) &&
      equalConstantTime(token.caPin, request.caPin) &&
      this.#core.options.ciphers.verify(request.deviceKey, deviceMessageOf(transcript), request.signature);
    if (!isProven) {
      return { refusal: refuse("bad-proof", "the proof of the token, or the device's signature, is wrong") };
    }
    const challenge = this.#challenges.judge(request.challenge, this.#core.now());
    if (challenge === "used") return { refusal: refuse("replayed", "this join request was already answered") };
    if (challenge === "stale") {
      return { refusal: refuse("stale-challenge", "the hub's challenge ran out; ask for another") };
    }
    this.#challenges.use(request.challenge, this.#core.now());
    const proven = { request, token, device: toHex(request.deviceKey), context };
    return this.#core.exclusive(() => this.#admit(proven));
  }

  /** Steps 4 to 6, again when another hub was faster. */
  async #admit(proven: Proven): Promise<Outcome> {
    for (let race = 0; race < MAX_RACES; race++) {
      const token = this.#core.model.tokens.get(proven.token.id);
      if (token === undefined) return { refusal: refuse("unknown", "this hub knows no such token") };
      const outcome = await this.#admitOnce({ ...proven, token });
      if (outcome !== "race") return outcome;
    }
    return { refusal: refuse("exhausted", "too many devices join at once; try again") };
  }

  async #admitOnce(proven: Proven): Promise<Outcome | "race"> {
    const { model } = this.#core;
    const now = this.#core.now();
    const { token, device, request } = proven;
    if (model.revoked.has(device)) return { refusal: refuse("revoked", "this device was revoked") };
    const known = model.devices.get(device);
    if (known?.tokenId === token.id) {
      const isRepeat = now - known.joinedAt <= REPEAT_WINDOW_MS && token.revokedAt === null;
      const isSame = equalConstantTime(known.publicKey, request.publicKey);
      if (isRepeat && isSame) return await this.#repeat(proven, known);
      if (!isRepeat && token.revokedAt === null) return { refusal: tooLate(known) };
    }
    const refusal = known?.tokenId === token.id && token.revokedAt === null ? undefined : refusalOfToken(token, now);
    if (refusal !== undefined) return { refusal };
    const granted = grantOf(token, request);
    if ("refusal" in granted) return granted;
    return await this.#store(proven, granted.grant, known);
  }

  async #repeat(proven: Proven, row: MemberRow): Promise<Outcome> {
    await this.#core.commit([], [this.#audit.record(this.#factsOf(proven, row, "repeated"))]);
    return { row, isRepeat: true };
  }

  async #store(proven: Proven, grant: Grant, known: MemberRow | undefined): Promise<Outcome | "race"> {
    const draft = this.#draft(proven, grant, known);
    if ("refusal" in draft) return draft;
    const row = this.#core.sign(draft.row);
    const isCounted = known?.tokenId !== proven.token.id;
    const token: TokenRow = {
      ...proven.token,
      used: proven.token.used + (isCounted ? 1 : 0),
      lastUsedBy: row.name,
      lastUsedAt: this.#core.now(),
    };
    const result = row.state === "active" ? "joined" : "pending";
    const isDone = await this.#core.commit(draft.compares, [
      ...draft.ops,
      ...this.#core.storeMember(row),
      { op: "put", key: TOKENS_PREFIX + token.id, value: writeRow(token) },
      this.#audit.record(this.#factsOf(proven, row, result)),
    ]);
    if (!isDone) return "race";
    this.#core.options.log.info("member-joined", { member: row.name, state: row.state, addresses: row.addresses });
    return { row, isRepeat: false };
  }

  /** The new member, with the conditions under which nobody else was given the same. */
  #draft(
    proven: Proven,
    grant: Grant,
    known: MemberRow | undefined,
  ): { readonly row: MemberDraft; readonly compares: StoreCompare[]; readonly ops: StoreOp[] } | {
    readonly refusal: JoinRefusal;
  } {
    const { model, settings, options } = this.#core;
    const { request, token, device, context } = proven;
    const keyOwner = model.publicKeys.get(toHex(request.publicKey));
    if (keyOwner !== undefined && keyOwner !== known?.name) {
      return { refusal: refuse("duplicate-key", "another member has the same WireGuard key: make a new one") };
    }
    const isTaken = (name: string) => model.members.has(name);
    const name = known?.name ?? (grant.name || makeMemberName(isTaken, options.random));
    if (name === undefined) return { refusal: refuse("exhausted", "no free member name was found") };
    if (known === undefined && isTaken(name)) {
      return { refusal: refuse("name-taken", `another member has the name "${name}"`) };
    }
    const addresses = known?.addresses ?? this.#freeAddresses();
    if (addresses === undefined) return { refusal: refuse("exhausted", "the mesh has no free address") };
    const identity = this.#core.identityFor(this.#core.labelsOf(grant));
    if (identity === undefined) return { refusal: refuse("exhausted", "the cluster has no free identity") };
    const underlay = chooseUnderlay(request.localAddress, {
      addresses,
      memberCidrs: settings.memberCidrs,
      isUsed: (address) => (model.underlays.get(address) ?? name) !== name,
      isPlain: settings.routing.encryption === "none",
    });
    const row: MemberDraft = {
      name,
      state: known?.state === "active" || token.approve === "auto" ? "active" : "pending",
      isHub: false,
      deviceKey: request.deviceKey,
      publicKey: request.publicKey,
      addresses,
      underlay,
      localAddress: request.localAddress,
      endpoints: firstEndpoints(request, context),
      namespace: grant.namespace,
      labels: grant.labels,
      namedPorts: request.namedPorts,
      network: known?.network ?? "",
      aeads: known?.aeads ?? [], // its agent says, when it has found out
      identity: identity.identity,
      joinedAt: known?.tokenId === token.id ? known.joinedAt : this.#core.now(),
      tokenId: token.id,
    };
    const keys = [TOKENS_PREFIX + token.id, MEMBERS_PREFIX + name, DEVICES_PREFIX + device, REVOKED_PREFIX + device];
    const reused = known === undefined ? addresses.filter((address) => model.released.has(address)) : [];
    return {
      row,
      compares: [
        ...keys.map((key) => this.#core.unchanged(key)),
        ...(known === undefined ? addresses.map((ip) => ({ key: ipKey(ip), modRevision: 0 })) : []),
        ...identity.compares,
      ],
      ops: [...identity.ops, ...reused.map((address) => ({ op: "delete" as const, key: RELEASED_PREFIX + address }))],
    };
  }

  #freeAddresses(): readonly string[] | undefined {
    const { model, settings } = this.#core;
    const use = {
      isTaken: (address: string) => model.addresses.has(address) || model.underlays.has(address),
      freedAt: (address: string) => model.released.get(address),
    };
    return allocateAddresses(settings.memberCidrs, use, this.#core.now());
  }

  #factsOf(proven: Proven, row: MemberRow, result: string) {
    return auditFacts({
      at: this.#core.now(),
      event: "join",
      result,
      tokenId: proven.token.id,
      member: row.name,
      device: shortDevice(proven.device),
      from: fromText(proven.context),
    });
  }

  #answerOf(row: MemberRow): JoinAnswer {
    const { store, settings, recordKey } = this.#core.options;
    return {
      status: row.state === "active" ? "joined" : "pending",
      epoch: store.epoch,
      unixMs: this.#core.now(),
      name: row.name,
      addresses: row.addresses,
      record: { record: row.record, signature: row.signature },
      recordKey: recordKey.publicKey,
      settings,
    };
  }
}

function tooLate(known: MemberRow): JoinRefusal {
  const at = new Date(known.joinedAt).toISOString();
  return refuse(
    "replayed",
    `this device already joined with this token as "${known.name}" at ${at}; it needs no token now`,
  );
}

/** What of a device key is logged and audited: enough to tell devices apart. */
export function shortDevice(deviceHex: string): string {
  return deviceHex.slice(0, 16);
}

function fromText(context: JoinContext): string {
  const address = parseAddress(context.remoteAddress);
  if (address === undefined) return context.remoteAddress.slice(0, 64);
  return formatUnderlayAddr({ address, port: context.remotePort, scope: 0 });
}

/** A first guess where the device's WireGuard is; its reports replace it. */
function firstEndpoints(request: JoinRequest, context: JoinContext): string[] {
  if (request.listenPort === 0) return [];
  const addresses = [context.remoteAddress, request.localAddress].map(parseAddress).filter((a) => a !== undefined);
  const texts = addresses.map((address) => formatUnderlayAddr({ address, port: request.listenPort, scope: 0 }));
  return [...new Set(texts)];
}
