/**
 * The underlay against itself: it sends to its own port over loopback, inside a network namespace of its own.
 */
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { SO_RCVBUF, SOL_SOCKET, SOL_UDP } from "../../ffi/constants.ts";
import { EAFNOSUPPORT, EINVAL, EMSGSIZE, ENETUNREACH } from "../../ffi/errno.ts";
import { openNetlink } from "../../ffi/netlink.ts";
import { READY_UNDERLAY, Waiter } from "../../ffi/poll.ts";
import { setIntOption } from "../../ffi/socket_option.ts";
import { makeArena } from "../../ffi/sodium.ts";
import { openUnderlay, receiveBytes, type UdpUnderlay, type UnderlayOptions } from "../../ffi/udp.ts";
import { parseAddress, parsePrefix } from "../../src/ip/address.ts";
import {
  equalUnderlayAddr,
  hasOwnAddress,
  OWN_ADDRESS_AT,
  UNDERLAY_ADDR_BYTES,
  writeUnderlayAddr,
} from "../../src/ip/underlay_addr.ts";
import { ALL_OFFLOADS, NO_OFFLOADS } from "../../src/offload/switches.ts";
import { runtime } from "../../ffi/runtime/index.ts";
import { SendErrors, SendQueue } from "../../ffi/udp_send.ts";
import { hasIpv6, noNetwork, runtimeName } from "./harness.ts";

const SLOTS = 8;
const SEND_AT = 1024;
const RECEIVE_AT = 1 << 18;
const SO_NO_CHECK = 11;
const UDP_NO_CHECK6_TX = 101;

interface Taken {
  readonly datagrams: string[];
  readonly runs: { bytes: number; segmentBytes: number; ecn: number; isTruncated: boolean; from: Uint8Array }[];
}

describe.skipIf(noNetwork)(`underlay on ${runtimeName}${noNetwork}`, () => {
  const open: { close(): void }[] = [];
  let arena: Uint8Array;
  beforeAll(() => setLoopback(65536));
  afterEach(() => {
    for (const each of open.splice(0)) each.close();
  });

  function setLoopback(mtu: number): void {
    const links = openNetlink();
    links.setLinkUp(links.findLink("lo")!.index, mtu);
    links.close();
  }

  function underlay(options: Partial<UnderlayOptions> = {}): UdpUnderlay {
    arena = options.arena ?? makeArena(RECEIVE_AT + receiveBytes(SLOTS));
    for (let i = SEND_AT; i < RECEIVE_AT; i++) arena[i] = (i * 31) >>> 3;
    const made = openUnderlay({
      port: 0,
      arena,
      receiveAt: RECEIVE_AT,
      slots: SLOTS,
      bufferBytes: 4 << 20,
      segmentation: true,
      ...options,
    });
    open.push(made);
    return made;
  }

  function writeTo(at: number, address: string, port: number): number {
    writeUnderlayAddr(arena, at, { address: parseAddress(address)!, port, scope: 0 });
    return at;
  }

  /** Receives until nothing has come for a while, or `count` datagrams are there. */
  function take(socket: UdpUnderlay, count: number): Taken {
    const waiter = new Waiter({ underlayFds: socket.fds });
    open.push(waiter);
    const taken: Taken = { datagrams: [], runs: [] };
    while (taken.datagrams.length < count && waiter.wait(1000) === READY_UNDERLAY) {
      const received = socket.receive();
      expect(received).toBeGreaterThanOrEqual(0);
      for (const run of socket.received.slice(0, received)) {
        const from = arena.slice(run.fromAt, run.fromAt + UNDERLAY_ADDR_BYTES);
        const { segmentBytes, ecn, isTruncated } = run;
        taken.runs.push({ bytes: run.end - run.at, segmentBytes, ecn, isTruncated, from });
        for (let at = run.at; at < run.end; at += segmentBytes) {
          taken.datagrams.push(textOf(at, Math.min(run.end, at + segmentBytes)));
        }
      }
    }
    return taken;
  }

  function textOf(at: number, end: number): string {
    return Array.from(arena.subarray(at, end), (octet) => String.fromCharCode(octet)).join("");
  }

  /** The datagrams that a run of `[at, end)` is. */
  function cut(at: number, end: number, segmentBytes: number): string[] {
    const pieces: string[] = [];
    for (let from = at; from < end; from += segmentBytes) pieces.push(textOf(from, Math.min(end, from + segmentBytes)));
    return pieces;
  }

  const families = [["IPv4", "127.0.0.1"], ...(hasIpv6 ? [["IPv6", "::1"]] : [])] as [string, string][];

  it.each(families)("a run of 40 datagrams over %s comes as one, with its address and ECN", (_, address) => {
    const socket = underlay();
    expect(socket.facts).toMatchObject({ udpSegment: "on", udpGro: "on", ipv6: hasIpv6 });
    expect(socket.maxSegments).toBeGreaterThan(40);
    const toAt = writeTo(0, address, socket.port);
    const end = SEND_AT + 39 * 1400 + 700;
    socket.queue(SEND_AT, end, 1400, toAt, 2);
    expect(socket.receive()).toBe(0);
    socket.flush();
    const taken = take(socket, 40);
    expect(taken.datagrams).toEqual(cut(SEND_AT, end, 1400));
    expect(taken.runs).toHaveLength(1);
    expect(taken.runs[0]).toMatchObject({ bytes: end - SEND_AT, segmentBytes: 1400, ecn: 2, isTruncated: false });
    // the source is the record that a send to it would use, unused octets included; and it knows whom it spoke to
    const own = parseAddress(address)!;
    arena.set(own, toAt + OWN_ADDRESS_AT);
    expect(equalUnderlayAddr(taken.runs[0]!.from, 0, arena, toAt)).toBe(true);
    expect(socket.sendErrorCount).toBe(0);
  });

  it.each(families)("single datagrams over %s keep their sizes and ECN bits, an empty one too", (_, address) => {
    const socket = underlay();
    const toAt = writeTo(0, address, socket.port);
    const sizes = [1, 32, 148, 1400, 9000, 65507, 0];
    sizes.forEach((bytes, i) => socket.queue(SEND_AT, SEND_AT + bytes, bytes, toAt, i & 3));
    socket.flush();
    const waiter = new Waiter({ underlayFds: socket.fds });
    open.push(waiter);
    const seen: [number, number][] = [];
    while (seen.length < sizes.length && waiter.wait(1000) === READY_UNDERLAY) {
      for (const run of socket.received.slice(0, socket.receive())) seen.push([run.end - run.at, run.ecn]);
    }
    expect(seen).toEqual(sizes.map((bytes, i) => [bytes, i & 3]));
  });

  it("a run is cut where the kernel's limits are: 64 datagrams, 65507 octets", () => {
    const socket = underlay();
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    socket.queue(SEND_AT, SEND_AT + 200 * 100, 100, toAt, 0);
    socket.queue(SEND_AT, SEND_AT + 100_000, 1400, toAt, 1);
    socket.flush();
    const taken = take(socket, 200 + 72);
    expect(taken.datagrams).toEqual([
      ...cut(SEND_AT, SEND_AT + 20_000, 100),
      ...cut(SEND_AT, SEND_AT + 100_000, 1400),
    ]);
    expect(socket.sendErrorCount).toBe(0);
  });

  it("with segmentation and merging off every datagram goes and comes alone", () => {
    const socket = underlay({ segmentation: false });
    expect(socket.facts).toMatchObject({ udpSegment: "off, by configuration", udpGro: "off, by configuration" });
    expect(socket.hasSegmentation).toBe(false);
    expect(socket.maxSegments).toBe(1);
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    socket.queue(SEND_AT, SEND_AT + 20 * 500, 500, toAt, 0);
    socket.flush();
    const taken = take(socket, 20);
    expect(taken.runs).toHaveLength(20);
    expect(taken.datagrams).toEqual(cut(SEND_AT, SEND_AT + 20 * 500, 500));
  });

  it("the queue flushes itself when it is full, and keeps the order", () => {
    const socket = underlay();
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    for (let i = 0; i < 150; i++) socket.queue(SEND_AT + i, SEND_AT + i + 8, 8, toAt, 0);
    const taken = take(socket, 128); // two queues full
    expect(taken.datagrams).toHaveLength(128);
    socket.flush();
    taken.datagrams.push(...take(socket, 22).datagrams);
    expect(taken.datagrams).toEqual(Array.from({ length: 150 }, (_, i) => textOf(SEND_AT + i, SEND_AT + i + 8)));
  });

  it("both families are received in one call, and neither starves the other", { skip: !hasIpv6 }, () => {
    const socket = underlay();
    const v4 = writeTo(0, "127.0.0.1", socket.port);
    const v6 = writeTo(64, "::1", socket.port);
    for (let i = 0; i < 3 * SLOTS; i++) socket.queue(SEND_AT + i, SEND_AT + i + 1, 1, v4, 0);
    socket.queue(SEND_AT, SEND_AT + 2, 2, v6, 0);
    socket.flush();
    const families: number[] = [];
    for (let calls = 0; calls < 2; calls++) {
      for (const run of socket.received.slice(0, socket.receive())) families.push(arena[run.fromAt]!);
    }
    expect(families).toContain(10);
    expect(families.filter((family) => family === 2).length).toBeGreaterThanOrEqual(SLOTS);
  });

  it("what cannot be sent is counted by errno, and does not stop what comes after", () => {
    const socket = underlay();
    const good = writeTo(0, "127.0.0.1", socket.port);
    const nowhere = writeTo(64, "192.0.2.1", 9);
    arena.fill(0, 128, 192); // no address at all
    socket.queue(SEND_AT, SEND_AT + 1, 1, good, 0);
    socket.queue(SEND_AT, SEND_AT + 2, 2, nowhere, 0);
    socket.queue(SEND_AT, SEND_AT + 10 * 300, 300, nowhere, 0);
    socket.queue(SEND_AT, SEND_AT + 3, 3, 128, 0);
    socket.queue(SEND_AT, SEND_AT + 65508, 65508, good, 0); // one more than fits
    socket.queue(SEND_AT, SEND_AT + 4, 4, good, 0);
    socket.flush();
    expect(take(socket, 2).datagrams).toEqual([textOf(SEND_AT, SEND_AT + 1), textOf(SEND_AT, SEND_AT + 4)]);
    expect([...socket.sendErrors].sort()).toEqual([[ENETUNREACH, 11], [EMSGSIZE, 1], [EAFNOSUPPORT, 1]].sort());
    expect(socket.sendErrorCount).toBe(13);
  });

  it("a run that the kernel refuses as such is sent one by one, each once, and runs are off from then on", () => {
    const socket = underlay();
    // without transmit checksums, runs get EINVAL
    expect(setIntOption(socket.fds[0]!, SOL_SOCKET, SO_NO_CHECK, 1)).toBe(0);
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    socket.queue(SEND_AT, SEND_AT + 5, 5, toAt, 0);
    socket.queue(SEND_AT, SEND_AT + 950, 100, toAt, 3);
    socket.queue(SEND_AT, SEND_AT + 1000, 200, toAt, 0);
    socket.queue(SEND_AT, SEND_AT + 6, 6, toAt, 0);
    socket.flush();
    const expected = [
      textOf(SEND_AT, SEND_AT + 5),
      ...cut(SEND_AT, SEND_AT + 950, 100),
      ...cut(SEND_AT, SEND_AT + 1000, 200),
      textOf(SEND_AT, SEND_AT + 6),
    ];
    const taken = take(socket, expected.length);
    expect(taken.datagrams).toEqual(expected);
    expect(taken.runs[1]!.ecn).toBe(3);
    expect(socket.sendErrorCount).toBe(0);
    expect(socket.facts.udpSegment).toMatch(hasIpv6 ? /^on for IPv6; off for IPv4, .*EINVAL/ : /^off, .*EINVAL/);

    socket.queue(SEND_AT, SEND_AT + 950, 100, toAt, 0);
    socket.flush();
    expect(take(socket, 10).datagrams).toEqual(cut(SEND_AT, SEND_AT + 950, 100));
    expect(socket.sendErrors.get(EINVAL)).toBeUndefined();
  });

  it("answers come from the address that was spoken to, runs and single ones, until it goes", () => {
    const links = openNetlink();
    const lo = links.findLink("lo")!.index;
    const other = parsePrefix("10.66.0.1/32")!;
    links.addAddress(lo, other);
    try {
      const socket = underlay();
      const second = writeTo(0, "10.66.0.1", socket.port);
      socket.queue(SEND_AT, SEND_AT + 5, 5, second, 0);
      socket.flush();
      const heard = take(socket, 1).runs[0]!.from;
      expect([...heard.subarray(OWN_ADDRESS_AT, OWN_ADDRESS_AT + 4)]).toEqual([10, 66, 0, 1]);
      // an answer to somebody elsewhere on the machine
      const toAt = writeTo(128, "127.0.0.1", socket.port);
      arena.set(heard.subarray(OWN_ADDRESS_AT), toAt + OWN_ADDRESS_AT);
      const sendBoth = () => {
        socket.queue(SEND_AT, SEND_AT + 950, 100, toAt, 2);
        socket.queue(SEND_AT, SEND_AT + 7, 7, toAt, 0);
        socket.flush();
        return take(socket, 11);
      };
      const sticky = sendBoth();
      expect(sticky.datagrams).toEqual([...cut(SEND_AT, SEND_AT + 950, 100), textOf(SEND_AT, SEND_AT + 7)]);
      expect(sticky.runs.map((run) => [...run.from.subarray(4, 8)])).toEqual([[10, 66, 0, 1], [10, 66, 0, 1]]);
      expect(sticky.runs[0]).toMatchObject({ segmentBytes: 100, ecn: 2 });
      expect(hasOwnAddress(arena, toAt)).toBe(true);

      links.removeAddress(lo, other);
      const free = sendBoth();
      expect(free.datagrams).toEqual(sticky.datagrams);
      expect(free.runs.map((run) => [...run.from.subarray(4, 8)])).toEqual([[127, 0, 0, 1], [127, 0, 0, 1]]);
      expect(free.runs[0]).toMatchObject({ segmentBytes: 100, ecn: 2 }); // still a run: it was not to blame
      expect(hasOwnAddress(arena, toAt)).toBe(false);
      expect(socket.facts.udpSegment).toBe("on");
      expect(socket.sendErrorCount).toBe(0);
    } finally {
      links.close();
    }
  });

  it("answers over IPv6 come from the address that was spoken to, until it goes", { skip: !hasIpv6 }, () => {
    const links = openNetlink();
    const lo = links.findLink("lo")!.index;
    const other = parsePrefix("fd66::1/128")!;
    links.addAddress(lo, other);
    try {
      const socket = underlay();
      const toAt = writeTo(0, "::1", socket.port);
      arena.set(other.address, toAt + OWN_ADDRESS_AT);
      for (const expected of [other.address, parseAddress("::1")!]) {
        socket.queue(SEND_AT, SEND_AT + 950, 100, toAt, 3);
        socket.flush();
        const taken = take(socket, 10);
        expect(taken.datagrams).toEqual(cut(SEND_AT, SEND_AT + 950, 100));
        expect(taken.runs).toHaveLength(1);
        expect(taken.runs[0]!.ecn).toBe(3);
        expect([...taken.runs[0]!.from.subarray(8, 24)]).toEqual([...expected]);
        if (expected === other.address) links.removeAddress(lo, other);
      }
      expect(socket.sendErrorCount).toBe(0);
    } finally {
      links.close();
    }
  });

  it("runs of equal datagrams get a filler where the kernel would damage them; short ones go singly", () => {
    const socket = underlay();
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    const errors = new SendErrors();
    const fd = socket.fds[0]!;
    const queue = new SendQueue(
      { fd, family: 2, segmentOff: undefined, needsFiller: true },
      arena,
      runtime().pointerOf(arena),
      errors,
    );
    const send = (bytes: number, segmentBytes: number, count: number) => {
      queue.queue(SEND_AT, SEND_AT + bytes, segmentBytes, toAt, 0);
      queue.flush();
      return take(socket, count);
    };
    const filler = String.fromCharCode(7);
    const filled = send(800, 100, 9);
    expect(filled.datagrams).toEqual([...cut(SEND_AT, SEND_AT + 800, 100), filler]);
    expect(filled.runs).toHaveLength(1);
    expect(send(700, 100, 7).runs).toHaveLength(7); // not worth a filler
    expect(send(750, 100, 8).runs).toHaveLength(1); // not all equal: no damage
    expect(send(100, 100, 1).runs).toHaveLength(1);
    const long = send(64 * 100 + 900, 100, 64 + 1 + 9 + 1);
    expect(long.datagrams.filter((text) => text === filler)).toHaveLength(2);
    expect(long.datagrams.filter((text) => text !== filler)).toEqual(cut(SEND_AT, SEND_AT + 7300, 100));
    expect(errors.total).toBe(0);
  });

  it("segmentation and merging are switched while it is open", () => {
    const socket = underlay();
    const toAt = writeTo(0, "127.0.0.1", socket.port);
    const runsOf = () => {
      socket.queue(SEND_AT, SEND_AT + 800, 100, toAt, 0);
      socket.flush();
      return take(socket, 8).runs.length;
    };
    expect(runsOf()).toBe(1);
    const before = socket.offloadChanges;
    socket.switchOffload({ ...ALL_OFFLOADS, udpGro: false });
    expect(socket.facts).toMatchObject({ udpSegment: "on", udpGro: "off, by configuration" });
    expect(runsOf()).toBe(8);
    socket.switchOffload(NO_OFFLOADS);
    expect(socket.maxSegments).toBe(1);
    expect(runsOf()).toBe(8);
    socket.switchOffload(ALL_OFFLOADS);
    expect(socket.facts).toMatchObject({ udpSegment: "on", udpGro: "on" });
    expect(runsOf()).toBe(1);
    expect(socket.offloadChanges).toBe(before + 3);
  });

  it.each(families)("what was merged over %s before merging went off is received whole", (_, address) => {
    const socket = underlay();
    const toAt = writeTo(0, address, socket.port);
    const end = SEND_AT + 800;
    const sendRun = () => {
      socket.queue(SEND_AT, end, 100, toAt, 0);
      socket.flush();
    };
    for (let i = 0; i < SLOTS + 2; i++) sendRun();
    socket.switchOffload({ ...ALL_OFFLOADS, udpGro: false });
    expect(socket.facts).toMatchObject({ udpGro: "off, by configuration" });
    const taken = take(socket, 8 * (SLOTS + 2));
    expect(taken.runs.map((run) => run.segmentBytes)).toEqual(new Array(SLOTS + 2).fill(100));
    expect(taken.datagrams).toEqual(new Array(SLOTS + 2).fill(cut(SEND_AT, end, 100)).flat());
    expect(socket.receive()).toBe(0);
    sendRun();
    expect(take(socket, 8).runs).toHaveLength(8);
    for (const udpGro of [false, true]) socket.switchOffload({ ...ALL_OFFLOADS, udpGro });
    sendRun();
    expect(take(socket, 8).runs).toHaveLength(1);
  });

  it.each(families)("a run above the route's MTU over %s is sent one by one, in fragments", (_, address) => {
    const socket = underlay();
    setLoopback(1280);
    try {
      const toAt = writeTo(0, address, socket.port);
      socket.queue(SEND_AT, SEND_AT + 3 * 1400, 1400, toAt, 0);
      socket.flush();
      expect(take(socket, 3).datagrams).toEqual(cut(SEND_AT, SEND_AT + 3 * 1400, 1400));
      expect(socket.facts.udpSegment).toBe("on");
      expect(socket.sendErrorCount).toBe(0);
    } finally {
      setLoopback(65536);
    }
  });

  it("has one port in both families, and a port that is taken is EDGE_UDP_IN_USE", () => {
    const socket = underlay();
    expect(socket.port).toBeGreaterThan(0);
    expect(socket.fds).toHaveLength(hasIpv6 ? 2 : 1);
    expect(() => underlay({ port: socket.port })).toThrow(
      expect.objectContaining({
        code: "EDGE_UDP_IN_USE",
        message: expect.stringContaining(`Cannot open UDP port ${socket.port}: another process has it`),
      }),
    );
    const port = socket.port;
    socket.close();
    open.splice(0);
    expect(underlay({ port }).port).toBe(port);
  });

  it("gets buffers of at least the system's default, marks its packets, and refuses what is out of range", () => {
    const socket = underlay({ mark: 0xe4, bufferBytes: 1 << 20 });
    expect(socket.facts.receiveBufferBytes).toBeGreaterThanOrEqual(1 << 17);
    expect(socket.facts.sendBufferBytes).toBeGreaterThanOrEqual(1 << 17);
    expect(setIntOption(socket.fds[0]!, SOL_SOCKET, SO_RCVBUF, 1 << 16)).toBe(0);
    expect(() => socket.queue(0, arena.length + 1, 1400, 0, 0)).toThrow(RangeError);
    expect(() => socket.queue(0, 10, 0, 0, 0)).toThrow(RangeError);
    expect(() => socket.queue(0, 10, 10, arena.length - UNDERLAY_ADDR_BYTES + 1, 0)).toThrow(RangeError);
    expect(() => underlay({ port: 65536 })).toThrow(RangeError);
    expect(() => underlay({ receiveAt: RECEIVE_AT + 8 })).toThrow(RangeError);
    expect(() => underlay({ receiveAt: 4 })).toThrow(RangeError);
    expect(() => underlay({ slots: 0 })).toThrow(RangeError);
  });

  it.each(families)("bound to an address of %s there is one socket, with that address as source", (name, address) => {
    const any = underlay();
    const bound = underlay({ arena, address: parseAddress(address)! });
    expect([bound.fds.length, bound.facts.ipv6, bound.facts.udpSegment]).toEqual([1, name === "IPv6", "on"]);
    const toAt = writeTo(0, address, any.port);
    bound.queue(SEND_AT, SEND_AT + 2800, 1400, toAt, 0x88);
    bound.flush();
    const waiter = new Waiter({ underlayFds: any.fds });
    open.push(waiter);
    expect(waiter.wait(1000)).toBe(READY_UNDERLAY);
    expect(() => underlay({ arena, address: parseAddress(address)!, port: bound.port })).toThrow(/EADDRINUSE/);
    const elsewhere = name === "IPv6" ? "2001:db8::1" : "192.0.2.1";
    expect(() => underlay({ arena, address: parseAddress(elsewhere)! })).toThrow(/bind to .*EADDRNOTAVAIL/);
    const other = writeTo(64, name === "IPv6" ? "127.0.0.1" : "::1", any.port);
    bound.queue(SEND_AT, SEND_AT + 10, 10, other, 0);
    bound.flush();
    expect(bound.sendErrors.get(EAFNOSUPPORT)).toBe(1);
    const backAt = writeTo(64, address, bound.port);
    any.queue(SEND_AT, SEND_AT + 2800, 1400, backAt, 0);
    any.flush();
    const taken = take(bound, 2);
    expect(taken.datagrams).toEqual(cut(SEND_AT, SEND_AT + 2800, 1400));
    expect(equalUnderlayAddr(taken.runs[0]!.from, 0, arena, writeTo(96, address, any.port))).toBe(true);
  });

  it.skipIf(!hasIpv6)("one for a tunnel takes datagrams without a checksum over IPv6, the others do not", () => {
    const sender = underlay();
    const [any, bound] = [underlay({ arena }), underlay({ arena, address: parseAddress("::1")! })];
    for (const fd of sender.fds) setIntOption(fd, SOL_UDP, UDP_NO_CHECK6_TX, 1);
    for (const socket of [any, bound]) {
      sender.queue(SEND_AT, SEND_AT + 10, 10, writeTo(0, "::1", socket.port), 0);
      sender.flush();
    }
    expect(take(bound, 1).datagrams).toHaveLength(1);
    expect(any.receive()).toBe(0);
  });

  it.each([["127.0.0.1", 28], ["::1", 48]])(
    "to %s a probe goes whole or not at all, and others are fragmented as before",
    (address, headers) => {
      if (headers === 48 && !hasIpv6) return;
      const socket = underlay();
      const to = writeTo(0, address, socket.port);
      setLoopback(1500);
      try {
        const fits = SEND_AT + 1500 - headers;
        expect(socket.sendWhole(SEND_AT, fits, to)).toBe(0);
        expect(socket.sendWhole(SEND_AT, fits + 1, to)).toBe(-EMSGSIZE);
        for (let i = 0; i < 2; i++) socket.queue(SEND_AT + i, SEND_AT + i + 4000, 4000, to, 0);
        socket.flush();
        const expected = [[SEND_AT, fits], [SEND_AT, SEND_AT + 4000], [SEND_AT + 1, SEND_AT + 4001]] as const;
        expect(take(socket, 3).datagrams).toEqual(expected.map(([at, end]) => textOf(at, end)));
        expect([socket.sendErrorCount, socket.takeTooBig()]).toEqual([0, -1]);

        // a run is never fragmented: it goes singly, and whose it was is told
        socket.queue(SEND_AT, SEND_AT + 5000, 2000, to, 0);
        socket.flush();
        expect(take(socket, 3).datagrams).toEqual(cut(SEND_AT, SEND_AT + 5000, 2000));
        expect([socket.takeTooBig(), socket.takeTooBig()]).toEqual([to, -1]);
        expect(socket.sendErrorCount).toBe(0);
      } finally {
        setLoopback(65536);
      }
    },
  );

  it("a probe to nowhere answers why, and one outside of the arena is refused", () => {
    const socket = underlay();
    expect(socket.sendWhole(SEND_AT, SEND_AT + 10, writeTo(64, "192.0.2.1", 9))).toBe(-ENETUNREACH);
    expect(socket.sendErrorCount).toBe(0);
    expect(() => socket.sendWhole(-1, 10, 64)).toThrow(RangeError);
  });

  it("a peer that answers with ICMP port unreachable does not disturb sends to others", () => {
    const socket = underlay();
    const dead = writeTo(0, "127.0.0.1", 9);
    const live = writeTo(64, "127.0.0.1", socket.port);
    for (let i = 0; i < 20; i++) {
      socket.queue(SEND_AT + i, SEND_AT + i + 4, 4, dead, 0);
      socket.queue(SEND_AT + i, SEND_AT + i + 4, 4, live, 0);
      socket.flush();
    }
    expect(take(socket, 20).datagrams).toHaveLength(20);
    expect(socket.receive()).toBe(0);
    expect(socket.sendErrorCount).toBe(0);
  });
});
