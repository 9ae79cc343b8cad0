/**
 * What is known of the way to each peer: the largest packet that it takes, and what that leaves for packets inside. Numbers per
 * peer slot, so that the packet path reads one of them. `path_prober.ts` finds them out.
 *
 * A way of which nothing is known limits nothing: its datagrams go without don't-fragment, as the kernel's WireGuard sends them.
 */
import { FAMILY_IPV6, familyOf } from "../ip/underlay_addr.ts";
import type { Peer } from "../tunnel/peer.ts";
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, UDP_HEADER_BYTES } from "../wire/numbers.ts";
import { TRANSPORT_HEADER_BYTES } from "../wire/wg_message.ts";

/**
 * Underlay MTU less the MTU inside: outer Ethernet, IP, UDP and Geneve (50), and WireGuard with its padding (95): Cilium's numbers
 * since 1.20.
 */
export const UNDERLAY_OVERHEAD_BYTES = 145;
/** IPv6 goes no lower (RFC 8200 §5): packets inside up to this are always taken, in fragments of the underlay where need be. */
export const IPV6_MIN_MTU_BYTES = 1280;
/** What every IPv4 host takes (RFC 791 §3.1): a way that is said to be narrower is treated as this. */
export const MIN_PATH_BYTES = 576;
/** Limits nothing: no packet is longer. Kept as 0, so that the numbers of peers that there are not touch no memory. */
const NO_LIMIT = 0xffff;
const PADDING_MULTIPLE = 16;
/** of WireGuard's own AEAD */
const TAG_BYTES = 16;

/** Octets of IP and UDP around a datagram to a peer. */
export function outerHeaderBytes(arena: Uint8Array, peer: Peer): number {
  return UDP_HEADER_BYTES +
    (familyOf(arena, peer.endpointAt) === FAMILY_IPV6 ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES);
}

export class PathMtus {
  readonly #arena: Uint8Array;
  readonly #mtu: number;
  readonly #maxPlaintextBytes: number;
  /** largest packet of the underlay that gets there, 0 = not known */
  readonly #paths: Uint16Array;
  /** largest packet inside that goes in one datagram of that size, 0 when all do */
  readonly #limits: Uint16Array;
  /** the same over IPv6, where no router fragments; 0 over IPv4 */
  readonly #squeezed: Uint16Array;
  /** largest packet inside that a TCP connection is told of, 0 when it is the TUN's */
  readonly #tcp: Uint16Array;

  /**
   * @param mtu               largest packet that the TUN takes
   * @param maxPlaintextBytes what padding never goes past
   */
  constructor(arena: Uint8Array, maxPeers: number, mtu: number, maxPlaintextBytes: number) {
    this.#arena = arena;
    this.#mtu = mtu;
    this.#maxPlaintextBytes = maxPlaintextBytes;
    this.#paths = new Uint16Array(maxPeers);
    this.#limits = new Uint16Array(maxPeers);
    this.#squeezed = new Uint16Array(maxPeers);
    this.#tcp = new Uint16Array(maxPeers);
  }

  /** Largest packet of the underlay that this node may make: more is not looked for. */
  get underlayBytes(): number {
    return this.#mtu + UNDERLAY_OVERHEAD_BYTES;
  }

  /** Largest packet of the underlay that is known to get to a peer, 0 = not known. */
  pathOf(slot: number): number {
    return this.#paths[slot]!;
  }

  /** Largest packet inside that goes to a peer whole; longer ones are answered or fragmented. */
  limitOf(slot: number, version: number): number {
    const limit = this.#limits[slot] || NO_LIMIT;
    return version === 6 && limit < IPV6_MIN_MTU_BYTES ? IPV6_MIN_MTU_BYTES : limit;
  }

  /** Whether a packet that `limitOf` lets through must go in fragments of the underlay that this machine makes. */
  isSqueezed(slot: number, packetBytes: number): boolean {
    return packetBytes > (this.#squeezed[slot] || NO_LIMIT);
  }

  /** Largest packet that a TCP connection with a peer may be told of. */
  largestTcpOf(slot: number): number {
    return this.#tcp[slot] || this.#mtu;
  }

  /**
   * Takes what was found out about a way; 0: it is not known any more.
   * @param envelopeBytes of the peer's envelope, 0 when packets go bare
   */
  setPath(peer: Peer, pathBytes: number, envelopeBytes: number): void {
    this.#paths[peer.slot] = pathBytes;
    this.refresh(peer, envelopeBytes);
  }

  /** Reckons anew after the peer's envelope, AEAD or endpoint may have changed. */
  refresh(peer: Peer, envelopeBytes: number): void {
    const { slot } = peer;
    const tagBytes = peer.current?.sendTagBytes ?? TAG_BYTES;
    const outer = outerHeaderBytes(this.#arena, peer);
    const path = this.#paths[slot]!;
    const room = Math.max(path === 0 ? this.underlayBytes : path, MIN_PATH_BYTES) -
      (outer + TRANSPORT_HEADER_BYTES + tagBytes);
    // up to the longest plaintext packets are padded, beyond it they go as they are
    const isPadded = room < this.#maxPlaintextBytes - (tagBytes - TAG_BYTES);
    const largest = (isPadded ? Math.floor(room / PADDING_MULTIPLE) * PADDING_MULTIPLE : room) - envelopeBytes;
    const limit = path === 0 || largest >= this.#mtu ? 0 : largest;
    this.#limits[slot] = limit;
    this.#squeezed[slot] = outer === IPV6_HEADER_BYTES + UDP_HEADER_BYTES ? limit : 0;
    this.#tcp[slot] = Math.min(this.#mtu, largest);
  }

  /** Forgets a peer. */
  remove(slot: number): void {
    this.#paths[slot] = 0;
    this.#limits[slot] = 0;
    this.#squeezed[slot] = 0;
    this.#tcp[slot] = 0;
  }
}
