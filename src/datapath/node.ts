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
import type { PutPeer, SetProxy, SetSelf } from "./control.ts";
import { type DatapathCounters, type Direction } from "./counters.ts";
import { DropRing } from "./drop_ring.ts";
import {
  envelopeBytes,
  looksLikeEnvelope,
  TEMPLATE_BYTES,
  type TunnelProtocol,
  writeTemplate,
} from "./encapsulation.ts";
import { Fragments } from "./fragments.ts";
import { PathMtus } from "./path_mtu.ts";
import { type OpenPlain, PlainTunnel } from "./plain_tunnel.ts";
import { Redirects } from "./redirect.ts";
import { RedirectView } from "./redirect_view.ts";

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
  /** look for the largest packet that each peer's way takes; off when absent */
  readonly probesPaths?: boolean;
  /** give the outer header the DSCP of the packet inside; 0 when absent, so that the underlay cannot tell flows apart */
  readonly copiesDscp?: boolean;
  /** for a mesh without encryption; absent: this node cannot be in one */
  readonly openPlain?: OpenPlain;
}

/** Each own address as 16 octets at a fixed stride, IPv4 in the first four. */
const ADDRESS_STRIDE = 16;
const MAX_ADDRESSES = 16;
/** A mesh that is native no longer: as long as WireGuard's sessions of then live, their packets may come (REJECT_AFTER_TIME). */
const NATIVE_GRACE_MS = 180_000;

/** Over IPv4. Over IPv6 the device's MTU is lower by what the envelope is longer, so full packets seal the same. */
const SHORT_ENVELOPE_BYTES = envelopeBytes(new Uint8Array(4));

/** Up to a multiple of 16: ciphers are quickest on whole blocks, and odd sizes tell more than they must. */
function padded(bytes: number): number {
  return (bytes + 15) & ~15;
}

export class Node {
  readonly parts: NodeParts;
  readonly sums: Checksummer;
  readonly drops = new DropRing();
  readonly plain: PlainTunnel;
  readonly fragments: Fragments;
  /** what each peer's way takes */
  readonly paths: PathMtus;
  /** bits of the inner traffic class that the outer header gets: ECN, and DSCP where that is asked for */
  readonly outerClassMask: number;
  /** octets in front of the IP packet in every TUN read and write */
  readonly virtioBytes: number;
  /** WireGuard pads to 16, but never past this: a full-size envelope, padded. The MTU leaves room for it (facts: 80 + 15). */
  readonly maxPlaintextBytes: number;
  identity = 0;
  tunnelProtocol: TunnelProtocol = "geneve";
  /** last errno of a TUN write, 0 = none: the loop looks whether the device is gone */
  tunError = 0;
  /** wall clock of the current batch, for records */
  unixMs = 0;
  /** flows that go through a proxy; none while no proxy runs */
  redirects: Redirects | undefined;

  #isProxied = false;
  readonly #addresses = new Uint8Array(MAX_ADDRESSES * ADDRESS_STRIDE);
  readonly #addressVersions = new Uint8Array(MAX_ADDRESSES);
  #addressCount = 0;
  #underlay: IpAddress = new Uint8Array(4);
  /** by peer slot: the peer's underlay address, and the octets of its envelope (0: none can be made) */
  readonly #peerUnderlay: (IpAddress | undefined)[] = [];
  readonly #envelopeBytes: Uint8Array;
  /** by peer slot: packets go to it without an envelope */
  readonly #isNative: Uint8Array;
  /** until when packets without an envelope are taken */
  #nativeUntilMs = -Infinity;

  constructor(parts: NodeParts) {
    this.parts = parts;
    this.sums = new Checksummer(parts.arena);
    this.virtioBytes = parts.tun.hasOffload ? VIRTIO_HEADER_BYTES : 0;
    this.#envelopeBytes = new Uint8Array(parts.layout.maxPeers);
    this.#isNative = new Uint8Array(parts.layout.maxPeers);
    this.plain = new PlainTunnel(parts.arena, parts.layout, parts.openPlain);
    this.maxPlaintextBytes = padded(parts.mtu + SHORT_ENVELOPE_BYTES);
    this.fragments = new Fragments(parts.arena, parts.conntrack);
    this.paths = new PathMtus(parts.arena, parts.layout.maxPeers, parts.mtu, this.maxPlaintextBytes);
    this.outerClassMask = parts.copiesDscp === true ? 0xff : 3;
  }

  /**
   * Takes this node's addresses and identity, and writes every peer's envelope anew.
   * @throws Error when the socket of the unencrypted tunnel is needed and cannot be opened
   */
  setSelf(self: SetSelf, nowMs: number): void {
    if (self.acceptsNative === true) this.#nativeUntilMs = Infinity;
    else if (this.#nativeUntilMs === Infinity) this.#nativeUntilMs = nowMs + NATIVE_GRACE_MS;
    this.identity = self.identity;
    this.tunnelProtocol = self.tunnelProtocol;
    this.#underlay = self.underlay;
    this.#addressCount = 0;
    this.#addresses.fill(0);
    for (const address of self.addresses.slice(0, MAX_ADDRESSES)) {
      this.#addresses.set(address, this.#addressCount * ADDRESS_STRIDE);
      this.#addressVersions[this.#addressCount++] = address.length === 4 ? 4 : 6;
    }
    for (let slot = 0; slot < this.#peerUnderlay.length; slot++) {
      const underlay = this.#peerUnderlay[slot];
      if (!underlay) continue;
      this.#putEnvelope(slot, underlay);
      this.refreshPath(slot);
    }
    this.plain.setSelf(self);
  }

  /** Takes where the proxies listen. Once there is none, and no flow is left that had one, the memory is given back. */
  setProxy(proxy: SetProxy, nowMs: number): void {
    const isOn = proxy.http !== 0 || proxy.dns !== 0;
    if (isOn && this.redirects === undefined) {
      const view = new RedirectView(proxy.view ?? new ArrayBuffer(RedirectView.bytes));
      this.redirects = new Redirects(this, view, nowMs);
    }
    this.redirects?.setPorts(proxy, nowMs);
    this.#isProxied = isOn;
    this.expireRedirects(nowMs);
  }

  /** Forgets redirected flows that are past their lifetime. Call it now and then. */
  expireRedirects(nowMs: number): void {
    this.redirects?.expire(nowMs);
    if (!this.#isProxied && this.redirects?.table.size === 0) this.redirects = undefined;
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

  /** Takes how packets go to a peer. */
  putPath(slot: number, { underlay, mode, plain }: Pick<PutPeer, "underlay" | "mode" | "plain">): void {
    this.#isNative[slot] = mode === "native" ? 1 : 0;
    this.#putEnvelope(slot, underlay);
    this.refreshPath(slot);
    this.plain.putPeer(slot, plain);
  }

  /** Octets of what goes around packets to a peer: its envelope, or nothing. */
  wrapBytesOf(slot: number): number {
    return this.#isNative[slot] === 1 ? 0 : this.#envelopeBytes[slot]!;
  }

  /** A peer's envelope, session or endpoint may have changed: what fits its way is reckoned anew. */
  refreshPath(slot: number): void {
    const peer = this.parts.wireguard.peerAt(slot);
    if (peer !== undefined) this.paths.refresh(peer, this.wrapBytesOf(slot));
  }

  removePath(slot: number): void {
    this.#peerUnderlay[slot] = undefined;
    this.#envelopeBytes[slot] = 0;
    this.#isNative[slot] = 0;
    this.paths.remove(slot);
    this.plain.putPeer(slot, undefined);
  }

  /** Makes the envelope for a peer. Two families have none: such a peer cannot be tunnelled to. */
  #putEnvelope(slot: number, underlay: IpAddress): void {
    this.#peerUnderlay[slot] = underlay;
    if (underlay.length !== this.#underlay.length) {
      this.#envelopeBytes[slot] = 0;
      return;
    }
    const { arena } = this.parts;
    writeTemplate(arena, this.templateAt(slot), this.#underlay, underlay, this.tunnelProtocol, this.identity);
    this.#envelopeBytes[slot] = envelopeBytes(underlay);
  }

  /** Octets of the envelope to a peer; 0 when there is none. */
  envelopeBytesOf(slot: number): number {
    return this.#envelopeBytes[slot]!;
  }

  /** Whether a peer may send packets without an envelope, now. */
  acceptsNative(nowMs: number): boolean {
    return nowMs < this.#nativeUntilMs;
  }

  /**
   * Whether a packet of ours goes to a peer without an envelope. One that looks as if it were in one never does: where underlay
   * addresses are mesh addresses, a program of this machine could otherwise make the peer take the inside of its packet for ours.
   */
  isSentBare(slot: number, packet: PacketInfo): boolean {
    if (this.#isNative[slot] === 0) return false;
    const { arena } = this.parts;
    if (!looksLikeEnvelope(arena, packet.at, packet.end, this.tunnelProtocol)) return true;
    const to = this.#peerUnderlay[slot]!;
    return !this.isOwnUnderlay(packet.sourceAt, packet.version) || to.length !== (packet.version === 4 ? 4 : 16) ||
      !equalRange(to, 0, arena, packet.destinationAt, to.length);
  }

  /**
   * Writes this node's and a peer's underlay address into an IP header at `at`; there must be an envelope for the peer.
   * @returns the version of the addresses
   */
  writeNodes(slot: number, at: number): number {
    const { arena } = this.parts;
    const templateAt = this.templateAt(slot);
    const isV4 = this.#underlay.length === 4;
    const offset = isV4 ? 12 : 8;
    arena.copyWithin(at + offset, templateAt + offset, templateAt + (isV4 ? 20 : 40));
    return isV4 ? 4 : 6;
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
