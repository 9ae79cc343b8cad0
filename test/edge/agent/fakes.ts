/** A whole agent in memory: fake datapath, fake kernel, fake clock, fake source. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "../../../edge/agent/agent.ts";
import { type DurableDir, nodeDurableDir } from "../../../edge/agent/durable_dir.ts";
import { makePolicies } from "../../../edge/agent/engine_policies.ts";
import type { DatapathLink, DatapathOptions, PingResult } from "../../../edge/agent/link.ts";
import { type LocalAddress, type LocalRoute, Network, type NetworkDoor } from "../../../edge/agent/network.ts";
import type { StateSink, StateSource } from "../../../edge/agent/source.ts";
import { MemberStore } from "../../../edge/agent/store.ts";
import type { Timers } from "../../../edge/agent/timers.ts";
import { EdgeError } from "../../../edge/errors.ts";
import type { EdgeLog } from "../../../edge/log.ts";
import type { DnsDoors } from "../../../edge/proxy/dns_doors.ts";
import type { ProxyDoors } from "../../../edge/proxy/doors.ts";
import { ALL_OFFLOADS } from "../../../src/offload/switches.ts";
import type { DatapathCommand, DatapathEvent, DatapathSnapshot, FlowRecord } from "../../../src/datapath/control.ts";
import { DatapathCounters } from "../../../src/datapath/counters.ts";
import { ciphers, decode, NOW_MS, RECORD_KEY } from "../../src/mesh/fixtures.ts";

/** Time and timers in the test's hands. */
export class FakeTime implements Timers {
  nowMs = 1000;
  #tasks: { atMs: number; everyMs: number | undefined; task: () => void }[] = [];

  after(ms: number, task: () => void): () => void {
    return this.#add(ms, undefined, task);
  }

  every(ms: number, task: () => void): () => void {
    return this.#add(ms, ms, task);
  }

  /** Lets time pass, running what falls due in order. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const next = this.#tasks.filter((task) => task.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.nowMs = next.atMs;
      if (next.everyMs === undefined) this.#tasks = this.#tasks.filter((task) => task !== next);
      else next.atMs += next.everyMs;
      next.task();
    }
    this.nowMs = endMs;
  }

  #add(ms: number, everyMs: number | undefined, task: () => void): () => void {
    const entry = { atMs: this.nowMs + ms, everyMs, task };
    this.#tasks.push(entry);
    return () => this.#tasks = this.#tasks.filter((other) => other !== entry);
  }
}

/** A datapath that notes what it is told. */
export class FakeLink implements DatapathLink {
  readonly ready: DatapathLink["ready"];
  readonly counters = new DatapathCounters(new ArrayBuffer(DatapathCounters.bytes));
  readonly told: (readonly DatapathCommand[])[] = [];
  readonly options: DatapathOptions;
  onEvent: (event: DatapathEvent) => void = () => {};
  snapshot: DatapathSnapshot = { peers: [], flows: 0, policyRevision: 0, ruleHits: new Float64Array(), drops: [] };
  flowRecords: readonly FlowRecord[] = [];
  pingResult: PingResult | undefined = { roundTripMs: 1.5 };
  isStopped = false;

  constructor(options: DatapathOptions, failure?: EdgeError) {
    this.options = options;
    this.ready = failure === undefined
      ? Promise.resolve({
        op: "ready",
        tun: options.tun,
        port: options.wireguardPort,
        offload: {
          tunTso: "on",
          tunUso: "on",
          tcpMerge: "on",
          udpMerge: "on",
          udpSegment: "on",
          udpGro: "on",
          receiveBufferBytes: 1,
          sendBufferBytes: 1,
          ipv6: true,
          aead: "libsodium",
          memberAeads: ["aegis128l", "aes256gcm"],
          memberAead: "aegis128l 6.8x, aes256gcm 2.9x chacha20poly1305",
        },
      })
      : Promise.reject(failure);
    this.ready.catch(() => {});
  }

  /** names of all commands so far */
  get ops(): string[] {
    return this.told.flat().map((command) => command.op);
  }

  send(commands: readonly DatapathCommand[]): void {
    if (commands.length > 0) this.told.push(commands);
  }

  query(): Promise<DatapathSnapshot> {
    return Promise.resolve(this.snapshot);
  }

  flows(): Promise<readonly FlowRecord[]> {
    return Promise.resolve(this.flowRecords);
  }

  settled(): Promise<void> {
    return Promise.resolve();
  }

  redirectedFlow(): undefined {
    return undefined;
  }

  ping(): Promise<PingResult | undefined> {
    return Promise.resolve(this.pingResult);
  }

  stop(): Promise<void> {
    this.isStopped = true;
    return Promise.resolve();
  }
}

/** A kernel with one other interface. */
export class FakeNetwork implements NetworkDoor {
  readonly tunIndex = 7;
  hasTun = true;
  mtuBytes = 0;
  localAddresses: LocalAddress[] = [{ interfaceIndex: 2, interfaceName: "eth0", prefix: "192.168.1.5/24" }];
  localRoutes: LocalRoute[] = [
    { interfaceIndex: 2, interfaceName: "eth0", prefix: "0.0.0.0/0" },
    { interfaceIndex: 2, interfaceName: "eth0", prefix: "192.168.1.0/24" },
  ];
  /** how many times something was changed */
  touches = 0;
  readonly guarded = new Set<string>();
  /** what the kernel answers to a guard */
  guardRefusal: Error | undefined;

  interfaceIndex(name: string): number {
    return this.hasTun && name === "edgemesh0" ? this.tunIndex : 0;
  }

  setUp(_: number, mtuBytes: number): void {
    this.mtuBytes = mtuBytes;
  }

  addresses(): readonly LocalAddress[] {
    return this.localAddresses;
  }

  routes(): readonly LocalRoute[] {
    return this.localRoutes;
  }

  addAddress(interfaceIndex: number, prefix: string): void {
    this.touches++;
    this.localAddresses.push({ interfaceIndex, interfaceName: "edgemesh0", prefix });
  }

  removeAddress(interfaceIndex: number, prefix: string): void {
    this.touches++;
    this.localAddresses = this.localAddresses.filter((a) => a.interfaceIndex !== interfaceIndex || a.prefix !== prefix);
  }

  guard(prefix: string): void {
    if (this.guardRefusal !== undefined) throw this.guardRefusal;
    this.guarded.add(prefix);
  }

  unguard(prefix: string): void {
    this.guarded.delete(prefix);
  }

  addRoute(interfaceIndex: number, prefix: string): void {
    this.touches++;
    this.localRoutes.push({ interfaceIndex, interfaceName: "edgemesh0", prefix });
  }

  removeRoute(interfaceIndex: number, prefix: string): void {
    this.touches++;
    this.localRoutes = this.localRoutes.filter((r) => r.interfaceIndex !== interfaceIndex || r.prefix !== prefix);
  }

  /** prefixes on the TUN device */
  on(list: readonly (LocalAddress | LocalRoute)[]): string[] {
    return list.filter(({ interfaceIndex }) => interfaceIndex === this.tunIndex).map(({ prefix }) => prefix).sort();
  }
}

export class FakeSource implements StateSource {
  sink: StateSink | undefined;
  isStopped = false;
  announced: readonly string[] | undefined;

  announce(aeads: readonly string[]): void {
    this.announced = aeads;
  }

  start(sink: StateSink): void {
    this.sink = sink;
  }

  stop(): Promise<void> {
    this.isStopped = true;
    return Promise.resolve();
  }
}

export interface FakeAgent {
  readonly agent: Agent;
  readonly time: FakeTime;
  readonly network: FakeNetwork;
  readonly source: FakeSource;
  readonly store: MemberStore;
  readonly notified: string[];
  readonly links: FakeLink[];
  /** the datapath that runs */
  readonly link: FakeLink;
  /** the next starts of a datapath fail with these */
  readonly failures: EdgeError[];
  /** proxies that were started, with their addresses, and what they were given */
  readonly started: string[];
  readonly proxyDoors: ProxyDoors | undefined;
  readonly dnsDoors: DnsDoors | undefined;
  /** Lets everything that waits for nothing but promises go on. */
  settle(): Promise<void>;
  unixMs: number;
  clockBehindMs: number;
}

/** An agent that is member 2 of the mesh of `test/src/mesh/fixtures.ts`. */
export function makeAgent(
  options: { readonly dir?: DurableDir; readonly isFromFile?: boolean; readonly watchdogMs?: number } = {},
): FakeAgent {
  const time = new FakeTime();
  const network = new FakeNetwork();
  const source = new FakeSource();
  const store = new MemberStore(options.dir ?? nodeDurableDir(mkdtempSync(join(tmpdir(), "edgemesh-agent-"))));
  const links: FakeLink[] = [];
  const failures: EdgeError[] = [];
  const notified: string[] = [];
  const fake = {
    unixMs: NOW_MS,
    clockBehindMs: 0,
    started: [] as string[],
    proxyDoors: undefined as ProxyDoors | undefined,
    dnsDoors: undefined as DnsDoors | undefined,
    settle: async () => {
      for (let i = 0; i < 50; i++) await Promise.resolve();
    },
  };
  const startProxy = (kind: string, addresses: readonly string[]) => {
    fake.started.push([kind, ...addresses].join(" "));
    return Promise.resolve({ port: 40_000 + fake.started.length, stop: () => Promise.resolve() });
  };
  const agent = new Agent({
    version: "0.0.0-test",
    isFromFile: options.isFromFile ?? false,
    policyConfirmMs: 30_000,
    datapath: {
      tun: "edgemesh0",
      mtu: 1355,
      wireguardPort: 51871,
      privateKey: new Uint8Array(32).fill(9),
      aead: "auto",
      memberAead: "auto",
      offload: ALL_OFFLOADS,
    },
    mesh: {
      selfName: "edge1/m2",
      publicKey: new Uint8Array(32).fill(2),
      trust: { kind: "signed", keys: [RECORD_KEY], ciphers, decode },
      peerOptions: (member) => ({ keepaliveSeconds: member.isHub ? 25 : 0 }),
    },
  }, {
    startDatapath: (given) => {
      const link = new FakeLink(given, failures.shift());
      link.counters.heartbeatMs = time.nowMs;
      links.push(link);
      return link;
    },
    network: new Network(network),
    policies: makePolicies(),
    proxies: {
      http: (addresses, doors) => {
        fake.proxyDoors = doors;
        return startProxy("http", addresses);
      },
      dns: (addresses, doors) => {
        fake.dnsDoors = doors;
        return startProxy("dns", addresses);
      },
    },
    store,
    source,
    clock: {
      now: () => fake.unixMs,
      learn: (unixMs) => fake.unixMs = Math.max(fake.unixMs, unixMs),
      behindMs: () => fake.clockBehindMs,
    },
    unixMs: () => fake.unixMs,
    nowMs: () => time.nowMs,
    timers: time,
    log: silentLog(),
    notify: (line) => notified.push(line),
    watchdogMs: options.watchdogMs,
  });
  return Object.defineProperties(
    fake,
    Object.getOwnPropertyDescriptors({
      agent,
      time,
      network,
      source,
      store,
      links,
      failures,
      notified,
      get link(): FakeLink {
        return links.at(-1)!;
      },
    }),
  ) as unknown as FakeAgent;
}

function silentLog(): EdgeLog {
  const nothing = () => {};
  return { debug: nothing, info: nothing, warn: nothing, error: nothing, setLevel: nothing, recent: () => [] };
}
