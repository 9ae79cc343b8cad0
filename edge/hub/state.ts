/**
 * The hub's state: who is a member, who may become one, what each member is sent. All of it lives in the store; this keeps
 * an index in memory, follows the store's watch, and decides. Read `src/hub/` first: the rules are there, pure. The parts:
 *
 *     core.ts       store, model, signing            views.ts    what members are sent, and when
 *     join_desk.ts  who is admitted                  objects.ts  policies, services, namespaces
 *     token_office  makes and revokes tokens         audit.ts    what was done by whom
 *     upkeep.ts     what is done without being asked
 *
 * Used by `server.ts` (join, sync, administration over TLS) and by `edgemesh hub run`.
 */
import { toHex } from "../../src/bytes/text.ts";
import {
  allocateAddresses,
  chooseUnderlay,
  hubAddresses,
  isMeshAddress,
  memberCidrFaults,
} from "../../src/hub/allocate.ts";
import type { JoinAnswer, JoinRequest } from "../../src/hub/join.ts";
import { DEVICES_PREFIX, type MemberRow, MEMBERS_PREFIX, REVOKED_PREFIX, writeRow } from "../../src/hub/records.ts";
import type { JoinRefusal } from "../../src/hub/refusal.ts";
import { formatUnderlayAddr, parseUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import type { MeshSettings, StateFrame } from "../../src/mesh/entries.ts";
import { auditFacts, AuditTrail } from "./audit.ts";
import { HubCore, type MemberDraft } from "./core.ts";
import { JoinDesk, shortDevice } from "./join_desk.ts";
import { HubObjects } from "./objects.ts";
import type { AdminToken, ObjectName } from "../sync/admin_messages.ts";
import type {
  ApplyResult,
  AuditRecord,
  ConnectionFacts,
  CreateTokenOptions,
  DeletePreview,
  HubMemberFacts,
  HubStateOptions,
  JoinContext,
  Member,
  ResumePoint,
  Subscription,
} from "./state_types.ts";
import { TokenOffice } from "./token_office.ts";
import { Upkeep } from "./upkeep.ts";
import { Views } from "./views.ts";

export type * from "./state_types.ts";

const MAX_ENDPOINTS = 8;

export class HubState {
  readonly #core: HubCore;
  readonly #audit: AuditTrail;
  readonly #desk: JoinDesk;
  readonly #objects: HubObjects;
  readonly #tokens: TokenOffice;
  readonly #upkeep: Upkeep;
  readonly #views: Views;

  private constructor(core: HubCore, audit: AuditTrail) {
    this.#core = core;
    this.#audit = audit;
    this.#desk = new JoinDesk(core, audit);
    this.#objects = new HubObjects(core);
    this.#tokens = new TokenOffice(core, audit);
    this.#upkeep = new Upkeep(core);
    this.#views = new Views({
      model: core.model,
      settings: core.settings,
      epoch: core.options.store.epoch,
      revision: () => core.appliedRevision,
      logStart: core.logStart,
      schedule: core.options.schedule ?? scheduleTimer,
    });
    core.onChange = (change, revision) => this.#views.note(change, revision);
  }

  /**
   * Opens the state in a store; an empty store starts a new mesh.
   *
   * @throws RangeError for member prefixes that cannot be used; Error when the store belongs to another cluster
   */
  static async open(options: HubStateOptions): Promise<HubState> {
    const faults = memberCidrFaults(options.settings.memberCidrs);
    if (faults.length > 0) throw new RangeError(`Cannot use the member prefixes: ${faults.join("; ")}`);
    const core = await HubCore.open(options);
    const state = new HubState(core, await AuditTrail.open(options.store));
    await state.#upkeep.publishAll();
    return state;
  }

  get epoch(): string {
    return this.#core.options.store.epoch;
  }

  get revision(): number {
    return this.#core.appliedRevision;
  }

  get settings(): MeshSettings {
    return this.#core.settings;
  }

  /**
   * Makes a token; its text is given out here and never again.
   *
   * @throws RangeError for options that no token can have
   */
  createToken(options: CreateTokenOptions): Promise<{ readonly id: string; readonly token: string }> {
    return this.#tokens.create(options);
  }

  /** Oldest first. */
  listTokens(): AdminToken[] {
    return this.#tokens.list();
  }

  /** @returns false when there is no such token */
  revokeToken(id: string): Promise<boolean> {
    return this.#tokens.revoke(id);
  }

  /** A challenge of 32 octets, good for one join within two minutes. Costs no memory. */
  challenge(): Uint8Array {
    return this.#desk.challenge();
  }

  /** Decides a join. Takes anything that came over the network; a malformed request is refused, never thrown. */
  join(request: JoinRequest, context: JoinContext): Promise<JoinAnswer | JoinRefusal> {
    return this.#desk.join(request, context);
  }

  /**
   * Writes or renews the hub's own member record; first addresses of the member prefixes.
   *
   * @throws RangeError when the name belongs to a member that is no hub, or no address is free
   */
  async putHubMember(facts: HubMemberFacts): Promise<Member> {
    return await this.#core.exclusive(async () => {
      const { model, settings } = this.#core;
      const known = model.members.get(facts.name);
      if (known !== undefined && !known.isHub) throw new RangeError(`Member "${facts.name}" is no hub`);
      const addresses = known?.addresses ?? this.#hubAddresses();
      const identity = this.#core.identityFor(this.#core.labelsOf(facts));
      if (identity === undefined) throw new RangeError("The cluster has no free identity");
      const draft: MemberDraft = {
        ...facts,
        state: "active",
        isHub: true,
        addresses,
        underlay: chooseUnderlay(facts.underlay, {
          addresses,
          memberCidrs: settings.memberCidrs,
          isUsed: this.#isOthersUnderlay(facts.name),
          isPlain: settings.routing.encryption === "none",
        }),
        localAddress: facts.underlay,
        endpoints: endpointsOf(facts.endpoints),
        aeads: known?.aeads ?? [],
        network: facts.network ?? known?.network ?? "",
        identity: identity.identity,
        joinedAt: known?.joinedAt ?? this.#core.now(),
        tokenId: "",
      };
      if (known !== undefined && isSameMember(known, draft)) return memberOf(known);
      const oldDevice = known && toHex(known.deviceKey);
      const isNewDevice = oldDevice !== undefined && oldDevice !== toHex(facts.deviceKey);
      const row = this.#core.sign(draft);
      await this.#core.commit(identity.compares, [
        ...identity.ops,
        ...(isNewDevice ? [{ op: "delete" as const, key: DEVICES_PREFIX + oldDevice }] : []),
        ...this.#core.storeMember(row),
      ]);
      return memberOf(row);
    });
  }

  #hubAddresses(): readonly string[] {
    const { model, settings } = this.#core;
    const first = hubAddresses(settings.memberCidrs);
    if (!first.some((address) => model.addresses.has(address))) return first;
    const use = {
      isTaken: (address: string) => model.addresses.has(address),
      freedAt: (address: string) => model.released.get(address),
    };
    const free = allocateAddresses(settings.memberCidrs, use, this.#core.now());
    if (free === undefined) throw new RangeError("The mesh has no free address");
    return free;
  }

  #isOthersUnderlay(name: string): (underlay: string) => boolean {
    return (underlay) => (this.#core.model.underlays.get(underlay) ?? name) !== name;
  }

  /** Whose device key this is. The caller has checked that the connection holds the key. */
  authenticate(deviceKey: Uint8Array): Member | { readonly refused: "revoked" | "unknown" | "pending" } {
    const device = toHex(deviceKey);
    if (this.#core.model.revoked.has(device)) return { refused: "revoked" };
    const row = this.#core.model.devices.get(device);
    if (row === undefined) return { refused: "unknown" };
    return row.state === "pending" ? { refused: "pending" } : memberOf(row);
  }

  /** What a connected member reports; its record is signed anew only if that changes it. Unknown members are ignored. */
  async noteConnection(memberName: string, facts: ConnectionFacts): Promise<void> {
    await this.#core.exclusive(async () => {
      const { model, settings } = this.#core;
      const row = model.members.get(memberName);
      if (row === undefined || row.state !== "active") return;
      const isInside = isMeshAddress(facts.localAddress, settings.memberCidrs);
      const localAddress = isInside ? row.localAddress : facts.localAddress || row.localAddress;
      const isPlain = settings.routing.encryption === "none";
      const chosen = chooseUnderlay(localAddress, {
        addresses: row.addresses,
        memberCidrs: settings.memberCidrs,
        isUsed: this.#isOthersUnderlay(memberName),
        isPlain,
      });
      const isFamilyWrong = row.underlay.includes(":") !== row.addresses[0]!.includes(":");
      const keepsUnderlay = localAddress === row.localAddress && !isPlain && !isFamilyWrong;
      const draft: MemberDraft = {
        ...row,
        localAddress,
        endpoints: isInside ? row.endpoints : endpointsOf(facts.endpoints),
        aeads: facts.aeads ?? [],
        network: facts.network ?? row.network,
        underlay: keepsUnderlay ? row.underlay : chosen,
      };
      if (isSameMember(row, draft)) return;
      const compare = this.#core.unchanged(MEMBERS_PREFIX + memberName);
      await this.#core.commit([compare], this.#core.storeMember(this.#core.sign(draft)));
    });
  }

  /** What the hub's own agent found that it can seal with; other members say so in their report. */
  async noteAeads(memberName: string, aeads: readonly string[]): Promise<void> {
    await this.#core.exclusive(async () => {
      const row = this.#core.model.members.get(memberName);
      if (row === undefined || row.state !== "active" || isSameMember(row, { ...row, aeads })) return;
      const compare = this.#core.unchanged(MEMBERS_PREFIX + memberName);
      await this.#core.commit([compare], this.#core.storeMember(this.#core.sign({ ...row, aeads })));
    });
  }

  /** All members, by name; pending and revoked ones too. */
  members(): Member[] {
    const rows = [...this.#core.model.members.values(), ...this.#core.model.revoked.values()];
    return rows.map(memberOf).sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.joinedAt - b.joinedAt);
  }

  /** @returns undefined when there is no such pending member */
  async approveMember(name: string): Promise<Member | undefined> {
    return await this.#core.exclusive(async () => {
      const row = this.#core.model.members.get(name);
      if (row?.state !== "pending") return undefined;
      const approved = this.#core.sign({ ...row, state: "active" });
      const compare = this.#core.unchanged(MEMBERS_PREFIX + name);
      const act = this.#act("approve", { member: name, device: shortDevice(toHex(row.deviceKey)) });
      const isDone = await this.#core.commit([compare], [...this.#core.storeMember(approved), act]);
      return isDone ? memberOf(approved) : undefined;
    });
  }

  /** Its device key is refused for ever; peers drop it with their next delta. @returns false when there is no such member */
  async revokeMember(name: string): Promise<boolean> {
    return await this.#drop(name, "revoke");
  }

  /** It leaves; the device may join again with a new token. @returns false when there is no such member */
  async removeMember(name: string): Promise<boolean> {
    return await this.#drop(name, "remove");
  }

  async #drop(name: string, event: "revoke" | "remove"): Promise<boolean> {
    return await this.#core.exclusive(async () => {
      const row = this.#core.model.members.get(name);
      if (row === undefined) return false;
      const device = toHex(row.deviceKey);
      const revoked: MemberRow = { ...row, state: "revoked" };
      const tombstone = { op: "put" as const, key: REVOKED_PREFIX + device, value: writeRow(revoked) };
      // the tombstone first: whoever follows the store learns why before that
      const ops = [...(event === "revoke" ? [tombstone] : []), ...this.#core.dropMember(row)];
      const act = this.#act(event, { member: name, device: shortDevice(device) });
      const isDone = await this.#core.commit([this.#core.unchanged(MEMBERS_PREFIX + name)], [...ops, act]);
      // revocation does not wait for company
      if (isDone) this.#views.flush();
      return isDone;
    });
  }

  /** Stores objects: all of them, or, if one has a fault, none. With `isDryRun` only says what would happen. */
  apply(documents: readonly unknown[], isDryRun = false): Promise<ApplyResult> {
    return this.#objects.apply(documents, isDryRun);
  }

  /** The documents as they were applied, by kind, namespace and name. */
  get(kind?: string, namespace?: string): Readonly<Record<string, unknown>>[] {
    return this.#objects.get(kind, namespace);
  }

  /** @returns false when there is no such object */
  delete(kind: string, namespace: string, name: string): Promise<boolean> {
    return this.#objects.delete(kind, namespace, name);
  }

  /** What members would be sent, were these deleted. */
  previewDelete(objects: readonly ObjectName[]): DeletePreview {
    return this.#objects.previewDelete(objects);
  }

  /**
   * Sends a member its state: at once a snapshot, or a delta where `resume` still allows one (an empty one, if nothing
   * changed), then deltas. The same frame object goes to all members that need the same; `encodeFrame` (frames.ts) encodes it once.
   *
   * @param onGone the member was revoked or removed; nothing is sent any more, its connection should be closed
   * @throws RangeError when there is no such active member
   */
  subscribe(
    memberName: string,
    resume: ResumePoint | undefined,
    send: (frame: StateFrame) => void,
    onGone: (reason: "revoked" | "removed") => void = () => {},
  ): Subscription {
    return this.#views.subscribe(memberName, resume, send, onGone);
  }

  /** The newest tries and administrative acts, newest first. */
  audit(limit: number): Promise<AuditRecord[]> {
    return this.#audit.newest(limit);
  }

  /** Computes and sends what has changed since the last time, without waiting for the batch timer. */
  flush(): void {
    this.#views.flush();
  }

  /** Upkeep: heartbeat, leases, records that need a new signature, identities that nobody has. Call it every second or so. */
  tick(): Promise<void> {
    return this.#upkeep.tick();
  }

  /** Ends subscriptions and the watch; the store stays open, it is its owner's. */
  close(): void {
    this.#views.close();
    this.#core.close();
  }

  #act(event: AuditRecord["event"], facts: { tokenId?: string; member?: string; device?: string }) {
    return this.#audit.record(auditFacts({ at: this.#core.now(), event, result: "ok", ...facts }));
  }
}

function scheduleTimer(task: () => void, ms: number): () => void {
  const timer = setTimeout(task, ms);
  return () => clearTimeout(timer);
}

/** What reads as `address:port`, canonical, without doubles. */
function endpointsOf(texts: readonly string[]): string[] {
  const read = texts.map(parseUnderlayAddr).filter((addr) => addr !== undefined);
  return [...new Set(read.map(formatUnderlayAddr))].slice(0, MAX_ENDPOINTS);
}

/** Nothing that is stored or signed differs, the signature itself aside. */
function isSameMember(row: MemberRow, draft: MemberDraft): boolean {
  return textOfMember(row) === textOfMember(draft);
}

function textOfMember(member: MemberDraft & Partial<MemberRow>): string {
  const { record: _record, signature: _signature, notAfter: _notAfter, ...rest } = member;
  return new TextDecoder().decode(writeRow(Object.fromEntries(Object.entries(rest).sort())));
}

function memberOf(row: MemberRow): Member {
  const { localAddress: _localAddress, notAfter: _notAfter, record, signature, ...shown } = row;
  return { ...shown, record: { record, signature } };
}
