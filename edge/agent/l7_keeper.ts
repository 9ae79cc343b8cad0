/**
 * What L7 and FQDN policies need beside the datapath: the proxies, started and stopped as rules in force ask for them, and the names
 * that the DNS proxy learns. Wires them to policies, datapath and disk; holds no rules of its own.
 */
import type { DatapathCommand, FlowRecord, SetProxy } from "../../src/datapath/control.ts";
import { PROXY_ROUTES, proxyClientAddress, proxyServerAddress } from "../../src/datapath/proxy_addresses.ts";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { parseAddress } from "../../src/ip/address.ts";
import { EGRESS } from "../../src/policy/model.ts";
import type { FqdnSettings } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";
import { DROP_POLICY_DENIED } from "../../src/verdict.ts";
import type { DnsDoors, OwnFlow, ResolverDoors } from "../proxy/dns_doors.ts";
import type { AddressPort } from "../proxy/dns_upstream.ts";
import type { L7Record, ProxyDoors } from "../proxy/doors.ts";
import { NameKeeper } from "./name_keeper.ts";
import type { Policies } from "./policies.ts";
import { Proxies, type ProxyKind, type RunningProxy } from "./proxies.ts";
import type { Timers } from "./timers.ts";

/** The code of the proxies, loaded when it is needed. */
export interface ProxyStarters {
  readonly http: (addresses: readonly string[], doors: ProxyDoors) => Promise<RunningProxy>;
  readonly dns: (addresses: readonly string[], doors: DnsDoors) => Promise<RunningProxy>;
  /** This machine's own resolver; absent: none is wanted. */
  readonly resolver?: (doors: ResolverDoors) => Promise<{ stop(): Promise<void> }>;
}

export interface L7KeeperDoors {
  readonly policies: Policies;
  readonly starters: ProxyStarters;
  /** the running datapath; undefined while there is none */
  readonly link: () => L7Link | undefined;
  readonly store: { loadNames(): unknown; saveNames(snapshot: unknown): void };
  readonly record: (record: L7Record) => void;
  readonly fault: (kind: ProxyKind, reason: string | undefined) => void;
  readonly nowMs: () => number;
  readonly unixMs: () => number;
  readonly timers: Timers;
  readonly log: Log;
}

/** What is needed of the datapath. */
export interface L7Link {
  send(commands: readonly DatapathCommand[]): void;
  /** Resolves when all that was sent before is applied. */
  settled(): Promise<void>;
  redirectedFlow(handle: number): RedirectedFlow | undefined;
  flows(limit: number): Promise<readonly FlowRecord[]>;
}

/** Flows that are looked at for addresses in use: as many as the datapath can hold. */
const ALL_FLOWS = 65_536;

const NOTHING = { http: false, dns: false };

/** One per agent. */
export class L7Keeper {
  readonly names: NameKeeper;
  readonly #doors: L7KeeperDoors;
  readonly #proxies: Proxies;
  #fqdn: FqdnSettings | undefined;
  /** this member's own */
  #addresses: readonly string[] = [];
  #resolver: { stop(): Promise<void> } | undefined;

  constructor(doors: L7KeeperDoors) {
    this.#doors = doors;
    const { starters, store } = doors;
    this.names = new NameKeeper({
      load: () => store.loadNames(),
      save: (snapshot) => store.saveNames(snapshot),
      publish: (names) => {
        const commands = doors.policies.putNames(names);
        doors.link()?.send(commands);
      },
      addressesInUse: async () => new Set((await doors.link()?.flows(ALL_FLOWS) ?? []).map(otherSideOf)),
      nowMs: doors.nowMs,
      unixMs: doors.unixMs,
      timers: doors.timers,
    });
    this.#proxies = new Proxies({
      start: {
        http: (addresses) => starters.http(addresses, this.#proxyDoors("http")),
        dns: (addresses) => starters.dns(addresses, this.#dnsDoors()),
      },
      tell: (command) => doors.link()?.send([command]),
      fault: doors.fault,
    });
  }

  /** Whether a proxy runs or should: its addresses are to be routed into the TUN device then. */
  get isNeeded(): boolean {
    const { http, dns } = this.#doors.policies.needs;
    return http || dns;
  }

  /** Prefixes that belong into the TUN device for the proxies. @param addresses this member's own */
  routes(addresses: readonly string[]): readonly string[] {
    if (!this.isNeeded) return [];
    const hasIpv6 = addresses.some((address) => address.includes(":"));
    return PROXY_ROUTES.filter((route) => hasIpv6 || !route.includes(":"));
  }

  /** Where the proxies listen, for a datapath that starts anew. */
  get commands(): readonly SetProxy[] {
    const { command } = this.#proxies;
    return command.http + command.dns === 0 ? [] : [command];
  }

  /** Brings names up to what policies in force mention. After every change of policies or settings. */
  review(fqdn: FqdnSettings | undefined): void {
    this.#fqdn = fqdn;
    this.names.setLimits(fqdn);
    this.names.setPatterns(this.#doors.policies.fqdnPatterns());
  }

  /** Starts and stops proxies. @param addresses this member's, once they are on the device; empty before */
  async align(addresses: readonly string[]): Promise<void> {
    this.#addresses = addresses;
    await this.#proxies.align(addresses.length === 0 ? NOTHING : this.#doors.policies.needs, addresses);
  }

  /** Starts the local resolver, where one is wanted. @throws EdgeError when it cannot listen */
  async start(): Promise<void> {
    this.#resolver = await this.#doors.starters.resolver?.({
      ...this.#dnsDoors(),
      judge: (to, protocol) => this.#judgeOwn(to, protocol),
    });
  }

  async stop(): Promise<void> {
    this.names.stop();
    await Promise.all([this.#resolver?.stop(), this.#proxies.stop()]);
  }

  #proxyDoors(kind: ProxyKind): ProxyDoors {
    const { policies, link, record, log } = this.#doors;
    return {
      flowOf: (handle) => link()?.redirectedFlow(handle),
      l7RulesFor: (flow) => policies.l7RulesFor(kind, flow),
      clientAddress: proxyClientAddress,
      serverAddress: proxyServerAddress,
      record,
      log,
    };
  }

  #dnsDoors(): DnsDoors {
    const { link, unixMs, timers } = this.#doors;
    return {
      ...this.#proxyDoors("dns"),
      patterns: () => this.names.patterns,
      learn: async (name, addresses, ttlSeconds) => {
        this.names.learn(name, addresses, ttlSeconds);
        await link()?.settled();
      },
      rejectCode: () => this.#fqdn?.rejectCode ?? "refused",
      unixMs,
      timers,
    };
  }

  /** A flow that no packet made: from this member to a name server. */
  #judgeOwn({ address, port }: AddressPort, protocol: 6 | 17): OwnFlow {
    const { policies } = this.#doors;
    const parsed = parseAddress(address);
    const from = this.#addresses.find((own) => own.includes(":") === address.includes(":")) ?? "";
    const identity = parsed === undefined ? 0 : policies.identityOf(parsed);
    const flow: RedirectedFlow = {
      from: { address: from, port: 0 },
      to: { address, port },
      protocol,
      direction: EGRESS,
      identity,
    };
    const verdict = parsed === undefined ? DROP_POLICY_DENIED : policies.judge(EGRESS, identity, protocol, port);
    return { verdict, flow };
  }
}

function otherSideOf({ direction, source, destination }: FlowRecord): string {
  return direction === "egress" ? destination : source;
}
