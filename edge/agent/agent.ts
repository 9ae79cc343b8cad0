/**
 * A running member. Wires the pieces together and holds no rules of its own:
 *
 *     source (hub stream | mesh file) -> MeshState -> commands -> datapath Worker
 *                                          |   |-> Policies -> policy update -> datapath Worker
 *                                          |   \-> L7Keeper -> proxies and learned names, while policies need them
 *                                          |-> Network (addresses, MTU, routes of the TUN)
 *                                          \-> MemberStore (what a boot without the hub needs)
 *
 * Order at start: reserve handshake stamps, start the datapath (closed: it answers NOT_READY until a policy update), apply the
 * state from disk, marked stale, then listen to the source. The datapath is filled again from `MeshState` whenever it restarts.
 */
import type { OffloadFacts } from "../../src/datapath/control.ts";
import type { EntryValue, StateFrame } from "../../src/mesh/entries.ts";
import { parseAddress } from "../../src/ip/address.ts";
import { type MeshChange, MeshState, type MeshStateOptions, type Position } from "../../src/mesh/state.ts";
import type { AeadName, Log, OffloadSwitches } from "../../src/ports.ts";
import { EGRESS, PROTOCOL_TCP } from "../../src/policy/model.ts";
import { FORWARD } from "../../src/verdict.ts";
import { EdgeError, messageOf } from "../errors.ts";
import type { TrustedClock } from "../sync/clock.ts";
import type { DryRunResult } from "../sync/dry_run.ts";
import { DatapathKeeper } from "./datapath_keeper.ts";
import { FlowLog } from "./flow_log.ts";
import { Health, type HealthCode } from "./health.ts";
import { reviewHealth } from "./health_review.ts";
import { L7Keeper, type ProxyStarters } from "./l7_keeper.ts";
import type { DatapathLink, DatapathOptions } from "./link.ts";
import type { Network } from "./network.ts";
import type { Policies } from "./policies.ts";
import { runsThroughMesh } from "./policy_trial.ts";
import type { ProxyKind } from "./proxies.ts";
import type { SourceStatus, StateSource } from "./source.ts";
import { StampReservation } from "./stamps.ts";
import type { MemberStore } from "./store.ts";
import type { Timers } from "./timers.ts";
import { TrialKeeper } from "./trial_keeper.ts";

/** Who the member is and how it runs. */
export interface AgentOptions {
  readonly version: string;
  readonly mesh: MeshStateOptions;
  /** the mesh comes from a file: there is no hub to be away, and nothing to save */
  readonly isFromFile: boolean;
  /** how long the hub may be silent after a change of policies before it is rolled back; 0: for ever */
  readonly policyConfirmMs: number;
  readonly datapath: Omit<DatapathOptions, "stampFloor">;
}

/** What the agent reaches the world through. */
export interface AgentDoors {
  readonly startDatapath: (options: DatapathOptions) => DatapathLink;
  readonly network: Network;
  readonly policies: Policies;
  readonly proxies: ProxyStarters;
  readonly store: MemberStore;
  readonly source: StateSource;
  readonly clock: Pick<TrustedClock, "now" | "learn" | "behindMs">;
  /** the wall clock, Unix milliseconds */
  readonly unixMs: () => number;
  /** monotonic milliseconds, the clock of the datapath's heartbeat */
  readonly nowMs: () => number;
  readonly timers: Timers;
  readonly log: Log;
  /** one line for the service manager, e.g. "READY=1" */
  readonly notify: (line: string) => void;
  /** told when the stream from the hub has come up */
  readonly onSynced?: () => void;
  /** how often the service manager wants a sign of life; undefined: not at all */
  readonly watchdogMs: number | undefined;
}

/** What the datapath said when it started. */
export interface DatapathFacts {
  readonly tun: string;
  readonly port: number;
  readonly offload: OffloadFacts;
}

/** How the source stands. */
export interface HubStanding extends SourceStatus {
  readonly sinceUnixMs: number;
}

/** What the tunnel's outer header is longer over an IPv6 underlay. */
const IPV6_ENVELOPE_EXTRA_BYTES = 20;
/**
 * AEGIS-128L's tag is 16 octets longer than WireGuard's, and over IPv6 the tunnel's overhead leaves 15, WireGuard's padding, which
 * such sessions go without. All members lose this octet that announce it: a peer may roam to IPv6 at any time.
 */
const AEGIS_EXTRA_BYTES = 1;
/** the least that IPv6 works over (RFC 8200 §5) */
const IPV6_MIN_MTU_BYTES = 1280;
const TICK_MS = 1000;
const RECONCILE_MS = 60_000;
const EXPIRE_MS = 3_600_000;
/** The datapath goes round its loop at least once a second: silent for this long, it hangs. */
const STUCK_AFTER_MS = 15_000;
const STARTUP_EXTENSION = "EXTEND_TIMEOUT_USEC=30000000";

/** One member. `start` once, `stop` once. */
export class Agent {
  readonly mesh: MeshState;
  readonly health: Health;
  /** what proxies judged and the datapath dropped, for people */
  readonly flows = new FlowLog();
  readonly l7: L7Keeper;
  readonly options: AgentOptions;
  readonly doors: AgentDoors;
  readonly startedUnixMs: number;
  readonly #keeper: DatapathKeeper;
  readonly #stamps: StampReservation;
  readonly #trial: TrialKeeper;
  #facts: DatapathFacts | undefined;
  /** as the settings have it now */
  #offload: OffloadSwitches;
  #hub: HubStanding;
  /** the hub's end of the newest connection to it */
  #hubEnd: SourceStatus["remote"];
  #syncedUnixMs: number | undefined;
  #isNetworkDone = false;
  #isReadyTold = false;
  #hasUnsaved = false;
  #cancelSave: (() => void) | undefined;
  #cancels: (() => void)[] = [];
  #toldAliveMs = 0;

  constructor(options: AgentOptions, doors: AgentDoors) {
    this.options = options;
    this.doors = doors;
    this.mesh = new MeshState(options.mesh);
    this.health = new Health(doors.nowMs, doors.unixMs);
    this.startedUnixMs = doors.unixMs();
    this.#hub = { state: "connecting", sinceUnixMs: this.startedUnixMs };
    const saved = doors.store.loadClock();
    this.#stamps = new StampReservation(saved?.stampFloorUnixMs ?? 0, (stampFloorUnixMs) => {
      doors.store.saveClock({ stampFloorUnixMs, trustedUnixMs: Math.floor(doors.clock.now()) });
    });
    this.#trial = new TrialKeeper(options.isFromFile ? 0 : options.policyConfirmMs, {
      mesh: this.mesh,
      store: doors.store,
      override: (change) => {
        this.link?.send(doors.policies.override(change));
        this.#reviewL7();
      },
      mayBeCut: () => this.#mayPoliciesCutHub(),
      probe: () => doors.source.probe?.(),
      nowMs: doors.nowMs,
      log: doors.log,
    });
    this.l7 = new L7Keeper({
      policies: doors.policies,
      starters: doors.proxies,
      link: () => this.link,
      store: doors.store,
      record: (record) => this.flows.addL7(record),
      fault: (kind, reason) => this.#noteProxy(kind, reason),
      nowMs: doors.nowMs,
      unixMs: doors.unixMs,
      timers: doors.timers,
      log: doors.log,
    });
    this.#offload = options.datapath.offload;
    this.#keeper = new DatapathKeeper({
      start: () =>
        doors.startDatapath({
          ...options.datapath,
          offload: this.#offload,
          stampFloor: this.#stamps.begin(doors.unixMs()),
        }),
      timers: doors.timers,
      log: doors.log,
      onUp: (link, facts) => this.#fillDatapath(link, facts),
      onDown: (reason) => this.#noteDatapathDown(reason),
      onOffload: (offload) => this.#noteOffload(offload),
    });
  }

  /** The running datapath; undefined while there is none. */
  get link(): DatapathLink | undefined {
    return this.#keeper.link;
  }

  get datapathFacts(): DatapathFacts | undefined {
    return this.#facts;
  }

  get datapathStarts(): number {
    return this.#keeper.starts;
  }

  get hub(): HubStanding {
    return this.#hub;
  }

  /** When the state was last known to be the newest; undefined: never. */
  get syncedUnixMs(): number | undefined {
    return this.#hub.state === "synced" ? this.doors.unixMs() : this.#syncedUnixMs;
  }

  /** What is in force is not known to be the newest. */
  get isStale(): boolean {
    return this.#hub.state !== "synced";
  }

  /** The TUN device has its addresses and routes. */
  get isNetworkDone(): boolean {
    return this.#isNetworkDone;
  }

  /** The datapath's loop goes round. */
  get isDatapathAlive(): boolean {
    const link = this.link;
    return link !== undefined && this.doors.nowMs() - link.counters.heartbeatMs < STUCK_AFTER_MS;
  }

  /** Largest packet inside: what fits whole into every way that its message may take. */
  get mtuBytes(): number {
    const self = this.mesh.self;
    const overheadBytes = self?.underlay.includes(":") ? IPV6_ENVELOPE_EXTRA_BYTES : 0;
    const aegisBytes = self?.aeads.includes("aegis128l") ? AEGIS_EXTRA_BYTES : 0;
    return this.options.datapath.mtu - overheadBytes - aegisBytes;
  }

  /** Starts everything. @throws EdgeError when the datapath cannot start (no TUN device, no privilege) */
  async start(): Promise<void> {
    const { store, source, log } = this.doors;
    this.#loadState();
    await this.#keeper.start();
    await this.l7.start();
    if (this.options.datapath.keyLogFile !== undefined) {
      this.health.raise("key-log-on", `WireGuard keys are written to "${this.options.datapath.keyLogFile}"`);
    }
    if (store.notes.length > 0) this.health.raise("state-recovered", store.notes.join("; "));
    for (const note of store.notes) log.warn("state-recovered", { note });
    source.start({
      apply: (frame) => this.#apply(frame),
      status: (status) => this.#noteSource(status),
      heard: () => this.#trial.heard(),
      evaluate: (puts, deletes) => this.evaluate(puts, deletes),
      resume: () => this.#resume(),
    });
    const { timers } = this.doors;
    this.#cancels = [
      timers.every(TICK_MS, () => this.#tick()),
      timers.every(RECONCILE_MS, () => this.#alignNetwork()),
      timers.every(EXPIRE_MS, () => this.#publish(this.mesh.expire(this.doors.clock.now()))),
    ];
    this.#tick();
  }

  /** Ends everything: TUN device and sockets are gone, state is saved. */
  async stop(): Promise<void> {
    this.doors.notify("STOPPING=1");
    for (const cancel of this.#cancels) cancel();
    this.#cancelSave?.();
    await Promise.all([this.doors.source.stop(), this.l7.stop()]);
    await this.#keeper.stop();
    this.doors.network.release();
    if (this.#hasUnsaved) this.#saveState();
    this.#stamps.end();
  }

  #loadState(): void {
    if (this.options.isFromFile) return;
    const saved = this.doors.store.loadState();
    if (saved === undefined) return;
    const { epoch, revision, entries } = saved;
    this.#syncedUnixMs = saved.syncedUnixMs;
    this.#publish(this.mesh.apply({ t: "snapshot", epoch, revision, entries }, this.doors.clock.now()));
    this.#trial.restore();
    this.doors.log.info("state-loaded", { revision, members: this.mesh.members.size });
  }

  /** A join leaves revision 0: settings and our own record, no whole state to go on from. */
  #resume(): Position | undefined {
    const position = this.mesh.position;
    return position !== undefined && position.revision > 0 ? position : undefined;
  }

  #apply(frame: StateFrame): void {
    const change = this.mesh.apply(frame, this.doors.clock.now());
    if (change.frameRefused !== undefined) {
      this.doors.log.error("frame-refused", { reason: change.frameRefused });
      return;
    }
    for (const [key, reason] of change.refused) this.doors.log.warn("entry-refused", { key, reason });
    this.#publish(change);
    this.#trial.applied(change, this.#mayCutHub);
    this.#scheduleSave();
  }

  /** Which recent flows a change would newly drop. @see evaluate.ts */
  async evaluate(
    puts: readonly (readonly [key: string, value: EntryValue])[],
    deletes: readonly string[],
  ): Promise<DryRunResult> {
    const { evaluateChange } = await import("./evaluate.ts");
    const flows = (limit: number) => this.link?.flows(limit);
    return evaluateChange({ mesh: this.mesh, policies: this.doors.policies, flows }, puts, deletes);
  }

  /** The stream that changes come by runs through the policies that they change. */
  get #mayCutHub(): boolean {
    return runsThroughMesh(this.#hub.localAddress, this.mesh.self?.addresses ?? []);
  }

  /** Whether the policies in force keep the connection to the hub from passing as it is; so too while its other end is not known. */
  #mayPoliciesCutHub(): boolean {
    const { policies } = this.doors;
    const address = this.#hubEnd && parseAddress(this.#hubEnd.address);
    if (address === undefined) return true;
    return policies.judge(EGRESS, policies.identityOf(address), PROTOCOL_TCP, this.#hubEnd!.port) !== FORWARD;
  }

  /** Brings a change of the mesh state to the datapath and the machine. */
  #publish(change: MeshChange): void {
    const commands = this.doors.policies.apply(change, this.mesh);
    this.link?.send(commands);
    if (change.commands.length > 0 || change.isMembersChanged) this.#alignNetwork();
    this.#reviewL7();
    this.#reviewHealth();
  }

  /** Names, proxies and their routes, as the policies in force want them. */
  #reviewL7(): void {
    if (this.doors.policies.revision > 0) this.l7.review(this.mesh.settings?.policy.fqdn);
    if (this.l7.isNeeded) this.#alignNetwork();
    this.#alignProxies();
  }

  /** Proxies listen on the member's addresses: not before the device has them. */
  #alignProxies(): void {
    void this.l7.align(this.#isNetworkDone ? this.mesh.self?.addresses ?? [] : []);
  }

  #noteProxy(kind: ProxyKind, reason: string | undefined): void {
    const code = kind === "http" ? "http-proxy-down" : "dns-proxy-down";
    const what = kind === "http" ? "HTTP" : "DNS";
    if (reason === undefined) this.health.clear(code);
    else if (this.health.raise(code, `The ${what} proxy does not run: ${reason}`)) {
      this.doors.log.error(code, { reason });
    }
  }

  #fillDatapath(link: DatapathLink, facts: DatapathFacts): void {
    this.#facts = facts;
    this.doors.source.announce(facts.offload.memberAeads.filter((aead) => this.#hasRoomFor(aead)));
    this.health.clear("datapath-down");
    this.doors.log.info("datapath-up", { tun: facts.tun, port: facts.port, ...facts.offload });
    link.send([...this.doors.policies.full(this.mesh), ...this.l7.commands]);
    this.#alignNetwork();
    this.#alignProxies();
  }

  /** Not where the last octet for IPv6 inside would go. */
  #hasRoomFor(aead: AeadName): boolean {
    const { mtu } = this.options.datapath;
    return aead !== "aegis128l" ||
      (mtu !== IPV6_MIN_MTU_BYTES && mtu !== IPV6_MIN_MTU_BYTES + IPV6_ENVELOPE_EXTRA_BYTES);
  }

  /**
   * Switches offloads of the running datapath, as far as they can be while its device is open (status says which), and of those to
   * come. What an error has switched off is tried again.
   */
  switchOffload(switches: OffloadSwitches): void {
    this.#offload = switches;
    this.link?.send([{ op: "offload", switches }]);
  }

  #noteOffload(offload: OffloadFacts): void {
    const before = this.#facts;
    if (before === undefined) return;
    const changed = Object.entries(offload).filter(([name, value]) =>
      typeof value === "string" && value !== before.offload[name as keyof OffloadFacts]
    );
    this.#facts = { ...before, offload };
    if (changed.length > 0) this.doors.log.warn("offload-changed", Object.fromEntries(changed));
  }

  #noteDatapathDown(reason: string): void {
    this.#isNetworkDone = false;
    this.doors.log.error("datapath-down", { reason });
    this.health.raise("datapath-down", `The datapath is not running: ${reason}`);
  }

  #alignNetwork(): void {
    const self = this.mesh.self;
    const facts = this.#facts;
    if (this.link === undefined || facts === undefined || self === undefined) return;
    try {
      const changes = this.doors.network.apply({
        tun: facts.tun,
        mtuBytes: this.mtuBytes,
        addresses: self.addresses.map((address) => `${address}/${address.includes(":") ? 128 : 32}`),
        routes: [...this.mesh.routes(), ...this.l7.routes(self.addresses)],
      });
      if (changes > 0) this.doors.log.info("network-set", { tun: facts.tun, changes });
      this.#isNetworkDone = true;
      this.health.clear("cidr-conflict");
      this.health.clear("network-failed");
      this.#tellReady();
    } catch (error) {
      this.#noteNetworkFault(error);
    }
  }

  #noteNetworkFault(error: unknown): void {
    const code: HealthCode = error instanceof EdgeError && error.code === "EDGE_CIDR_CONFLICT"
      ? "cidr-conflict"
      : "network-failed";
    const other: HealthCode = code === "cidr-conflict" ? "network-failed" : "cidr-conflict";
    this.health.clear(other);
    if (this.health.raise(code, messageOf(error))) this.doors.log.error(code, { reason: messageOf(error) });
  }

  #tellReady(): void {
    if (this.#isReadyTold) return;
    this.#isReadyTold = true;
    this.doors.notify("READY=1");
    const self = this.mesh.self!;
    this.doors.log.info("member-ready", {
      name: self.name,
      cluster: self.cluster.name,
      addresses: self.addresses.join(","),
    });
  }

  #noteSource(status: SourceStatus): void {
    const before = this.#hub.state;
    if (before === "synced" && status.state !== "synced") this.#trial.lost();
    if (status.hubUnixMs !== undefined) this.doors.clock.learn(status.hubUnixMs);
    if (before === "synced") this.#syncedUnixMs = this.doors.unixMs();
    const sinceUnixMs = before === status.state ? this.#hub.sinceUnixMs : this.doors.unixMs();
    this.#hub = { ...status, sinceUnixMs };
    this.#hubEnd = status.remote ?? this.#hubEnd;
    if (before !== "synced" && status.state === "synced") {
      this.#scheduleSave();
      this.doors.onSynced?.();
    }
    this.#reviewHealth();
  }

  #tick(): void {
    const { doors } = this;
    const nowMs = doors.nowMs();
    const counters = this.link?.counters;
    const handshakes = counters === undefined ? 0 : counters.read("handshakesSent");
    this.#stamps.note(doors.unixMs(), handshakes);
    this.#trial.tick();
    this.#alignProxies();
    this.#reviewHealth();
    if (!this.#isReadyTold) doors.notify(STARTUP_EXTENSION);
    // a datapath that is being restarted is not a reason to be killed; one that hangs is
    const isAlive = this.link === undefined || this.isDatapathAlive;
    if (doors.watchdogMs === undefined || !isAlive || nowMs - this.#toldAliveMs < doors.watchdogMs / 3) return;
    this.#toldAliveMs = nowMs;
    doors.notify("WATCHDOG=1");
  }

  #reviewHealth(): void {
    reviewHealth(this, this.#trial.healthText);
  }

  #scheduleSave(): void {
    if (this.options.isFromFile) return;
    this.#hasUnsaved = true;
    this.#cancelSave ??= this.doors.timers.after(this.doors.store.nextSaveDelayMs(this.doors.nowMs()), () => {
      this.#cancelSave = undefined;
      this.#saveState();
    });
  }

  #saveState(): void {
    const position = this.mesh.position;
    if (position === undefined) return;
    this.#hasUnsaved = false;
    const syncedUnixMs = Math.floor(this.syncedUnixMs ?? this.doors.unixMs());
    this.doors.store.saveState({ ...position, entries: this.mesh.entries(), syncedUnixMs }, this.doors.nowMs());
  }
}
