/**
 * What both directions of the packet path share: the doors, the tables, this node's own addresses, and the peers' envelopes.
 * Nothing here decides; `egress.ts` and `ingress.ts` do.
 */
import { Checksummer } from "../bytes/checksum.ts";
import { equalRange } from "../bytes/compare.ts";
import type { ConntrackTable } from "../conntrack/table.ts";
import type { IpAddress } from "../ip/address.ts";
import type { IpCache } from "../ipcache/ipcache.ts";
import type { PolicyTable } from "../policy/table.ts";
import type { PacketCipher, Tun, Underlay } from "../ports.ts";
import type { WireGuard } from "../tunnel/wireguard.ts";
import type { Verdict } from "../verdict.ts";
import type { PacketInfo } from "../wire/packet.ts";
import { type ArenaLayout, VIRTIO_HEADER_BYTES } from "./arena.ts";
import type { SetSelf } from "./control.ts";
import { type DatapathCounters, type Direction } from "./counters.ts";
import { DropRing } from "./drop_ring.ts";
import { envelopeBytes, TEMPLATE_BYTES, type TunnelProtocol, writeTemplate } from "./encapsulation.ts";

/** The doors and tables that the datapath is built on. */
export interface NodeParts {
  readonly arena: Uint8Array;
  readonly layout: ArenaLayout;
  readonly tun: Tun;
  readonly underlay: Underlay;
  readonly cipher: PacketCipher;
  readonly wireguard: WireGuard;
  readonly ipcache: IpCache;
  readonly conntrack: ConntrackTable;
  readonly policy: PolicyTable;
  readonly counters: DatapathCounters;
  /** largest IP packet that the TUN takes, octets */
  readonly mtu: number;
}

/** Each own address as 16 octets at a fixed stride, IPv4 in the first four. */
const ADDRESS_STRIDE = 16;
const MAX_ADDRESSES = 16;

/** Up to a multiple of 16: ciphers are quickest on whole blocks, and odd sizes tell more than they must. */
function padded(bytes: number): number {
  return (bytes + 15) & ~15;
}

export class Node {
  readonly parts: NodeParts;
  readonly sums: Checksummer;
  readonly drops = new DropRing();
  /** octets in front of the IP packet in every TUN read and write */
  readonly virtioBytes: number;
  /** WireGuard pads to 16, but never past this: a full-size envelope, padded. The MTU leaves room for it (facts: 80 + 15). */
  maxPlaintextBytes: number;
  identity = 0;
  tunnelProtocol: TunnelProtocol = "geneve";
  /** last errno of a TUN write, 0 = none: the loop looks whether the device is gone */
  tunError = 0;
  /** wall clock of the current batch, for records */
  unixMs = 0;

  readonly #addresses = new Uint8Array(MAX_ADDRESSES * ADDRESS_STRIDE);
  readonly #addressVersions = new Uint8Array(MAX_ADDRESSES);
  #addressCount = 0;
  #underlay: IpAddress = new Uint8Array(4);
  /** by peer slot: the peer's underlay address, and the octets of its envelope (0: none can be made) */
  readonly #peerUnderlay: (IpAddress | undefined)[] = [];
  readonly #envelopeBytes: Uint8Array;

  constructor(parts: NodeParts) {
    this.parts = parts;
    this.sums = new Checksummer(parts.arena);
    this.virtioBytes = parts.tun.hasOffload ? VIRTIO_HEADER_BYTES : 0;
    this.#envelopeBytes = new Uint8Array(parts.layout.maxPeers);
    this.maxPlaintextBytes = padded(parts.mtu + TEMPLATE_BYTES);
  }

  /** Takes this node's addresses and identity, and writes every peer's envelope anew. */
  setSelf(self: SetSelf): void {
    this.identity = self.identity;
    this.tunnelProtocol = self.tunnelProtocol;
    this.#underlay = self.underlay;
    this.maxPlaintextBytes = padded(this.parts.mtu + envelopeBytes(self.underlay));
    this.#addressCount = 0;
    this.#addresses.fill(0);
    for (const address of self.addresses.slice(0, MAX_ADDRESSES)) {
      this.#addresses.set(address, this.#addressCount * ADDRESS_STRIDE);
      this.#addressVersions[this.#addressCount++] = address.length === 4 ? 4 : 6;
    }
    for (let slot = 0; slot < this.#peerUnderlay.length; slot++) {
      const underlay = this.#peerUnderlay[slot];
      if (underlay) this.putEnvelope(slot, underlay);
    }
  }

  /** Whether the address at `at` is one of ours. */
  isOwnAddress(at: number, version: number): boolean {
    const octets = version === 4 ? 4 : 16;
    for (let i = 0; i < this.#addressCount; i++) {
      if (
        this.#addressVersions[i] === version &&
        equalRange(this.#addresses, i * ADDRESS_STRIDE, this.parts.arena, at, octets)
      ) return true;
    }
    return false;
  }

  /** Copies our own address of a family to `at`; false when we have none. */
  writeOwnAddress(at: number, version: number): boolean {
    for (let i = 0; i < this.#addressCount; i++) {
      if (this.#addressVersions[i] !== version) continue;
      const octets = version === 4 ? 4 : 16;
      for (let j = 0; j < octets; j++) this.parts.arena[at + j] = this.#addresses[i * ADDRESS_STRIDE + j]!;
      return true;
    }
    return false;
  }

  /** Whether the address at `at` is the one that peers put into outer headers for us. */
  isOwnUnderlay(at: number, version: number): boolean {
    return this.#underlay.length === (version === 4 ? 4 : 16) &&
      equalRange(this.#underlay, 0, this.parts.arena, at, this.#underlay.length);
  }

  /** Makes the envelope for a peer. Two families have none: such a peer cannot be tunnelled to. */
  putEnvelope(slot: number, underlay: IpAddress): void {
    this.#peerUnderlay[slot] = underlay;
    if (underlay.length !== this.#underlay.length) {
      this.#envelopeBytes[slot] = 0;
      return;
    }
    const { arena } = this.parts;
    writeTemplate(arena, this.templateAt(slot), this.#underlay, underlay, this.tunnelProtocol, this.identity);
    this.#envelopeBytes[slot] = envelopeBytes(underlay);
  }

  removeEnvelope(slot: number): void {
    this.#peerUnderlay[slot] = undefined;
    this.#envelopeBytes[slot] = 0;
  }

  /** Octets of the envelope to a peer; 0 when there is none. */
  envelopeBytesOf(slot: number): number {
    return this.#envelopeBytes[slot]!;
  }

  templateAt(slot: number): number {
    return this.parts.layout.templatesAt + slot * TEMPLATE_BYTES;
  }

  /** Counts a drop and keeps it for `monitor --drops`. */
  drop(direction: Direction, verdict: Verdict, packet: PacketInfo | undefined, identity: number): void {
    this.parts.counters.addDrop(direction, verdict);
    this.drops.add(this.unixMs, direction, verdict, this.parts.arena, packet, identity);
  }
}
