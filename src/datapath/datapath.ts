/**
 * The datapath as a whole: tables, both directions, and what the control thread asks for. It does no waiting: the loop
 * (`edge/agent/loop.ts`) tells it what is ready and what time it is.
 */
import { FAMILY_NONE, familyOf, readUnderlayAddr } from "../ip/underlay_addr.ts";
import { DROP_NO_SESSION, DROP_UNDERLAY_SEND } from "../verdict.ts";
import type {
  DatapathCommand,
  DatapathEvent,
  DatapathSnapshot,
  FlowRecord,
  PeerSnapshot,
  PutIp,
  PutPeer,
} from "./control.ts";
import { counterOf, EGRESS } from "./counters.ts";
import { EchoProbe } from "./echo_probe.ts";
import { Egress } from "./egress.ts";
import { listFlows } from "./flow_list.ts";
import { Ingress } from "./ingress.ts";
import { Node, type NodeParts } from "./node.ts";
import { PathProber } from "./path_prober.ts";
import { SealedRuns } from "./sealed_run.ts";
import { Staging } from "./staging.ts";
import type { OffloadSwitches, Underlay } from "../ports.ts";
import type { Peer } from "../tunnel/peer.ts";

/** Packets taken from the TUN before the underlay gets its turn again: neither side may starve the other. */
const TUN_BATCH = 32;
const UNDERLAY_BATCHES = 4;
/** Flow table entries looked at for expiry, and how often. */
const EXPIRE_EVERY_MS = 1000;
const EXPIRE_BUDGET = 1024;
/** The longest control message, a handshake initiation. */
const MAX_CONTROL_BYTES = 148;
/** DSCP AF41: what the kernel's WireGuard gives to handshakes, so that a full link does not end sessions. */
const HANDSHAKE_TRAFFIC_CLASS = 0x88;

const FROM_TUN_PACKETS = counterOf("fromTunPackets");
const FROM_TUN_BYTES = counterOf("fromTunBytes");
const FROM_TUN_READS = counterOf("fromTunReads");
const HANDSHAKES_SENT = counterOf("handshakesSent");

export class Datapath {
  readonly node: Node;
  readonly #egress: Egress;
  readonly #ingress: Ingress;
  readonly #echo: EchoProbe;
  readonly #runs: SealedRuns;
  readonly #prober: PathProber;
  readonly #staging = new Staging();
  readonly #emit: (event: DatapathEvent) => void;
  #sendErrors = 0;
  #expireAtMs = 0;

  /**
   * @param emit   takes events for the control thread
   * @param nowMs  a clock for round trips only
   */
  constructor(parts: NodeParts, emit: (event: DatapathEvent) => void, nowMs: () => number) {
    this.#emit = emit;
    this.node = new Node(parts);
    const { toUnderlayAt, toUnderlayEnd, sendParts } = parts.layout;
    this.#runs = new SealedRuns(parts.underlay, toUnderlayAt, toUnderlayEnd, sendParts);
    this.#echo = new EchoProbe(
      this.node,
      nowMs,
      (id, sequence, roundTripMs, verdict) => this.#emit({ op: "pong", id, sequence, roundTripMs, verdict }),
    );
    this.#egress = new Egress(this.node, this.#runs, this.#staging);
    this.#prober = new PathProber(this.node, this.#runs);
    this.#ingress = new Ingress(this.node, this.#echo, this.#prober);
  }

  /** Applies one command. Between batches only. */
  apply(command: DatapathCommand, nowMs: number): void {
    const { ipcache, policy } = this.node.parts;
    switch (command.op) {
      case "self":
        return this.node.setSelf(command, nowMs);
      case "peer":
        return this.#putPeer(command, nowMs);
      case "removePeer":
        return this.#removePeer(command.publicKey);
      case "ip":
        return this.#putIp(command);
      case "removeIp":
        ipcache.remove(command.prefix);
        return;
      case "policy":
        return policy.apply(command.update);
      case "proxy":
        return this.node.setProxy(command, nowMs);
      case "offload":
        return this.#switchOffload(command.switches);
      case "ping":
        this.#echo.send(this.#egress, command.id, command.sequence, command.to, nowMs);
        return this.#finish(nowMs);
    }
  }

  #switchOffload(switches: OffloadSwitches): void {
    this.#ingress.switchOffload(switches);
    this.node.parts.underlay.switchOffload(switches);
    this.node.plain.switchOffload(switches);
  }

  /** Grows whenever an offload goes on or off; cheap enough to be asked for every batch. */
  get offloadChanges(): number {
    const { tun, underlay } = this.node.parts;
    return tun.offloadChanges + underlay.offloadChanges + this.node.plain.offloadChanges;
  }

  /** Takes what waits on the UDP sockets, a few batches at most. True when there may be more. */
  receive(nowMs: number, unixMs: number): boolean {
    return this.#receiveFrom(this.node.parts.underlay, false, nowMs, unixMs);
  }

  /** The same for the socket of the unencrypted tunnel, where there is one. */
  receivePlain(nowMs: number, unixMs: number): boolean {
    const { underlay } = this.node.plain;
    return underlay !== undefined && this.#receiveFrom(underlay, true, nowMs, unixMs);
  }

  #receiveFrom(underlay: Underlay, isPlain: boolean, nowMs: number, unixMs: number): boolean {
    this.node.unixMs = unixMs;
    let isFull = false;
    for (let batch = 0; batch < UNDERLAY_BATCHES; batch++) {
      const count = underlay.receive();
      if (count <= 0) break;
      for (let i = 0; i < count; i++) this.#ingress.run(underlay.received[i]!, nowMs, isPlain);
      this.#ingress.finish();
      // before the next batch takes the slots: where messages came from is read there
      this.node.parts.wireguard.finishReceiveBatch(nowMs);
      isFull = count === underlay.received.length;
      if (!isFull) break;
    }
    this.#finish(nowMs);
    return isFull;
  }

  /**
   * Takes what waits on the TUN, a batch at most.
   * @returns 1 when there may be more, 0 when it is empty, or a negative errno that the device gave
   */
  readTun(nowMs: number, unixMs: number): number {
    const { tun, layout, counters } = this.node.parts;
    this.node.unixMs = unixMs;
    let status = 1;
    for (let i = 0; i < TUN_BATCH; i++) {
      const octets = tun.read(layout.fromTunAt, layout.fromTunEnd);
      if (octets <= 0) {
        status = octets;
        break;
      }
      counters.add(FROM_TUN_READS, 1);
      counters.add(FROM_TUN_PACKETS, 1);
      counters.add(FROM_TUN_BYTES, octets);
      this.#egress.run(layout.fromTunAt, layout.fromTunAt + octets, nowMs);
    }
    this.#finish(nowMs);
    return status;
  }

  /** Runs timers that are due; a comparison when none is. Returns the monotonic time of the next one, or Infinity. */
  tick(nowMs: number, unixMs: number): number {
    const { wireguard, conntrack } = this.node.parts;
    this.node.unixMs = unixMs;
    const next = wireguard.tick(nowMs, unixMs);
    if (nowMs >= this.#expireAtMs) {
      this.#expireAtMs = nowMs + EXPIRE_EVERY_MS;
      conntrack.expire(nowMs, EXPIRE_BUDGET);
      this.node.expireRedirects(nowMs);
    }
    const probeAtMs = this.#prober.tick(nowMs);
    if (wireguard.outbox.count + wireguard.ready.count + wireguard.abandoned.count > 0) this.#finish(nowMs);
    return Math.min(next, probeAtMs);
  }

  /** A picture for status and `monitor --drops`. */
  snapshot(nowMs: number): DatapathSnapshot {
    const { wireguard, conntrack, policy } = this.node.parts;
    const peers: PeerSnapshot[] = [];
    for (const peer of wireguard.peers()) peers.push(this.#peerSnapshot(peer, nowMs));
    return {
      peers,
      flows: conntrack.size + (this.node.redirects?.table.size ?? 0),
      policyRevision: policy.revision,
      ruleHits: policy.copyHits(),
      drops: this.node.drops.list(),
    };
  }

  /** The flows alive, those with the newest packets first. @param limit most of them */
  flows(nowMs: number, unixMs: number, limit: number): FlowRecord[] {
    return listFlows(this.node, nowMs, unixMs, limit);
  }

  /** What the tunnel wants to send, what waited for a session, and everything sealed, goes out. */
  #finish(nowMs: number): void {
    const { wireguard } = this.node.parts;
    for (let peer = wireguard.ready.take(); peer !== undefined; peer = wireguard.ready.take()) {
      this.#prober.noteSession(peer, nowMs);
      this.#sendStaged(peer, nowMs);
    }
    for (let peer = wireguard.abandoned.take(); peer !== undefined; peer = wireguard.abandoned.take()) {
      this.#dropStaged(peer);
    }
    if (wireguard.outbox.count > 0) this.#sendOutbox();
    this.#runs.flush();
    this.node.plain.flush();
    this.#countSendErrors();
  }

  #sendOutbox(): void {
    const { wireguard, cipher, counters, arena } = this.node.parts;
    const outbox = wireguard.outbox;
    const runs = this.#runs;
    for (let i = 0; i < outbox.count; i++) {
      const message = outbox.at(i);
      if (familyOf(arena, message.toAt) === FAMILY_NONE) continue;
      runs.reserve(MAX_CONTROL_BYTES);
      const end = wireguard.writeOutgoing(message, cipher, runs.at);
      if (end === runs.at) continue;
      runs.add(end, message.toAt, message.session === undefined ? HANDSHAKE_TRAFFIC_CLASS : 0);
      if (message.session === undefined) counters.add(HANDSHAKES_SENT, 1);
    }
    runs.flush(); // before the outbox goes: it lends the address records
    outbox.clear();
  }

  /** The peer could not be reached: what waited for it goes. */
  #dropStaged(peer: Peer): void {
    peer.stagedCount = 0;
    const dropped = this.#staging.take(peer.slot).length;
    for (let i = 0; i < dropped; i++) this.node.drop(EGRESS, DROP_NO_SESSION, undefined, 0);
  }

  #sendStaged(peer: Peer, nowMs: number): void {
    const { arena, layout } = this.node.parts;
    peer.stagedCount = 0;
    for (const packet of this.#staging.take(peer.slot)) {
      arena.set(packet, layout.fromTunAt);
      this.#egress.run(layout.fromTunAt, layout.fromTunAt + packet.length, nowMs);
    }
  }

  #countSendErrors(): void {
    const { underlay, counters } = this.node.parts;
    const { plain } = this.node;
    for (; this.#sendErrors < underlay.sendErrorCount; this.#sendErrors++) counters.addDrop(EGRESS, DROP_UNDERLAY_SEND);
    if (plain.underlay === undefined) return;
    for (; plain.countedSendErrors < plain.underlay.sendErrorCount; plain.countedSendErrors++) {
      counters.addDrop(EGRESS, DROP_UNDERLAY_SEND);
    }
  }

  #putPeer(command: PutPeer, nowMs: number): void {
    const { name, publicKey, presharedKey, endpoint, keepaliveSeconds, underlay, aead } = command;
    const allowedIps = [{ address: underlay, length: underlay.length * 8 }];
    try {
      const spec = { name, publicKey, presharedKey, endpoint, keepaliveSeconds, allowedIps, aead };
      const peer = this.node.parts.wireguard.putPeer(spec, nowMs);
      this.node.putPath(peer.slot, command);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#emit({ op: "log", level: "error", event: "peer refused", fields: { peer: name, reason: error.message } });
    }
  }

  #removePeer(publicKey: Uint8Array): void {
    const peer = this.node.parts.wireguard.findPeer(publicKey);
    if (peer === undefined) return;
    this.node.removePath(peer.slot);
    this.#prober.remove(peer.slot);
    this.#staging.take(peer.slot);
    this.node.parts.ipcache.forgetPeer(peer.slot);
    this.node.parts.wireguard.removePeer(publicKey);
  }

  #putIp(command: PutIp): void {
    const peer = command.peer && this.node.parts.wireguard.findPeer(command.peer);
    this.node.parts.ipcache.put(command.prefix, command.identity, peer ? peer.slot : -1, command.wireIdentity);
  }

  #peerSnapshot(peer: Peer, nowMs: number): PeerSnapshot {
    const endpoint = readUnderlayAddr(this.node.parts.arena, peer.endpointAt);
    return {
      name: peer.name,
      publicKey: peer.publicKey,
      lastHandshakeUnixMs: peer.lastHandshakeUnixMs,
      rxBytes: peer.rxBytes,
      txBytes: peer.txBytes,
      hasSession: this.node.parts.wireguard.hasSession(peer, nowMs),
      pathMtuBytes: this.node.paths.pathOf(peer.slot),
      ...(endpoint && { endpoint }),
      ...(peer.current && { aead: peer.current.sendKey.aead }),
    };
  }
}
