/**
 * The datapath Worker: opens the TUN device and the UDP sockets, builds the datapath, and runs its loop until told to stop.
 * Started by `link.ts`; everything it needs comes in `workerData`.
 */
import { appendFileSync } from "node:fs";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { chooseAead, describeAead, withTransportAead } from "../../ffi/aead.ts";
import { makeBootClock } from "../../ffi/clock.ts";
import { findMemberAeads } from "../../ffi/member_aead.ts";
import { Waiter } from "../../ffi/poll.ts";
import { loadSodium, randomBytes } from "../../ffi/sodium.ts";
import { openTun } from "../../ffi/tun.ts";
import { openUnderlay, receiveBytes, type UdpUnderlay } from "../../ffi/udp.ts";
import { makePacketMemory } from "../../src/bytes/packet_memory.ts";
import { ConntrackTable } from "../../src/conntrack/table.ts";
import { layoutArena } from "../../src/datapath/arena.ts";
import type { DatapathEvent, OffloadFacts } from "../../src/datapath/control.ts";
import { DatapathCounters } from "../../src/datapath/counters.ts";
import { Datapath } from "../../src/datapath/datapath.ts";
import type { OpenPlain } from "../../src/datapath/plain_tunnel.ts";
import { IpCache } from "../../src/ipcache/ipcache.ts";
import { PolicyTable } from "../../src/policy/table.ts";
import { WireGuard } from "../../src/tunnel/wireguard.ts";
import type { WorkerAwake, WorkerInit, WorkerRequest } from "./link.ts";
import { runLoop } from "./loop.ts";
import type { StartCipher } from "./pair.ts";

/** Peers that one member may have; address records and envelopes are laid out for so many, pages are used only as needed. */
const MAX_PEERS = 4096;
/** UDP receive slots of 64 KiB: enough to fill one TUN write after another, small beside the memory goal. */
const RECEIVE_SLOTS = 8;
/** Sealed messages between two flushes. */
const SEALED_BYTES = 512 * 1024;
/** Flows at a time; the table's memory is touched as it fills. */
const MAX_FLOWS = 65_536;
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

function emit(event: DatapathEvent | WorkerAwake | StartCipher): void {
  parentPort!.postMessage(event);
}

/** Loaded only where there are two Workers. */
type PairModule = typeof import("./pair.ts");

function main(init: WorkerInit, pairs: PairModule | undefined): void {
  const { options } = init;
  const chosen = chooseAead(options.aead);
  const ownCiphers = withTransportAead(loadSodium(), chosen.aead);
  const member = findMemberAeads(options.memberAead, ownCiphers);
  const layout = pairs?.layoutPair(MAX_PEERS, RECEIVE_SLOTS) ??
    layoutArena(MAX_PEERS, receiveBytes(RECEIVE_SLOTS), SEALED_BYTES);
  /** of what this thread receives itself: behind the batches of the other one */
  const receiveAt = layout.receivedAt + (pairs?.batchesBytes(RECEIVE_SLOTS) ?? 0);
  const arena = makePacketMemory(layout.bytes, pairs !== undefined);
  const nowMs = makeBootClock();
  const counters = new DatapathCounters(init.counters);
  const tun = openTun({ name: options.tun, arena, offload: options.offload });
  const own = openUnderlay({
    port: options.wireguardPort,
    arena,
    receiveAt,
    slots: RECEIVE_SLOTS,
    bufferBytes: SOCKET_BUFFER_BYTES,
    segmentation: options.offload.udpGso,
    gro: options.offload.udpGro,
    ...(options.underlayMark !== undefined && { mark: options.underlayMark }),
  });
  const pair = pairs && init.offloads &&
    new pairs.Pair(arena, layout, RECEIVE_SLOTS, own, chosen.aead.name.startsWith("libcrypto"), init.offloads);
  const underlay = pair?.underlay ?? own;
  const ciphers = pair?.share(ownCiphers) ?? ownCiphers;
  if (pair !== undefined) emit({ op: "startCipher", start: pair.start });
  const seed = new Uint8Array(16);
  randomBytes(seed);
  const wireguard = new WireGuard({
    privateKey: options.privateKey,
    ciphers,
    random: randomBytes,
    arena,
    addressesAt: layout.addressesAt,
    maxPeers: layout.maxPeers,
    stampFloor: options.stampFloor,
    sendAeads: member.aeads,
    nowMs: nowMs(),
    unixMs: Date.now(),
  });
  if (options.keyLogFile !== undefined) {
    const path = options.keyLogFile;
    wireguard.onKeys = (line) => appendFileSync(path, line + "\n", { mode: 0o600 });
  }
  const waiter = new Waiter({ tunFd: tun.fd, underlayFds: pair === undefined ? own.fds : [pair.batches.fd] });
  let plain: UdpUnderlay | undefined;
  const openPlain: OpenPlain = ({ address, port }) => {
    plain = undefined; // the one before is closed
    waiter.watch([]);
    plain = openUnderlay({
      address,
      port,
      arena,
      receiveAt, // in turns with the other sockets: a batch is through before the next is received
      slots: RECEIVE_SLOTS,
      bufferBytes: SOCKET_BUFFER_BYTES,
      segmentation: options.offload.udpGso,
      gro: options.offload.udpGro,
      ...(options.underlayMark !== undefined && { mark: options.underlayMark }),
    });
    waiter.watch(plain.fds);
    return plain;
  };
  const datapath = new Datapath(
    {
      arena,
      layout,
      tun,
      underlay,
      cipher: ciphers.packetCipher(arena),
      wireguard,
      ipcache: new IpCache(),
      conntrack: new ConntrackTable(MAX_FLOWS, seed),
      policy: new PolicyTable(),
      counters,
      mtu: options.mtu,
      probesPaths: options.probesPaths ?? false,
      copiesDscp: options.copiesDscp ?? false,
      openPlain,
    },
    emit,
    nowMs,
  );
  const close = () => {
    tun.close();
    (pair ?? own).close();
    plain?.close();
  };
  /** Of the socket that packets go through. */
  const offloadFacts = (): OffloadFacts => ({
    ...tun.facts,
    ...(pair ?? own).facts,
    ...(datapath.node.plain.isOn && plain && { udpSegment: plain.facts.udpSegment, udpGro: plain.facts.udpGro }),
    aead: describeAead(chosen),
    memberAeads: member.aeads,
    memberAead: member.text,
  });
  pair?.awaitStart();
  emit({ op: "awake", wakeFd: waiter.wakeFd });
  emit({ op: "ready", tun: tun.name, port: underlay.port, offload: offloadFacts() });

  const drainCommands = (now: number): boolean => {
    for (;;) {
      const received = receiveMessageOnPort(init.commands) as { message: WorkerRequest } | undefined;
      if (received === undefined) return true;
      const request = received.message;
      if ("stop" in request) return false;
      if ("query" in request) emit({ op: "snapshot", query: request.query, snapshot: datapath.snapshot(now) });
      else if ("flows" in request) {
        const { flows: query, limit } = request;
        emit({ op: "flows", query, flows: limit === 0 ? [] : datapath.flows(now, Date.now(), limit) });
      } else for (const command of request.commands) datapath.apply(command, now);
    }
  };
  // Once, before the first packet: what opening and measuring left behind, 1.6 MB, would stay for the life of a quiet member.
  (globalThis as unknown as { readonly Bun?: { gc(isSync: boolean): void } }).Bun?.gc(true);
  const onOffloadChange = () => emit({ op: "offload", offload: offloadFacts() });
  let ended: string | undefined;
  try {
    ended = runLoop({ datapath, waiter, counters, nowMs, unixMs: Date.now, drainCommands, onOffloadChange });
  } finally {
    close(); // descriptors are the process's, not the thread's
  }
  if (ended !== undefined) {
    emit({ op: "fatal", code: "EDGE_DATAPATH_STOPPED", message: `The datapath stopped: ${ended}` });
  }
}

try {
  const init = workerData as WorkerInit;
  main(init, init.offloads && await import("./pair.ts"));
} catch (error) {
  const { code, message } = error as { code?: unknown; message?: unknown };
  emit({
    op: "fatal",
    code: typeof code === "string" ? code : "EDGE_DATAPATH_CRASHED",
    message: typeof message === "string" ? message : String(error),
  });
}
