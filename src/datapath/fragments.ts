/**
 * Fragments on their way through both directions: read, and given the ports of their first. Packets that are whole never come here.
 */
import type { ConntrackTable } from "../conntrack/table.ts";
import { FORWARD, type Verdict } from "../verdict.ts";
import { FragmentInfo, readFragment } from "../wire/fragment.ts";
import { PacketInfo } from "../wire/packet.ts";
import { FragmentTable } from "./fragment_table.ts";

export class Fragments {
  readonly #arena: Uint8Array;
  readonly #conntrack: ConntrackTable;
  readonly #fragment = new FragmentInfo();
  #table: FragmentTable | undefined;

  constructor(arena: Uint8Array, conntrack: ConntrackTable) {
    this.#arena = arena;
    this.#conntrack = conntrack;
  }

  /**
   * Reads a packet that `readPacket` answered DROP_FRAGMENT for.
   * @returns FORWARD: `into` is filled, with the ports of the first fragment; else a drop
   */
  read(at: number, end: number, into: PacketInfo, nowMs: number): Verdict {
    const fragment = this.#fragment;
    const verdict = readFragment(this.#arena, at, end, into, fragment);
    if (verdict !== FORWARD || fragment.offset === 0) return verdict;
    return this.#open().fill(this.#arena, into, fragment, nowMs);
  }

  /** The packet read last may pass: if it is a first fragment, the others may follow. */
  noteAdmitted(packet: PacketInfo, nowMs: number): void {
    const fragment = this.#fragment;
    if (fragment.offset === 0 && fragment.hasMore) this.#open().add(this.#arena, packet, fragment, nowMs);
  }

  #open(): FragmentTable {
    return this.#table ??= new FragmentTable(seedOf(this.#conntrack));
  }
}

/** A secret number: what the flow table's seed makes of nothing. */
function seedOf(conntrack: ConntrackTable): number {
  const key = conntrack.makeKey();
  const nothing = new PacketInfo();
  nothing.version = 4;
  key.setPacket(new Uint8Array(64), nothing);
  return key.hash;
}
