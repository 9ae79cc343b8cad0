/**
 * The newest flows, for people: requests that a proxy judged, packets that the datapath dropped, flows that it let through.
 * Rings of fixed length with texts of bounded length, so that a flood costs nothing but itself; nothing is allocated before the
 * first entry. What the datapath has is taken over when somebody asks. `GET /v1/flows` and `edgemesh observe` read it.
 */
import type { DropRecord, FlowRecord } from "../../src/datapath/control.ts";
import { FORWARD, nameOfVerdict, REASONS, REDIRECT, type Verdict } from "../../src/verdict.ts";
import type { DnsFacts, HttpFacts, L7Record } from "../proxy/doors.ts";

/** Requests and drops that are kept. */
const CAPACITY = 1024;
/** Flows let through that are kept, apart: they would drive out what is rarer. */
export const FLOW_CAPACITY = 512;
/** Characters of a text from the network. */
const MAX_TEXT = 256;
/** Addresses of one DNS answer. */
const MAX_ADDRESSES = 16;

/** Hubble's words. */
export type FlowVerdict = "FORWARDED" | "DROPPED" | "REDIRECTED" | "AUDIT";

/** One entry. */
export interface FlowEntry {
  /** counts up from 1, without holes */
  readonly number: number;
  readonly unixMs: number;
  readonly type: "L3_L4" | "L7";
  readonly verdict: FlowVerdict;
  /** seen from this member */
  readonly direction: "ingress" | "egress";
  readonly source: FlowPlace | undefined;
  readonly destination: FlowPlace | undefined;
  /** IP protocol number, 0 when no packet could be read */
  readonly protocol: number;
  /** of the other side, 0 = unknown */
  readonly identity: number;
  /** name of the drop reason */
  readonly drop?: string;
  /** why, for people */
  readonly reason?: string;
  readonly rule?: { readonly policy: string; readonly path: string };
  readonly http?: HttpFacts;
  readonly dns?: DnsFacts;
}

export interface FlowPlace {
  readonly address: string;
  /** for ICMP the type, at the destination */
  readonly port: number;
}

/** What was asked of the ring. */
export interface FlowSlice {
  /** number of the newest entry, 0 while there is none */
  readonly newest: number;
  /** entries that came after what was asked for, and are gone already */
  readonly lost: number;
  /** oldest first */
  readonly entries: readonly FlowEntry[];
}

export class FlowLog {
  readonly #judged = new Ring(CAPACITY);
  readonly #flows = new Ring(FLOW_CAPACITY);
  #newest = 0;
  #live: ReadonlySet<string> = new Set();
  #drops: readonly DropRecord[] = [];

  addL7(record: L7Record): void {
    const { flow, rule, reason, http, dns } = record;
    this.#add(this.#judged, {
      unixMs: record.unixMs,
      type: "L7",
      verdict: wordOf(record.verdict),
      direction: flow.direction === 0 ? "ingress" : "egress",
      source: flow.from,
      destination: flow.to,
      protocol: flow.protocol,
      identity: flow.identity,
      ...(record.verdict === FORWARD ? {} : { drop: nameOfVerdict(record.verdict) }),
      ...(reason === undefined ? {} : { reason: cut(reason) }),
      ...(rule === undefined ? {} : { rule: { policy: rule.policy, path: rule.path } }),
      ...(http === undefined ? {} : { http: cutHttp(http) }),
      ...(dns === undefined ? {} : { dns: cutDns(dns) }),
    });
  }

  /** Takes what is new in the datapath's ring of drops. @param ring all of it, oldest first */
  addDrops(ring: readonly DropRecord[]): void {
    for (const drop of newerOf(this.#drops, ring)) this.#add(this.#judged, entryOfDrop(drop));
    this.#drops = ring;
  }

  /** Takes those that were not there the last time. @param flows all that are alive, or the newest of them */
  addFlows(flows: readonly FlowRecord[]): void {
    const live = new Set<string>();
    for (const flow of flows) {
      const key =
        `${flow.direction} ${flow.protocol} ${flow.source} ${flow.sourcePort} ${flow.destination} ${flow.destinationPort}`;
      live.add(key);
      if (!this.#live.has(key)) this.#add(this.#flows, entryOfFlow(flow));
    }
    this.#live = live;
  }

  /** @param since number of the last entry known; a number from before a restart counts as 0 */
  list(since = 0): FlowSlice {
    const after = since > this.#newest ? 0 : since;
    const entries = [...this.#judged.after(after), ...this.#flows.after(after)].sort((a, b) => a.number - b.number);
    return { newest: this.#newest, lost: after === 0 ? 0 : this.#newest - after - entries.length, entries };
  }

  #add(ring: Ring, entry: Omit<FlowEntry, "number">): void {
    ring.push({ number: ++this.#newest, ...entry });
  }
}

/** The newest entries, by number. */
class Ring {
  readonly #capacity: number;
  readonly #entries: FlowEntry[] = [];
  #count = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  push(entry: FlowEntry): void {
    this.#entries[this.#count++ % this.#capacity] = entry;
  }

  after(number: number): FlowEntry[] {
    return this.#entries.filter((entry) => entry.number > number);
  }
}

function entryOfFlow(flow: FlowRecord): Omit<FlowEntry, "number"> {
  return {
    unixMs: flow.lastSeenUnixMs,
    type: "L3_L4",
    verdict: flow.isRedirected ? "REDIRECTED" : "FORWARDED",
    direction: flow.direction,
    source: { address: flow.source, port: flow.sourcePort },
    destination: { address: flow.destination, port: flow.destinationPort },
    protocol: flow.protocol,
    identity: flow.identity,
  };
}

function entryOfDrop(drop: DropRecord): Omit<FlowEntry, "number"> {
  const place = (address: string | undefined, port: number) => address === undefined ? undefined : { address, port };
  return {
    unixMs: drop.unixMs,
    type: "L3_L4",
    verdict: "DROPPED",
    direction: drop.direction,
    source: place(drop.source, drop.sourcePort),
    destination: place(drop.destination, drop.destinationPort),
    protocol: drop.protocol,
    identity: drop.identity,
    drop: nameOfVerdict(drop.verdict),
    reason: REASONS.get(drop.verdict)?.text ?? "Dropped",
  };
}

function wordOf(verdict: Verdict): FlowVerdict {
  return verdict === FORWARD ? "FORWARDED" : verdict === REDIRECT ? "REDIRECTED" : "DROPPED";
}

/** A text of its own: a part of a text keeps all of it in memory, and what others send is long. */
function cut(text: string): string {
  const kept = text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT - 1)}…`;
  return decoder.decode(encoder.encode(kept));
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function cutHttp({ method, path, host, status }: HttpFacts): HttpFacts {
  return { method: cut(method), path: cut(path), host: cut(host), status };
}

function cutDns({ name, type, rcode, addresses }: DnsFacts): DnsFacts {
  return { name: cut(name), type: cut(type), rcode: cut(rcode), addresses: addresses.slice(0, MAX_ADDRESSES) };
}

/**
 * What stands in a newer view of a ring and not in an older one. The newer begins with what is left of the older; where nothing is
 * left of it, all of the newer is new.
 */
export function newerOf<T>(before: readonly T[], now: readonly T[]): readonly T[] {
  const olds = before.map((item) => JSON.stringify(item));
  const news = now.map((item) => JSON.stringify(item));
  for (let gone = 0; gone <= olds.length; gone++) {
    const left = olds.slice(gone);
    if (left.length <= news.length && left.every((item, i) => item === news[i])) return now.slice(left.length);
  }
  return now;
}
