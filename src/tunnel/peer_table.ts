/** The peers of a device: by public key, and by slot. Adding, changing and removing them. */
import { equalConstantTime } from "../bytes/compare.ts";
import { toBase64 } from "../bytes/text.ts";
import type { IpPrefix } from "../ip/address.ts";
import { FAMILY_NONE, UNDERLAY_ADDR_BYTES, type UnderlayAddr, writeUnderlayAddr } from "../ip/underlay_addr.ts";
import { makeRemoteKeys, wipeRemoteKeys } from "../noise/keys.ts";
import type { AeadName } from "../ports.ts";
import { KEY_BYTES } from "../wire/wg_message.ts";
import { AllowedIps } from "./allowed_ips.ts";
import type { Core } from "./core.ts";
import { NEVER, Peer } from "./peer.ts";
import { wipePeer } from "./slots.ts";
import { disarmAll, earliestTimer } from "./timers.ts";

/** A peer as it should be. */
export interface PeerSpec {
  /** for logs */
  readonly name: string;
  /** 32 octets */
  readonly publicKey: Uint8Array;
  /** 32 octets; none is the same as 32 zero octets */
  readonly presharedKey?: Uint8Array | undefined;
  /** seconds between persistent keepalives, 0 to 65535; 0 = off */
  readonly keepaliveSeconds: number;
  /** all of them; host bits are ignored */
  readonly allowedIps: readonly IpPrefix[];
  /** what the records of both sides say; absent: ChaCha20-Poly1305. Sessions that are there keep theirs. */
  readonly aead?: AeadName | undefined;
  /** where it may be found. Given again unchanged, it does not undo roaming. */
  readonly endpoint?: UnderlayAddr | undefined;
}

export class PeerTable {
  readonly #core: Core;
  readonly #addressesAt: number;
  readonly #byKey = new Map<string, Peer>();
  readonly #bySlot: (Peer | undefined)[];
  readonly #freeSlots: number[];
  readonly allowedIps = new AllowedIps();

  constructor(core: Core, addressesAt: number, maxPeers: number) {
    this.#core = core;
    this.#addressesAt = addressesAt;
    this.#bySlot = new Array<Peer | undefined>(maxPeers).fill(undefined);
    this.#freeSlots = Array.from({ length: maxPeers }, (_, i) => maxPeers - 1 - i);
  }

  get count(): number {
    return this.#byKey.size;
  }

  find(publicKey: Uint8Array): Peer | undefined {
    return this.#byKey.get(toBase64(publicKey));
  }

  at(slot: number): Peer | undefined {
    return this.#bySlot[slot];
  }

  values(): IterableIterator<Peer> {
    return this.#byKey.values();
  }

  /**
   * Adds a peer, or changes it into what `spec` says; what stays the same is not disturbed.
   *
   * @throws RangeError, and nothing has changed, when a value is out of range, the key is our own, or there is no room
   */
  put(spec: PeerSpec, nowMs: number): Peer {
    checkSpec(spec);
    if (equalConstantTime(spec.publicKey, this.#core.local.publicKey)) {
      throw new RangeError(`Cannot add peer "${spec.name}": its public key is our own`);
    }
    const peer = this.find(spec.publicKey) ?? this.#add(spec);
    peer.name = spec.name;
    this.#setPresharedKey(peer, spec.presharedKey);
    if (spec.endpoint !== undefined) this.#setEndpoint(peer, spec.endpoint);
    this.#setAead(peer, spec.aead ?? "chacha20poly1305");
    this.#setKeepalive(peer, spec.keepaliveSeconds * 1000, nowMs);
    this.allowedIps.replace(peer.slot, spec.allowedIps);
    return peer;
  }

  /** Forgets a peer and overwrites its secrets; whether there was one. Its sessions end at once. */
  remove(publicKey: Uint8Array): boolean {
    const peer = this.find(publicKey);
    if (peer === undefined) return false;
    const core = this.#core;
    wipePeer(core, peer);
    wipeRemoteKeys(core.ciphers, peer.keys);
    core.outbox.dropPeer(peer);
    core.deadlines.set(peer.slot, NEVER);
    peer.isRemoved = true;
    this.allowedIps.replace(peer.slot, []);
    this.#byKey.delete(toBase64(publicKey));
    this.#bySlot[peer.slot] = undefined;
    this.#freeSlots.push(peer.slot);
    return true;
  }

  #add(spec: PeerSpec): Peer {
    const slot = this.#freeSlots.pop();
    if (slot === undefined) {
      throw new RangeError(`Cannot add peer "${spec.name}": all ${this.#bySlot.length} places are taken`);
    }
    const { ciphers, local, arena } = this.#core;
    const endpointAt = this.#addressesAt + slot * UNDERLAY_ADDR_BYTES;
    arena.fill(FAMILY_NONE, endpointAt, endpointAt + UNDERLAY_ADDR_BYTES);
    const keys = makeRemoteKeys(ciphers, local, spec.publicKey, spec.presharedKey);
    const peer = new Peer(slot, endpointAt, spec.name, keys);
    this.#bySlot[slot] = peer;
    this.#byKey.set(toBase64(spec.publicKey), peer);
    return peer;
  }

  /** A changed key ends the sessions that were made with the old one, and the handshake that is running with it. */
  #setPresharedKey(peer: Peer, presharedKey: Uint8Array | undefined): void {
    const { ciphers, local } = this.#core;
    if (equalConstantTime(presharedKey ?? new Uint8Array(KEY_BYTES), peer.keys.presharedKey)) return;
    const keys = makeRemoteKeys(ciphers, local, peer.publicKey, presharedKey);
    wipeRemoteKeys(ciphers, peer.keys);
    peer.keys = keys;
    wipePeer(this.#core, peer);
    disarmAll(peer);
    peer.handshakeSentAtMs = -Infinity;
    this.#core.outbox.dropPeer(peer);
    this.#core.deadlines.set(peer.slot, earliestTimer(peer));
  }

  #setAead(peer: Peer, aead: AeadName): void {
    peer.agreedAead = aead;
    peer.sendAead = this.#core.sendAeads.includes(aead) ? aead : "chacha20poly1305";
  }

  #setEndpoint(peer: Peer, endpoint: UnderlayAddr): void {
    const before = peer.configuredEndpoint;
    if (before !== undefined && isSameAddr(before, endpoint)) return;
    peer.configuredEndpoint = { ...endpoint, address: endpoint.address.slice() };
    writeUnderlayAddr(this.#core.arena, peer.endpointAt, endpoint);
  }

  /** Switched on, it speaks at once: the way through a NAT is to be opened now. */
  #setKeepalive(peer: Peer, keepaliveMs: number, nowMs: number): void {
    if (keepaliveMs === peer.keepaliveMs) return;
    const wasOff = peer.keepaliveMs === 0;
    peer.keepaliveMs = keepaliveMs;
    if (keepaliveMs === 0) peer.persistentAtMs = NEVER;
    else peer.persistentAtMs = wasOff ? nowMs : Math.min(peer.persistentAtMs, nowMs + keepaliveMs);
    this.#core.deadlines.lower(peer.slot, peer.persistentAtMs);
  }
}

function isSameAddr(a: UnderlayAddr, b: UnderlayAddr): boolean {
  return a.port === b.port && a.scope === b.scope && equalConstantTime(a.address, b.address);
}

function checkSpec(spec: PeerSpec): void {
  const fault = findFault(spec);
  if (fault !== undefined) throw new RangeError(`Cannot add peer "${spec.name}": ${fault}`);
}

function findFault(spec: PeerSpec): string | undefined {
  if (spec.publicKey.length !== KEY_BYTES) return "public key is not 32 octets";
  if (spec.presharedKey !== undefined && spec.presharedKey.length !== KEY_BYTES) {
    return "preshared key is not 32 octets";
  }
  const seconds = spec.keepaliveSeconds;
  if (!Number.isInteger(seconds) || seconds < 0 || seconds > 65535) return "keepalive is not 0 to 65535 seconds";
  if (spec.endpoint !== undefined && !isAddress(spec.endpoint.address)) return "endpoint is no IPv4 or IPv6 address";
  for (const { address, length } of spec.allowedIps) {
    if (!isAddress(address) || !Number.isInteger(length) || length < 0 || length > address.length * 8) {
      return "an allowed IP is no prefix";
    }
  }
  return undefined;
}

function isAddress(address: Uint8Array): boolean {
  return address.length === 4 || address.length === 16;
}
