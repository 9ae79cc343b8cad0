/**
 * `Policies` by the policy engine of `src/policy`. Brings together what goes to the datapath in one message: the mesh's tables, the
 * policy table, and the ipcache, in which the prefixes of policies lie over those of the mesh (`ip_layers.ts`).
 */
import type { DatapathCommand, PutIp } from "../../src/datapath/control.ts";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { IDENTITY_HOST, isWorldIdentity } from "../../src/identity/reserved.ts";
import { formatPrefix, type IpAddress, type IpPrefix, parseAddress } from "../../src/ip/address.ts";
import { IpLayers } from "../../src/mesh/ip_layers.ts";
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";
import { PolicyEngine, type RuleRef } from "../../src/policy/engine.ts";
import type { Direction } from "../../src/policy/model.ts";
import type { Judging } from "../../src/policy/newly_dropped.ts";
import type { PolicyUpdate } from "../../src/policy/table.ts";
import { DROP_NOT_READY, FORWARD, type Verdict } from "../../src/verdict.ts";
import type { L7RuleOf } from "../proxy/doors.ts";
import { EngineFeed } from "./engine_feed.ts";
import type { Policies, ProxyNeeds } from "./policies.ts";
import type { PolicyChange } from "./policy_trial.ts";
import type { ProxyKind } from "./proxies.ts";

/** Real policies. One per agent. */
export function makePolicies(): Policies {
  return new EnginePolicies();
}

class EnginePolicies implements Policies {
  readonly #engine = new PolicyEngine();
  readonly #feed = new EngineFeed(this.#engine);
  readonly #layers = new IpLayers();
  /** prefixes of the mesh that the engine was told to be outside */
  readonly #outside = new Map<string, IpPrefix>();
  /** what was learned for names of policies in force */
  readonly #names = new Map<string, readonly IpAddress[]>();
  #revision = 0;
  /** what proxies were told, as of a revision: they keep what they compile by the list's identity */
  readonly #l7Rules = new Map<string, readonly L7RuleOf[]>();
  #l7Revision = 0;

  get refused(): ReadonlyMap<string, string> {
    return this.#feed.refused;
  }

  get revision(): number {
    return this.#revision;
  }

  get isEnforced(): { ingress: boolean; egress: boolean } {
    return { ingress: this.#engine.isEnforced(0), egress: this.#engine.isEnforced(1) };
  }

  get needs(): ProxyNeeds {
    return this.#engine.proxiesNeeded;
  }

  rules(): readonly RuleRef[] {
    return this.#engine.rules();
  }

  selectsSelf(policy: string): boolean {
    return this.#engine.isSelecting(policy);
  }

  apply(change: MeshChange, mesh: MeshState): readonly DatapathCommand[] {
    this.#feed.apply(change, mesh);
    this.#layers.setOwn(ownPrefixes(mesh));
    const others = change.commands.filter((command) => !this.#takeIp(command));
    const policy = isWhole(mesh) ? this.#resolve(this.#engine.takeUpdate()) : [];
    const { removals, puts } = this.#layers.takeChanges();
    return [...removals, ...others, ...puts, ...policy];
  }

  full(mesh: MeshState): readonly DatapathCommand[] {
    const policy = isWhole(mesh) ? this.#resolve(this.#engine.takeFullUpdate()) : [];
    const others = mesh.allCommands().filter(({ op }) => op !== "ip");
    return [...others, ...this.#layers.all(), ...policy];
  }

  override(change: PolicyChange): readonly DatapathCommand[] {
    this.#feed.applyPolicies(change);
    return this.#changed();
  }

  tryChange(change: PolicyChange, mesh: MeshState): { readonly before: Judging; readonly after: Judging } {
    const after = new PolicyEngine();
    const feed = new EngineFeed(after);
    feed.fill(mesh);
    for (const prefix of this.#outside.values()) after.putOutside(prefix);
    for (const [name, addresses] of this.#names) after.putNames(name, addresses);
    feed.applyPolicies(change);
    after.takeUpdate();
    return { before: this.#engine, after };
  }

  fqdnPatterns(): readonly string[] {
    return this.#engine.fqdnPatterns();
  }

  putNames(names: ReadonlyMap<string, readonly string[]>): readonly DatapathCommand[] {
    for (const [name, texts] of names) {
      const addresses = texts.flatMap((address) => parseAddress(address) ?? []);
      if (addresses.length === 0) this.#names.delete(name);
      else this.#names.set(name, addresses);
      this.#engine.putNames(name, addresses);
    }
    return this.#changed();
  }

  identityOf(address: IpAddress): number {
    if (isLoopback(address)) return IDENTITY_HOST;
    return this.#layers.identityOf(address) ?? this.#engine.identityOfAddress(address);
  }

  judge(direction: Direction, identity: number, protocol: number, port: number): Verdict {
    return this.#revision === 0 ? DROP_NOT_READY : this.#engine.explain(direction, identity, protocol, port).verdict;
  }

  l7RulesFor(kind: ProxyKind, { direction, identity, protocol, to }: RedirectedFlow): readonly L7RuleOf[] {
    if (this.#l7Revision !== this.#revision) {
      this.#l7Rules.clear();
      this.#l7Revision = this.#revision;
    }
    const key = `${kind} ${direction} ${identity} ${protocol} ${to.port}`;
    let rules = this.#l7Rules.get(key);
    if (rules === undefined) {
      if (this.#l7Rules.size >= MAX_L7_LISTS) this.#l7Rules.clear();
      this.#l7Rules.set(key, rules = this.#resolveL7(kind, direction, identity, protocol, to.port));
    }
    return rules;
  }

  #resolveL7(
    kind: ProxyKind,
    direction: Direction,
    identity: number,
    protocol: number,
    port: number,
  ): readonly L7RuleOf[] {
    const rules = this.#engine.l7RulesFor(direction, identity, protocol, port);
    if (rules.length > 0) return rules.filter(({ l7 }) => l7.kind === kind);
    const { verdict, decidedBy } = this.#engine.explain(direction, identity, protocol, port);
    return verdict === FORWARD ? [{ rule: decidedBy ?? NO_RULE, l7: EVERYTHING[kind] }] : [];
  }

  /** One entry of the mesh's ipcache goes into its layer. @returns whether it was one */
  #takeIp(command: DatapathCommand): boolean {
    if (command.op === "ip") {
      this.#layers.putMesh(command);
      this.#noteOutside(command);
      return true;
    }
    if (command.op !== "removeIp") return false;
    this.#layers.removeMesh(command.prefix);
    this.#forgetOutside(command.prefix);
    return true;
  }

  /** A network behind a gateway is the outside: CIDR rules may mean parts of it. */
  #noteOutside({ prefix, identity }: PutIp): void {
    if (!isWorldIdentity(identity)) return this.#forgetOutside(prefix);
    const text = formatPrefix(prefix);
    if (this.#outside.has(text)) return;
    this.#outside.set(text, prefix);
    this.#engine.putOutside(prefix);
  }

  #forgetOutside(prefix: IpPrefix): void {
    if (this.#outside.delete(formatPrefix(prefix))) this.#engine.removeOutside(prefix);
  }

  /** What a change of policies or names alone means for the datapath. */
  #changed(): readonly DatapathCommand[] {
    if (this.#revision === 0) return []; // closed until the mesh state is whole
    const policy = this.#resolve(this.#engine.takeUpdate());
    const { removals, puts } = this.#layers.takeChanges();
    return [...removals, ...puts, ...policy];
  }

  /** A policy update, and its prefixes into their layer. */
  #resolve(update: PolicyUpdate | undefined): DatapathCommand[] {
    const { put, remove } = this.#engine.takePrefixes();
    for (const prefix of remove) this.#layers.removePolicy(prefix);
    for (const entry of put) this.#layers.putPolicy(entry);
    if (update === undefined) return [];
    this.#revision = update.revision;
    return [{ op: "policy", update }];
  }
}

/** Lists of rules that are kept at a time. */
const MAX_L7_LISTS = 1024;
/** Stands where nothing but the open direction lets a flow through. */
const NO_RULE: RuleRef = { index: -1, policy: "", path: "", verdict: "allow", tier: 255 };
const EVERYTHING = {
  http: { kind: "http", rules: [{ headers: [] }] },
  dns: { kind: "dns", rules: [{ pattern: "*" }] },
} as const;

/** A join leaves settings and our own record at revision 0: no policies, so no reason to open to anybody. */
function isWhole(mesh: MeshState): boolean {
  return mesh.position !== undefined && mesh.position.revision > 0;
}

function ownPrefixes({ self }: MeshState): IpPrefix[] {
  return (self?.addresses ?? []).map((text) => {
    const address = parseAddress(text)!;
    return { address, length: 8 * address.length };
  });
}

/** Programs of this machine, such as its own resolver. */
function isLoopback(address: IpAddress): boolean {
  return address.length === 4 ? address[0] === 127 : address.every((octet, i) => octet === (i === 15 ? 1 : 0));
}
