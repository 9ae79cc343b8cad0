import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConntrackTable, OWN_FLOWS } from "../../../src/conntrack/table.ts";
import { FORWARD } from "../../../src/verdict.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import {
  A4,
  A6,
  B4,
  B6,
  icmpPacket,
  type PacketFields,
  rawPacket,
  tcpPacket,
  udpPacket,
} from "../../support/inner_packets.ts";

const SEED = Uint8Array.from({ length: 16 }, (_, i) => 17 * i + 3);
const INGRESS = 0, EGRESS = 1;
const FIN = 1, SYN = 2, RST = 4, ACK = 16;

/** A table with a clock, fed with whole packets. */
class Bench {
  readonly table: ConntrackTable;
  nowMs = 1_000_000;
  constructor(capacity = 64) {
    this.table = new ConntrackTable(capacity, SEED);
  }
  read(bytes: Uint8Array): PacketInfo {
    const packet = new PacketInfo();
    expect(readPacket(bytes, 0, bytes.length, packet)).toBe(FORWARD);
    return packet;
  }
  find(bytes: Uint8Array): "none" | "forward" | "reply" {
    const flow = this.table.find(bytes, this.read(bytes), this.nowMs);
    return flow < 0 ? "none" : this.table.isReply ? "reply" : "forward";
  }
  related(bytes: Uint8Array): "none" | "forward" | "reply" {
    const flow = this.table.findRelated(bytes, this.read(bytes), this.nowMs);
    return flow < 0 ? "none" : this.table.isReply ? "reply" : "forward";
  }
  open(bytes: Uint8Array, direction = EGRESS, owner = 0): number {
    return this.table.insert(bytes, this.read(bytes), direction, 70_000, 1, this.nowMs, owner);
  }
  /** What the datapath does with a packet that policy allows. */
  pass(bytes: Uint8Array, direction = EGRESS, owner = 0): "opened" | "full" | "forward" | "reply" {
    const packet = this.read(bytes);
    const flow = this.table.find(bytes, packet, this.nowMs);
    if (flow < 0) return this.open(bytes, direction, owner) < 0 ? "full" : "opened";
    const relation = this.table.isReply ? "reply" : "forward";
    this.table.touch(flow, packet, this.nowMs);
    return relation;
  }
  wait(seconds: number) {
    this.nowMs += seconds * 1000;
  }
}

const there = (flags: number, more: PacketFields = {}) => tcpPacket({ flags, ...more });
const back = (flags: number, more: PacketFields = {}) =>
  tcpPacket({ flags, source: B4, destination: A4, sourcePort: 80, destinationPort: 40000, ...more });
const udpThere = (more: PacketFields = {}) => udpPacket(more);
const udpBack = (more: PacketFields = {}) =>
  udpPacket({ source: B4, destination: A4, sourcePort: 443, destinationPort: 40000, ...more });

function shakeHands(bench: Bench) {
  expect([bench.pass(there(SYN)), bench.pass(back(SYN | ACK)), bench.pass(there(ACK))]).toEqual([
    "opened",
    "reply",
    "forward",
  ]);
}

describe("ConntrackTable: flows and their directions", () => {
  it("finds a flow in both directions, and tells which one a packet has", () => {
    const bench = new Bench();
    expect(bench.find(udpThere())).toBe("none");
    bench.open(udpThere());
    expect(bench.find(udpThere())).toBe("forward");
    expect(bench.find(udpBack())).toBe("reply");
  });

  it.each([
    ["another source port", udpThere({ sourcePort: 40001 })],
    ["another destination port", udpThere({ destinationPort: 444 })],
    ["another destination", udpThere({ destination: [10, 8, 0, 3] })],
    ["another source", udpThere({ source: [10, 8, 0, 3] })],
    ["another protocol", tcpPacket({ destinationPort: 443 })],
    ["ports swapped, addresses not", udpThere({ sourcePort: 443, destinationPort: 40000 })],
    ["addresses swapped, ports not", udpThere({ source: B4, destination: A4 })],
  ])("takes a packet for another flow when it has %s", (_, packet) => {
    const bench = new Bench();
    bench.open(udpThere());
    expect(bench.find(packet)).toBe("none");
  });

  it("tracks IPv6, and compares all of its octets", () => {
    const bench = new Bench();
    bench.open(udpPacket({ source: A6, destination: B6 }));
    const reply = { source: B6, destination: A6, sourcePort: 443, destinationPort: 40000 };
    expect(bench.find(udpPacket(reply))).toBe("reply");
    for (let i = 0; i < 16; i++) {
      const source = B6.map((octet, at) => at === i ? octet ^ 0x40 : octet);
      expect(bench.find(udpPacket({ ...reply, source }))).toBe("none");
    }
  });

  it("tells the direction of a flow between two ports of one address", () => {
    const bench = new Bench();
    bench.open(udpThere({ destination: A4 }));
    expect(bench.find(udpThere({ destination: A4 }))).toBe("forward");
    expect(bench.find(udpThere({ destination: A4, sourcePort: 443, destinationPort: 40000 }))).toBe("reply");
  });

  it("answers an echo request with its reply, but never takes a request for a reply", () => {
    for (const [A, B, request, reply] of [[A4, B4, 8, 0], [A6, B6, 128, 129]] as const) {
      const bench = new Bench();
      const there = { source: [...A], destination: [...B] }, back = { source: [...B], destination: [...A] };
      bench.open(icmpPacket(request, 0, 7 << 16 | 1, there));
      expect(bench.find(icmpPacket(request, 0, 7 << 16 | 2, there))).toBe("forward");
      expect(bench.find(icmpPacket(reply, 0, 7 << 16 | 2, back))).toBe("reply");
      expect(bench.find(icmpPacket(request, 0, 7 << 16 | 2, back))).toBe("none");
      expect(bench.find(icmpPacket(reply, 0, 8 << 16 | 2, back))).toBe("none");
      expect(bench.find(icmpPacket(reply, 0, 7 << 16 | 2, there))).toBe("none");
    }
  });

  it("never takes an echo request for the reply to an echo reply that came unasked", () => {
    const bench = new Bench();
    bench.open(icmpPacket(0, 0, 7 << 16));
    expect(bench.find(icmpPacket(0, 0, 7 << 16))).toBe("forward");
    expect(bench.find(icmpPacket(8, 0, 7 << 16, { source: B4, destination: A4 }))).toBe("none");
    expect(bench.find(icmpPacket(0, 0, 7 << 16, { source: B4, destination: A4 }))).toBe("none");
  });

  it("keeps other ICMP types apart, one way each", () => {
    const bench = new Bench();
    bench.open(icmpPacket(13, 0, 1));
    expect(bench.find(icmpPacket(13, 0, 2))).toBe("forward");
    expect(bench.find(icmpPacket(14, 0, 1, { source: B4, destination: A4 }))).toBe("none");
    expect(bench.find(icmpPacket(13, 0, 1, { source: B4, destination: A4 }))).toBe("none");
    expect(bench.find(icmpPacket(15, 0, 1))).toBe("none");
  });

  it("keeps who opened it, identity, revision and rule, and counts both directions", () => {
    const bench = new Bench();
    const flow = bench.open(udpBack(), INGRESS);
    bench.pass(udpThere({ payload: new Uint8Array(10) }));
    bench.pass(udpBack());
    expect([bench.table.directionOf(flow), bench.table.identityOf(flow), bench.table.revisionOf(flow)]).toEqual([
      INGRESS,
      70_000,
      1,
    ]);
    bench.table.setJudged(flow, 9_000_000_000, 70_000);
    bench.table.setRule(flow, 12);
    expect([...bench.table.flows(bench.nowMs)]).toEqual([{
      protocol: 17,
      isEcho: false,
      lastSeenSeconds: 1000,
      opener: Uint8Array.from(B4),
      responder: Uint8Array.from(A4),
      openerPort: 443,
      responderPort: 40000,
      direction: INGRESS,
      state: "established",
      identity: 70_000,
      rule: 12,
      revision: 9_000_000_000,
      packets: 2,
      replyPackets: 1,
      bytes: 56,
      replyBytes: 38,
      expiresAtSeconds: 1060,
    }]);
  });

  it("lists IPv6 flows with whole addresses", () => {
    const bench = new Bench();
    bench.open(udpPacket({ source: B6, destination: A6 }));
    const [flow] = [...bench.table.flows(bench.nowMs)];
    expect([flow!.opener, flow!.responder]).toEqual([Uint8Array.from(B6), Uint8Array.from(A6)]);
  });

  it("forgets a removed flow", () => {
    const bench = new Bench();
    const flow = bench.open(udpThere());
    bench.table.remove(flow);
    expect(bench.find(udpThere())).toBe("none");
    expect(bench.table.size).toBe(0);
  });

  it("replaces a flow that is inserted again, with the new opener", () => {
    const bench = new Bench();
    bench.open(udpThere());
    bench.open(udpBack(), INGRESS);
    expect(bench.table.size).toBe(1);
    expect(bench.find(udpThere())).toBe("reply");
  });
});

describe("ConntrackTable: lifetimes", () => {
  it("forgets a UDP flow after 60 silent seconds, not before, and each packet starts them anew", () => {
    const bench = new Bench();
    bench.open(udpThere());
    bench.wait(59);
    expect(bench.pass(udpBack())).toBe("reply");
    bench.wait(59);
    expect(bench.find(udpThere())).toBe("forward");
    bench.wait(1);
    expect(bench.find(udpThere())).toBe("none");
  });

  it("keeps a TCP flow for six hours after its handshake", () => {
    const bench = new Bench();
    shakeHands(bench);
    bench.wait(21_599);
    expect(bench.find(back(ACK))).toBe("reply");
    bench.wait(1);
    expect(bench.find(back(ACK))).toBe("none");
  });

  it("keeps a handshake that was not finished for one minute only: SYN, or SYN and SYN-ACK", () => {
    for (const packets of [[there(SYN)], [there(SYN), back(SYN | ACK)], [there(SYN), back(SYN | ACK), there(SYN)]]) {
      const bench = new Bench();
      for (const packet of packets) bench.pass(packet);
      bench.wait(60);
      expect(bench.find(there(ACK))).toBe("none");
    }
  });

  it("keeps a closed flow for ten seconds: FIN from both sides, or a RST from either", () => {
    for (const packets of [[there(FIN | ACK), back(FIN | ACK)], [there(RST)], [back(RST | ACK)]]) {
      const bench = new Bench();
      shakeHands(bench);
      for (const packet of packets) bench.pass(packet);
      expect([...bench.table.flows(bench.nowMs)][0]!.state).toBe("closing");
      bench.wait(9);
      expect(bench.find(there(ACK))).toBe("forward");
      bench.wait(1);
      expect(bench.find(there(ACK))).toBe("none");
    }
  });

  it("keeps a half-closed flow alive", () => {
    const bench = new Bench();
    shakeHands(bench);
    bench.pass(there(FIN | ACK));
    bench.wait(3600);
    expect(bench.find(back(ACK))).toBe("reply");
  });

  it("lets the opener use the ports of a closed flow again, from the start", () => {
    const bench = new Bench();
    shakeHands(bench);
    bench.pass(there(RST));
    expect(bench.pass(there(SYN))).toBe("forward");
    bench.wait(59);
    expect(bench.find(back(SYN | ACK))).toBe("reply");
    bench.wait(1);
    expect(bench.find(back(SYN | ACK))).toBe("none");
  });

  it("does not let the other side open a flow in the shadow of a closed one", () => {
    const bench = new Bench();
    shakeHands(bench);
    bench.pass(there(RST));
    expect(bench.find(back(SYN))).toBe("none");
    expect(bench.table.size).toBe(0);
  });

  it("lets both sides open at the same moment (RFC 9293 §3.5)", () => {
    const bench = new Bench();
    bench.pass(there(SYN));
    expect(bench.find(back(SYN))).toBe("reply");
  });

  it("expires flows in bounded steps, without being asked for them", () => {
    const bench = new Bench(100);
    for (let i = 0; i < 100; i++) bench.open(udpThere({ sourcePort: 1000 + i }));
    expect(bench.table.expire(bench.nowMs, 1000)).toBe(0);
    bench.wait(60);
    expect(bench.table.expire(bench.nowMs, 30)).toBe(30);
    expect(bench.table.size).toBe(70);
    expect(bench.table.expire(bench.nowMs, 1000)).toBe(70);
    expect(bench.table.expire(bench.nowMs, 1000)).toBe(0);
  });

  it("expires in time what became shorter, and what lies beyond the wheel", () => {
    const bench = new Bench();
    shakeHands(bench);
    bench.pass(there(ACK, { sourcePort: 1 }));
    bench.pass(back(ACK, { destinationPort: 1 }));
    bench.pass(there(ACK, { sourcePort: 1 }));
    bench.pass(there(RST, { sourcePort: 1 }));
    const sizes: number[] = [];
    for (let second = 0; second <= 21_600; second++) {
      bench.table.expire(bench.nowMs, 10);
      sizes.push(bench.table.size);
      bench.wait(1);
    }
    expect(sizes.indexOf(1)).toBe(10);
    expect(sizes.indexOf(0)).toBe(21_600);
  });

  it("expires everything after a sleep of days", () => {
    const bench = new Bench();
    for (let i = 0; i < 50; i++) {
      bench.open(udpThere({ sourcePort: 1000 + i }));
      bench.wait(i);
    }
    bench.wait(400_000);
    expect(bench.table.expire(bench.nowMs, 64)).toBe(50);
  });
});

describe("ConntrackTable: ICMP errors", () => {
  const quoted = (packet: Uint8Array, bytes = 28) => packet.subarray(0, bytes);
  const errorBack = (payload: Uint8Array, more: PacketFields = {}) =>
    icmpPacket(3, 4, 1300, { source: [10, 9, 9, 9], destination: A4, payload, ...more });

  it("relates an error to the flow whose packet it quotes, from any router, with 8 octets of transport header", () => {
    const bench = new Bench();
    bench.open(udpThere());
    expect(bench.related(errorBack(quoted(udpThere())))).toBe("reply");
    expect(bench.related(errorBack(quoted(udpThere()), { source: B4 }))).toBe("reply");
    expect(bench.related(errorBack(quoted(udpBack()), { destination: B4 }))).toBe("forward");
  });

  it("does the same for TCP, echo and IPv6", () => {
    const bench = new Bench();
    bench.open(there(SYN));
    bench.open(icmpPacket(8, 0, 7 << 16));
    const v6 = udpPacket({ source: A6, destination: B6 });
    bench.open(v6);
    expect(bench.related(errorBack(quoted(there(ACK))))).toBe("reply");
    expect(bench.related(errorBack(quoted(icmpPacket(8, 0, 7 << 16 | 9))))).toBe("reply");
    const tooBig = { source: B6, destination: A6, payload: v6.subarray(0, 48) };
    expect(bench.related(icmpPacket(2, 0, 1280, tooBig))).toBe("reply");
  });

  it.each([
    ["no flow has the ports it quotes", errorBack(quoted(udpThere({ sourcePort: 9 })))],
    ["it goes to somebody else than the quoted sender", errorBack(quoted(udpThere()), { destination: B4 })],
    ["it quotes the packet in the wrong direction", errorBack(quoted(udpBack()))],
    ["the quotation is cut within the ports", errorBack(quoted(udpThere(), 27))],
    ["the quotation is cut within the IP header", errorBack(quoted(udpThere(), 19))],
    ["it quotes nothing", errorBack(new Uint8Array(0))],
    ["it quotes a later fragment", errorBack(quoted(udpThere({ fragment: 5 })))],
    ["it quotes another version", errorBack(udpPacket({ source: A6, destination: B6 }))],
    ["it quotes an error", errorBack(quoted(icmpPacket(3, 1, 0)))],
    ["it quotes a protocol without ports", errorBack(quoted(rawPacket(47, { payload: new Uint8Array(8) })))],
  ])("relates an error to nothing when %s", (_, packet) => {
    const bench = new Bench();
    bench.open(udpThere());
    expect(bench.related(packet)).toBe("none");
  });

  it("survives any quotation", () => {
    const bench = new Bench();
    bench.open(udpThere());
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), fc.boolean(), (payload, isV6) => {
      const addresses = isV6 ? { source: B6, destination: A6 } : { source: B4, destination: A4 };
      bench.related(icmpPacket(isV6 ? 1 : 3, 0, 0, { ...addresses, payload }));
    }));
  });
});

describe("ConntrackTable: when it is full", () => {
  it("evicts what is closing before what is unanswered before what is answered, and the oldest of its kind", () => {
    const bench = new Bench(4);
    const udp = (port: number) => udpThere({ sourcePort: port });
    const openedOrder = [1, 2, 3].map((port) => udp(port));
    bench.pass(openedOrder[0]!);
    bench.pass(udpBack({ destinationPort: 1 })); // 1 is answered
    bench.wait(1);
    bench.pass(openedOrder[1]!);
    bench.wait(1);
    bench.pass(openedOrder[2]!);
    shakeHands(bench);
    bench.pass(there(RST)); // closing
    expect(bench.pass(udp(4))).toBe("opened");
    expect(bench.find(there(ACK))).toBe("none");
    bench.pass(udpBack({ destinationPort: 4 }));
    expect(bench.pass(udp(5))).toBe("opened");
    expect(bench.find(udp(2))).toBe("none");
    bench.pass(udpBack({ destinationPort: 5 }));
    expect(bench.pass(udp(6))).toBe("opened");
    expect(bench.find(udp(3))).toBe("none");
    bench.pass(udpBack({ destinationPort: 6 }));
    expect(bench.pass(udp(7))).toBe("opened");
    expect(bench.find(udp(1))).toBe("none");
    expect(bench.table.evictions).toBe(4);
    expect(bench.table.size).toBe(4);
  });

  it("refuses a new flow rather than cut a busy TCP connection, and takes a silent one after five minutes", () => {
    const bench = new Bench(1);
    shakeHands(bench);
    expect(bench.pass(udpThere())).toBe("full");
    bench.wait(300);
    expect(bench.pass(udpThere())).toBe("full");
    bench.wait(1);
    expect(bench.pass(udpThere())).toBe("opened");
    expect(bench.find(there(ACK))).toBe("none");
  });

  it("holds as many flows as its capacity says, for any seed", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), (seed) => {
        const table = new ConntrackTable(1000, seed);
        const packet = new PacketInfo();
        for (let i = 0; i < 1000; i++) {
          const bytes = udpThere({ sourcePort: 1 + i });
          readPacket(bytes, 0, bytes.length, packet);
          table.insert(bytes, packet, EGRESS, 1, 1, 0, 0);
        }
        expect(table.size).toBe(1000);
        expect(table.evictions).toBe(0);
      }),
      { numRuns: 20 },
    );
  });

  describe("of one peer's flows", () => {
    const CAPACITY = 1024;
    const hostOf = (owner: number) => [10, 9, owner >> 8, owner & 255];
    const tcpOf = (owner: number, sourcePort: number, flags: number) =>
      there(flags, { source: hostOf(owner), destination: B4, sourcePort });
    const tcpTo = (owner: number, destinationPort: number, flags: number) =>
      back(flags, { source: B4, destination: hostOf(owner), destinationPort });

    /** Opens a connection and finishes its handshake. */
    function connect(bench: Bench, owner: number, port: number): boolean {
      if (bench.pass(tcpOf(owner, port, SYN), INGRESS, owner) === "full") return false;
      bench.pass(tcpTo(owner, port, SYN | ACK));
      bench.pass(tcpOf(owner, port, ACK));
      return true;
    }

    function ask(bench: Bench, owner: number, port: number, isAnswered: boolean): boolean {
      const ends = { source: hostOf(owner), destination: B4 };
      if (bench.pass(udpThere({ ...ends, sourcePort: port }), INGRESS, owner) === "full") return false;
      if (isAnswered) bench.pass(udpBack({ source: B4, destination: ends.source, destinationPort: port }));
      return true;
    }

    const isConnected = (bench: Bench, owner: number, port: number) => bench.find(tcpOf(owner, port, ACK)) !== "none";

    it("lets others connect all the same, and cuts no more than a few for each of them", () => {
      const bench = new Bench(CAPACITY);
      for (let i = 0; i < CAPACITY; i++) expect(connect(bench, 1, 1 + i)).toBe(true);
      expect(connect(bench, 1, 5000)).toBe(false);
      let connected = 0;
      for (let i = 0; i < 200; i++) if (connect(bench, 2, 1 + i)) connected++;
      expect(connected).toBe(CAPACITY / 64);
      for (let i = 0; i < connected; i++) expect(isConnected(bench, 2, 1 + i)).toBe(true);
      expect(bench.table.evictions).toBe(connected);
      expect(bench.table.size).toBe(CAPACITY);
    });

    it("cuts none of our own programs' connections for others", () => {
      const bench = new Bench(CAPACITY);
      for (let i = 0; i < CAPACITY; i++) connect(bench, OWN_FLOWS, 1 + i);
      expect(connect(bench, 2, 1)).toBe(false);
      expect(bench.table.evictions).toBe(0);
    });

    it("leaves the flows of those with fewer alone, whatever it floods with", () => {
      const flood = fc.record({
        kind: fc.constantFrom("tcp", "syn", "udp", "answered"),
        flows: fc.integer({ min: 1, max: 1500 }),
        waits: fc.nat(50),
      });
      fc.assert(
        fc.property(fc.array(flood, { minLength: 1, maxLength: 5 }), (floods) => {
          const bench = new Bench(CAPACITY);
          const modest = [2, 3, 4, OWN_FLOWS];
          for (const owner of modest) {
            for (let port = 1; port <= 4; port++) {
              connect(bench, owner, port);
              ask(bench, owner, port, port > 2);
            }
          }
          let next = 10;
          for (const { kind, flows, waits } of floods) {
            for (let i = 0; i < flows; i++, next++) {
              if (kind === "tcp") connect(bench, 1, next);
              else if (kind === "syn") bench.pass(tcpOf(1, next, SYN), INGRESS, 1);
              else ask(bench, 1, next, kind === "answered");
            }
            bench.wait(waits);
            for (const owner of modest) {
              for (let port = 1; port <= 4; port++) {
                expect(isConnected(bench, owner, port)).toBe(true);
                const datagram = udpThere({ source: hostOf(owner), destination: B4, sourcePort: port });
                expect(bench.find(datagram)).toBe("forward");
                ask(bench, owner, port, true); // so that it does not expire
              }
            }
            expect(connect(bench, 5, next)).toBe(true);
          }
        }),
        { numRuns: 25 },
      );
    });
  });

  it("refuses a seed that is too short, and capacities out of range", () => {
    expect(() => new ConntrackTable(10, new Uint8Array(7))).toThrow(RangeError);
    for (const capacity of [0, -1, 1.5, 2 ** 25]) expect(() => new ConntrackTable(capacity, SEED)).toThrow(RangeError);
  });
});

describe("ConntrackTable against a plain Map", () => {
  type Step = {
    op: "pass" | "remove" | "expire" | "wait";
    port: number;
    isBack: boolean;
    v6: boolean;
    flags: number;
    udp: boolean;
    seconds: number;
  };
  const step: fc.Arbitrary<Step> = fc.record({
    op: fc.constantFrom("pass", "pass", "pass", "pass", "remove", "expire", "wait", "wait"),
    port: fc.integer({ min: 1, max: 6 }),
    isBack: fc.boolean(),
    v6: fc.boolean(),
    flags: fc.constantFrom(SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST),
    udp: fc.boolean(),
    seconds: fc.constantFrom(0, 1, 9, 10, 59, 60, 300, 21_600),
  });

  interface ModelFlow {
    openedBack: boolean;
    expiresAt: number;
    replied: boolean;
    assured: boolean;
    fins: Set<boolean>;
    reset: boolean;
  }

  const life = (flow: ModelFlow, udp: boolean) =>
    udp ? 60 : flow.reset || flow.fins.size === 2 ? 10 : flow.assured ? 21_600 : 60;

  it("agrees on every packet's relation, and never forgets too late or too early", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
        const bench = new Bench(64);
        const model = new Map<string, ModelFlow>();
        let now = bench.nowMs / 1000;
        for (const s of steps) {
          const [a, b] = s.v6 ? [A6, B6] : [A4, B4];
          const fields = s.isBack
            ? { source: b, destination: a, sourcePort: 80, destinationPort: s.port, flags: s.flags }
            : { source: a, destination: b, sourcePort: s.port, destinationPort: 80, flags: s.flags };
          const bytes = s.udp ? udpPacket(fields) : tcpPacket(fields);
          const key = `${s.v6} ${s.udp} ${s.port}`;
          for (const [k, flow] of model) if (flow.expiresAt <= now) model.delete(k);
          let flow = model.get(key);
          if (s.op === "wait") {
            bench.wait(s.seconds);
            now += s.seconds;
          } else if (s.op === "expire") {
            bench.table.expire(bench.nowMs, 1000);
            expect(bench.table.size).toBe(model.size);
          } else if (s.op === "remove") {
            const found = bench.table.find(bytes, bench.read(bytes), bench.nowMs);
            if (found >= 0) bench.table.remove(found);
            model.delete(key);
          } else {
            const isSyn = !s.udp && s.flags === SYN;
            const isClosing = flow !== undefined && !s.udp && (flow.reset || flow.fins.size === 2);
            if (flow && isSyn && isClosing && s.isBack !== flow.openedBack) flow = undefined;
            const expected = flow === undefined ? "opened" : s.isBack === flow.openedBack ? "forward" : "reply";
            expect(bench.pass(bytes)).toBe(expected);
            if (flow === undefined || (isSyn && isClosing)) {
              flow = {
                openedBack: s.isBack,
                expiresAt: 0,
                replied: false,
                assured: false,
                fins: new Set(),
                reset: false,
              };
              model.set(key, flow);
            }
            const isReply = s.isBack !== flow.openedBack;
            if (!isReply && flow.replied && (s.flags & (SYN | RST)) === 0) flow.assured = true;
            if (isReply) flow.replied = true;
            if (!s.udp && (s.flags & RST) !== 0) flow.reset = true;
            if (!s.udp && (s.flags & FIN) !== 0) flow.fins.add(s.isBack);
            flow.expiresAt = now + life(flow, s.udp);
          }
        }
        for (const [k, flow] of model) if (flow.expiresAt <= now) model.delete(k);
        expect([...bench.table.flows(bench.nowMs)]).toHaveLength(model.size);
      }),
      { numRuns: 400 },
    );
  });
});
