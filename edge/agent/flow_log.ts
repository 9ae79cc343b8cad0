/**
 * The newest flows that somebody decided about, for people: requests that a proxy judged, and packets that the datapath dropped.
 * A ring of fixed length with texts of bounded length, so that a flood costs nothing but itself; nothing is allocated before the
 * first entry. `GET /v1/flows` and `edgemesh observe` read it.
 */
import type { DropRecord } from "../../src/datapath/control.ts";
import { FORWARD, nameOfVerdict, REASONS, REDIRECT, type Verdict } from "../../src/verdict.ts";
import type { DnsFacts, HttpFacts, L7Record } from "../proxy/doors.ts";

const CAPACITY = 1024;
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
  readonly #ring: FlowEntry[] = [];
  #newest = 0;
  #drops: readonly DropRecord[] = [];

  addL7(record: L7Record): void {
    const { flow, rule, reason, http, dns } = record;
    this.#add({
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
    for (const drop of newerOf(this.#drops, ring)) this.#add(entryOfDrop(drop));
    this.#drops = ring;
  }

  /** @param since number of the last entry known; a number from before a restart counts as 0 */
  list(since = 0): FlowSlice {
    const after = since > this.#newest ? 0 : since;
    const oldest = this.#newest - this.#ring.length + 1;
    const first = Math.max(after + 1, oldest);
    const entries: FlowEntry[] = [];
    for (let number = first; number <= this.#newest; number++) entries.push(this.#ring[(number - 1) % CAPACITY]!);
    return { newest: this.#newest, lost: after === 0 ? 0 : first - after - 1, entries };
  }

  #add(entry: Omit<FlowEntry, "number">): void {
    const number = ++this.#newest;
    this.#ring[(number - 1) % CAPACITY] = { number, ...entry };
  }
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

function cut(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT - 1)}…`;
}

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
