/** Flows that a policy hands to a proxy: the four steps of redirect.ts, who may take them, and when a flow ends. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { ConntrackTable } from "../../../src/conntrack/table.ts";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { proxyClientAddress, proxyServerAddress } from "../../../src/datapath/proxy_addresses.ts";
import { LEG_OPENER, MAX_INGRESS, NO_SLOT, RedirectTable } from "../../../src/datapath/redirect_table.ts";
import { FIRST_HANDLE, MAX_REDIRECTED, RedirectView } from "../../../src/datapath/redirect_view.ts";
import { parsePrefixOrAddress } from "../../../src/ip/address.ts";
import type { Ciphers } from "../../../src/ports.ts";
import {
  DROP_INVALID_SOURCE_IP,
  DROP_NO_PROXY,
  DROP_NO_REDIRECT,
  DROP_POLICY_DENIED,
  DROP_POLICY_DENY,
  FORWARD,
} from "../../../src/verdict.ts";
import { KIND_HTTP } from "../../../src/policy/decision.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork, seeded } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";
import {
  ACK,
  DNS_PORT,
  FIN_ACK,
  finished,
  HTTP_PORT,
  isSound,
  portsOf,
  Proxied,
  type ProxiedOptions,
  RST,
  SYN,
  SYN_ACK,
  unfinished,
} from "../../fakes/proxied.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const Q = 50_001;
const ALL = (["egress", "ingress"] as const).flatMap((direction) =>
  ([4, 6] as const).flatMap((family) =>
    (["tcp", "udp"] as const).flatMap((protocol) =>
      [false, true].map((offload): ProxiedOptions => ({ direction, family, protocol, offload }))
    )
  )
);
const TCP = { direction: "egress", family: 4, protocol: "tcp" } as const;
const UDP = { direction: "egress", family: 4, protocol: "udp" } as const;

const make = (options: ProxiedOptions) => new Proxied(ciphers, options);
const drops = (mesh: Proxied, direction: 0 | 1, reason: number) => mesh.a.counters.drops(direction, reason);

/** What both machines received, but for the resets that tell our own program of a cut connection. */
function delivered(mesh: Proxied): Uint8Array[] {
  const isReset = (packet: Uint8Array) => (packet[(packet[0]! >> 4 === 4 ? 20 : 40) + 13]! & RST) !== 0;
  return [...mesh.a.takeDelivered().filter((packet) => !isReset(packet)), ...mesh.b.takeDelivered()];
}

/** Opens the flow and lets the proxy connect to the server: all three connections stand. */
function connect(options: ProxiedOptions): { mesh: Proxied; handle: number } {
  const mesh = make(options);
  const handle = mesh.open();
  mesh.fromProxy(mesh.proxy("client", mesh.proxyPort, handle, { flags: SYN_ACK }));
  mesh.fromOpener(mesh.flow({ flags: ACK }));
  mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: SYN }));
  mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
  mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: ACK }));
  for (const node of [mesh.a, mesh.b]) node.takeDelivered();
  return { mesh, handle };
}

describe("a redirected flow", () => {
  it.each(ALL)(
    "goes opener, proxy, server and back: $direction, IPv$family, $protocol, offload $offload",
    (options) => {
      const mesh = make(options);
      const handle = mesh.open({ flags: SYN });
      expect(handle).toBeGreaterThanOrEqual(FIRST_HANDLE);
      expect(mesh.view.read(handle)).toEqual({
        from: { address: mesh.opener, port: mesh.sourcePort },
        to: { address: mesh.server, port: mesh.destinationPort },
        protocol: options.protocol === "tcp" ? 6 : 17,
        direction: options.direction === "egress" ? EGRESS : INGRESS,
        identity: 65538,
      });
      mesh.fromProxy(mesh.proxy("client", mesh.proxyPort, handle, { flags: SYN_ACK }));
      expect(mesh.atOpener()).toEqual([mesh.flow({ flags: SYN_ACK }, true)]);
      mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: SYN }));
      expect(mesh.atServer()).toEqual([mesh.flow({ flags: SYN })]);
      mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
      expect(mesh.a.takeDelivered()).toEqual([mesh.proxy("server", Q, handle, { flags: SYN_ACK }, false)]);
      expect(mesh.a.counters.totalDrops(EGRESS) + mesh.a.counters.totalDrops(INGRESS)).toBe(0);
      const flow = mesh.a.datapath.flows(mesh.network.nowMs, 5_000_000, 10).find(({ isRedirected }) => isRedirected)!;
      expect(flow).toMatchObject({
        direction: options.direction,
        source: mesh.opener,
        destination: mesh.server,
        destinationPort: 80,
        identity: 65538,
        packets: 1,
        replyPackets: 1,
      });
    },
  );

  it("keeps every octet and has right checksums in every step, whatever is in the packet", () => {
    const rest = fc.record({
      payload: fc.uint8Array({ maxLength: 300 }),
      sequence: fc.nat(),
      trafficClass: fc.integer({ min: 0, max: 255 }),
      ttl: fc.integer({ min: 1, max: 255 }),
    });
    const options = fc.record({
      direction: fc.constantFrom("egress" as const, "ingress" as const),
      family: fc.constantFrom(4 as const, 6 as const),
      protocol: fc.constantFrom("tcp" as const, "udp" as const),
      offload: fc.boolean(),
      sourcePort: fc.integer({ min: 1, max: 65535 }),
      destinationPort: fc.integer({ min: 1, max: 65535 }),
    });
    const port = fc.integer({ min: 1, max: 65535 });
    fc.assert(
      fc.property(options, fc.array(rest, { minLength: 4, maxLength: 4 }), port, (options, rests, q) => {
        const mesh = make(options);
        const [one, two, three, four] = rests as [typeof rests[0], typeof rests[0], typeof rests[0], typeof rests[0]];
        mesh.fromOpener(mesh.flow({ ...one, flags: SYN }));
        const [first] = mesh.a.takeDelivered();
        const [handle] = portsOf(first!);
        expect(first).toEqual(mesh.proxy("client", mesh.proxyPort, handle, { ...one, flags: SYN }, false));
        mesh.fromProxy(mesh.proxy("client", mesh.proxyPort, handle, two));
        expect(mesh.atOpener()).toEqual([mesh.flow(two, true)]);
        mesh.fromProxy(mesh.proxy("server", q, handle, { ...three, flags: SYN }));
        expect(mesh.atServer()).toEqual([mesh.flow({ ...three, flags: SYN })]);
        mesh.fromServer(mesh.flow(four, true));
        expect(mesh.a.takeDelivered()).toEqual([mesh.proxy("server", q, handle, four, false)]);
      }),
      { numRuns: 60 },
    );
  });

  it.each(ALL.filter(({ offload }) => offload))(
    "is steered where the kernel leaves the checksum to the device: $direction, IPv$family, $protocol",
    (options) => {
      const { mesh, handle } = connect(options);
      const rest = { payload: Uint8Array.from({ length: 301 }, (_, i) => i * 7), flags: ACK };
      const steps: [Uint8Array, Uint8Array][] = [
        [mesh.proxy("client", mesh.proxyPort, handle, rest), mesh.flow(rest, true)],
        [mesh.proxy("server", Q, handle, rest), mesh.flow(rest)],
      ];
      if (options.direction === "egress") {
        steps.push([mesh.flow(rest), mesh.proxy("client", mesh.proxyPort, handle, rest, false)]);
      } else steps.push([mesh.flow(rest, true), mesh.proxy("server", Q, handle, rest, false)]);
      for (const [sent, expected] of steps) {
        mesh.a.tun.toRead.push(unfinished(sent));
        mesh.run();
        const written = mesh.a.tun.written.splice(0).map(finished);
        const delivered = mesh.b.takeDelivered();
        expect([...written, ...delivered]).toEqual([expected]);
        expect(isSound(expected)).toBe(true);
      }
    },
  );

  it.each([4, 6] as const)("goes through in superpackets as they are, and is split for the peer: IPv%i", (family) => {
    const { mesh, handle } = connect({ ...TCP, family, offload: true });
    const payload = Uint8Array.from({ length: 9000 }, (_, i) => i * 13);
    mesh.a.tun.toRead.push(unfinished(mesh.flow({ payload, flags: ACK }), 1200));
    mesh.run();
    const [back] = mesh.a.tun.written.splice(0);
    const expected = unfinished(mesh.proxy("client", HTTP_PORT, handle, { payload, flags: ACK }, false), 1200);
    expect(finished(back!)).toEqual(finished(expected));
    expect([...back!.slice(0, 10)]).toEqual([...expected.slice(0, 10)]);
    mesh.a.tun.toRead.push(unfinished(mesh.proxy("server", Q, handle, { payload, flags: ACK }), 1200));
    mesh.run();
    const segments = mesh.b.takeDelivered();
    expect(segments.map(isSound)).toEqual(new Array(8).fill(true));
    expect(segments.map((segment) => portsOf(segment))).toEqual(new Array(8).fill([40_000, 80]));
    const headerBytes = family === 4 ? 40 : 60;
    expect(segments.flatMap((segment) => [...segment.slice(headerBytes)])).toEqual([...payload]);
  });

  it("leaves an IPv4 UDP packet without a checksum without one", () => {
    const mesh = make(UDP);
    const packet = mesh.flow({ payload: Uint8Array.of(1, 2, 3) });
    packet.set([0, 0], 26);
    mesh.fromOpener(packet);
    const [delivered] = mesh.a.takeDelivered();
    expect([...delivered!.slice(26, 28)]).toEqual([0, 0]);
  });

  it("waits for a session as it came, and is not taken for a packet of the opener then", () => {
    const network = new FakeNetwork({ seed: 2 });
    const a = new MeshNode(network, ciphers, {
      name: "a",
      addresses: ["10.9.0.1"],
      underlay: "192.0.2.1",
      identity: 70,
    });
    const b = new MeshNode(network, ciphers, {
      name: "b",
      addresses: ["10.9.0.2"],
      underlay: "192.0.2.2",
      identity: 9,
    });
    a.learn(b);
    b.learn(a);
    b.setPolicy(policyOf(1));
    a.setPolicy(policyOf(1, undefined, [{ identity: 0, protocol: 6, port: 80, verdict: "http" }]));
    a.datapath.apply({ op: "proxy", http: HTTP_PORT, dns: 0 }, 0);
    const flow = { protocol: "tcp", source: "10.9.0.1", destination: "10.9.0.2", destinationPort: 80 } as const;
    a.send(makePacket({ ...flow, flags: SYN }));
    a.step();
    const [handle] = portsOf(a.takeDelivered()[0]!);
    const server = { protocol: "tcp", source: "10.9.0.1", destination: proxyServerAddress(4) } as const;
    a.send(makePacket({ ...server, sourcePort: Q, destinationPort: handle, flags: SYN }));
    a.step();
    expect(a.counters.read("stagedPackets")).toBe(1);
    runUntil([a, b], 1000);
    expect(b.takeDelivered()).toEqual([makePacket({ ...flow, flags: SYN })]);
    expect(a.takeDelivered()).toEqual([]);
  });
});

describe("a proxy's end of a flow", () => {
  it("may not be reached with a handle that stands for nothing, nor with one of another protocol or family", () => {
    const { mesh, handle } = connect(TCP);
    const send = (fields: Parameters<typeof makePacket>[0]) => mesh.fromProxy(makePacket(fields));
    const tcp = { protocol: "tcp", source: mesh.own, sourcePort: Q, flags: SYN } as const;
    for (const end of [proxyClientAddress(4), proxyServerAddress(4)]) {
      send({ ...tcp, destination: end, destinationPort: handle === 9999 ? 9998 : 9999 });
      send({ ...tcp, destination: end, destinationPort: 0 });
      send({ ...tcp, destination: end, destinationPort: (handle & (MAX_REDIRECTED - 1)) || 1 });
      send({ ...tcp, protocol: "udp", destination: end, destinationPort: handle });
      send({ protocol: "icmp", source: mesh.own, destination: end });
    }
    send({ ...tcp, source: "fd09::1", destination: proxyServerAddress(6), destinationPort: handle });
    expect(drops(mesh, EGRESS, DROP_NO_REDIRECT)).toBe(11);
    expect([...mesh.a.takeDelivered(), ...mesh.b.takeDelivered()]).toEqual([]);
  });

  it("may not be spoken for from another port or address", () => {
    const { mesh, handle } = connect(TCP);
    mesh.fromProxy(mesh.proxy("client", HTTP_PORT + 1, handle, { flags: ACK }));
    mesh.fromProxy(mesh.proxy("client", DNS_PORT, handle, { flags: ACK }));
    mesh.fromProxy(mesh.proxy("server", Q + 1, handle, { flags: ACK }));
    expect(drops(mesh, EGRESS, DROP_NO_REDIRECT)).toBe(3);
    const foreign = { protocol: "tcp", sourcePort: HTTP_PORT, destinationPort: handle, flags: ACK } as const;
    mesh.fromProxy(makePacket({ ...foreign, source: "10.9.0.7", destination: proxyClientAddress(4) }));
    expect(drops(mesh, EGRESS, DROP_INVALID_SOURCE_IP)).toBe(1);
    expect([...mesh.a.takeDelivered(), ...mesh.b.takeDelivered()]).toEqual([]);
  });

  it("may not be reached by a peer, even by one that may send for every address", () => {
    const { mesh, handle } = connect({ ...TCP, direction: "ingress" });
    const everything = { address: Uint8Array.of(0, 0, 0, 0), length: 0 };
    const { a, b } = mesh;
    a.datapath.apply({ op: "ip", prefix: everything, identity: 65538, peer: b.wireguard.publicKey }, 0);
    b.datapath.apply({
      op: "self",
      addresses: [Uint8Array.of(169, 254, 101, 1), Uint8Array.of(169, 254, 101, 2)],
      underlay: Uint8Array.of(192, 0, 2, 2),
      identity: 65538,
      tunnelProtocol: "geneve",
    }, 0);
    for (const source of [proxyClientAddress(4), proxyServerAddress(4)]) {
      const ports = { sourcePort: handle, destinationPort: HTTP_PORT };
      b.send(makePacket({ protocol: "tcp", source, destination: mesh.own, ...ports, flags: SYN }));
    }
    mesh.run();
    expect(drops(mesh, INGRESS, DROP_INVALID_SOURCE_IP)).toBe(2);
    expect(a.takeDelivered()).toEqual([]);
  });

  it("may not be reached by a peer that opened a flow from its client's address while there was no proxy", () => {
    const mesh = make({ ...TCP, direction: "ingress" });
    const { a, b, network } = mesh;
    const everything = { address: Uint8Array.of(0, 0, 0, 0), length: 0 };
    a.datapath.apply({ op: "proxy", http: 0, dns: 0 }, network.nowMs);
    a.setPolicy(policyOf(90));
    a.datapath.apply({ op: "ip", prefix: everything, identity: 65538, peer: b.wireguard.publicKey }, network.nowMs);
    b.setSelf({ addresses: [Uint8Array.of(169, 254, 101, 1)] });
    const source = proxyClientAddress(4);
    const forged = makePacket({ source, destination: mesh.own, sourcePort: 10_000, destinationPort: DNS_PORT });
    const send = () => {
      b.send(forged);
      mesh.run();
      return a.takeDelivered().length;
    };
    send();
    a.datapath.apply({ op: "proxy", http: HTTP_PORT, dns: DNS_PORT }, network.nowMs);
    expect(send()).toBe(0);
    expect(drops(mesh, INGRESS, DROP_INVALID_SOURCE_IP)).toBeGreaterThan(0);
  });

  it("does not hear the server before it asked it", () => {
    const mesh = make(TCP);
    mesh.open();
    mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
    expect(drops(mesh, INGRESS, DROP_NO_REDIRECT)).toBe(1);
    expect(mesh.a.takeDelivered()).toEqual([]);
  });

  it("may connect to the server again, from another port", () => {
    const { mesh, handle } = connect(TCP);
    mesh.fromProxy(mesh.proxy("server", Q + 1, handle, { flags: SYN }));
    expect(mesh.atServer()).toEqual([mesh.flow({ flags: SYN })]);
    mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
    expect(mesh.a.takeDelivered()).toEqual([mesh.proxy("server", Q + 1, handle, { flags: SYN_ACK }, false)]);
  });

  it("gets nothing of a flow whose virtio header lies about where the checksum is", () => {
    const { mesh } = connect({ ...TCP, offload: true });
    const bytes = unfinished(mesh.flow({ flags: ACK }));
    bytes[6] = 24;
    mesh.a.tun.toRead.push(bytes);
    mesh.run();
    expect(mesh.a.tun.written).toEqual([]);
    expect(mesh.a.counters.totalDrops(EGRESS)).toBe(1);
  });
});

describe("anything at all sent to the proxy addresses", () => {
  it("is written, sent or counted, never more than once, and breaks nothing", () => {
    const random = seeded(11);
    for (const offload of [false, true]) {
      const { mesh, handle } = connect({ ...TCP, offload });
      const { counters } = mesh.a;
      const genuine = [
        mesh.proxy("client", HTTP_PORT, handle, { flags: ACK, payload: new Uint8Array(40) }),
        mesh.proxy("server", Q, handle, { flags: ACK, payload: new Uint8Array(40) }),
        mesh.flow({ flags: ACK, payload: new Uint8Array(40) }),
      ];
      for (let i = 0; i < 3000; i++) {
        const packet = genuine[i % 3]!;
        const bytes = offload ? unfinished(packet, random() < 0.5 ? 0 : 20) : packet.slice();
        const cut = random() < 0.2 ? Math.floor(random() * bytes.length) : bytes.length;
        for (let n = Math.floor(random() * 4); n > 0; n--) bytes[Math.floor(random() * bytes.length)] = random() * 256;
        const before = counters.totalDrops(EGRESS);
        mesh.a.tun.toRead.push(bytes.slice(0, cut));
        while (mesh.a.step());
        const written = mesh.a.tun.written.splice(0).length;
        const dropped = counters.totalDrops(EGRESS) - before;
        expect(dropped).toBeLessThanOrEqual(1);
        expect(written).toBeLessThanOrEqual(1);
      }
      mesh.run();
      mesh.b.takeDelivered();
      const after = make({ ...TCP, offload });
      expect(after.open()).toBeGreaterThanOrEqual(FIRST_HANDLE);
      expect(mesh.a.datapath.node.redirects!.table.size).toBeLessThanOrEqual(MAX_REDIRECTED);
    }
  });
});

describe("without a proxy", () => {
  it("every flow that needs one is dropped, and so is a protocol that none understands", () => {
    const mesh = make(TCP);
    mesh.a.datapath.apply({ op: "proxy", http: 0, dns: 0 }, mesh.network.nowMs);
    mesh.fromOpener(mesh.flow({ flags: SYN }));
    expect(drops(mesh, EGRESS, DROP_NO_PROXY)).toBe(1);
    mesh.fromProxy(mesh.proxy("server", Q, FIRST_HANDLE, { flags: SYN }));
    expect(drops(mesh, EGRESS, DROP_NO_REDIRECT)).toBe(1);
    const udp = make(UDP);
    udp.setVerdict("http");
    udp.fromOpener(udp.flow());
    expect(drops(udp, EGRESS, DROP_NO_PROXY)).toBe(1);
    expect([...mesh.a.takeDelivered(), ...udp.a.takeDelivered()]).toEqual([]);
  });

  it("that listens where it did, flows end: a new one is asked for", () => {
    const { mesh, handle } = connect(TCP);
    mesh.a.datapath.apply({ op: "proxy", http: HTTP_PORT + 1, dns: DNS_PORT }, mesh.network.nowMs);
    expect(mesh.view.read(handle)).toBeUndefined();
    mesh.fromOpener(mesh.flow({ flags: ACK }));
    expect(drops(mesh, EGRESS, DROP_NO_PROXY)).toBe(1);
    expect(delivered(mesh)).toEqual([]);
    expect(mesh.open()).not.toBe(handle);
  });

  it("for it a flow in its middle is dropped, and one that begins is steered", () => {
    const mesh = make(TCP);
    mesh.fromOpener(mesh.flow({ flags: ACK }));
    mesh.fromOpener(mesh.flow({ flags: SYN_ACK }));
    expect(drops(mesh, EGRESS, DROP_NO_PROXY)).toBe(2);
    expect(delivered(mesh)).toEqual([]);
    expect(mesh.open()).toBeGreaterThanOrEqual(FIRST_HANDLE);
  });
});

describe("a change of policy", () => {
  it.each(["deny", "none"] as const)("to %s cuts a redirected flow in every step", (verdict) => {
    const reason = verdict === "deny" ? DROP_POLICY_DENY : DROP_POLICY_DENIED;
    const steps: ((mesh: Proxied, handle: number) => void)[] = [
      (mesh) => mesh.fromOpener(mesh.flow({ flags: ACK })),
      (mesh, handle) => mesh.fromProxy(mesh.proxy("client", HTTP_PORT, handle, { flags: ACK })),
      (mesh, handle) => mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: ACK })),
      (mesh) => mesh.fromServer(mesh.flow({ flags: ACK }, true)),
    ];
    for (const direction of ["egress", "ingress"] as const) {
      for (const step of steps) {
        const { mesh, handle } = connect({ ...TCP, direction });
        mesh.setVerdict(verdict);
        step(mesh, handle);
        expect(drops(mesh, EGRESS, reason) + drops(mesh, INGRESS, reason)).toBe(1);
        expect(delivered(mesh)).toEqual([]);
        expect(mesh.view.read(handle)).toBeUndefined();
      }
    }
  });

  it.each(["deny", "none", "http"] as const)(
    "to %s cuts a flow for good: the server's next packets open none the other way",
    (verdict) => {
      const plain = make({ ...TCP, direction: "ingress" });
      plain.setVerdict("allow");
      plain.fromOpener(plain.flow({ flags: SYN }));
      plain.fromServer(plain.flow({ flags: SYN_ACK }, true));
      const redirected = connect({ ...TCP, direction: "ingress" }).mesh;
      // egress is open in both: a packet in the middle of a connection may open a flow there
      for (const mesh of [plain, redirected]) {
        for (const node of [mesh.a, mesh.b]) node.takeDelivered();
        mesh.setVerdict(verdict);
        if (mesh === redirected) mesh.a.datapath.apply({ op: "proxy", http: 0, dns: 0 }, mesh.network.nowMs);
        for (let i = 0; i < 3; i++) {
          mesh.fromServer(mesh.flow({ flags: ACK }, true));
          mesh.fromOpener(mesh.flow({ flags: ACK }));
        }
        expect(delivered(mesh)).toEqual([]);
        expect(mesh.a.counters.totalDrops(EGRESS)).toBe(3);
        expect(mesh.a.counters.totalDrops(INGRESS)).toBe(3);
      }
    },
  );

  it.each([[4, false], [6, false], [4, true], [6, true]] as const)(
    "that wants a proxy resets the connection of our own program: IPv%i, offload %s",
    (family, offload) => {
      const mesh = make({ ...TCP, family, offload });
      mesh.setVerdict("allow");
      mesh.fromOpener(mesh.flow({ flags: SYN }));
      mesh.setVerdict("http");
      for (
        const [sent, answer] of [
          [{ flags: ACK, acknowledgement: 7_000_001 }, { flags: RST, sequence: 7_000_001, acknowledgement: 0 }],
          [{ flags: 0, sequence: 9, payload: new Uint8Array(5) }, {
            flags: RST | ACK,
            sequence: 0,
            acknowledgement: 14,
          }],
        ]
      ) {
        mesh.fromOpener(mesh.flow(sent));
        const [packet, ...others] = mesh.a.takeDelivered();
        expect(others).toEqual([]);
        const expected = mesh.flow(answer, true);
        const tcpAt = family === 4 ? 20 : 40;
        for (const [from, to] of [[tcpAt, tcpAt + 14], [tcpAt - (family === 4 ? 8 : 32), tcpAt]]) {
          expect(packet!.slice(from, to)).toEqual(expected.slice(from, to));
        }
        expect(isSound(packet!)).toBe(true);
      }
      mesh.fromOpener(mesh.flow({ flags: RST }));
      expect(mesh.a.takeDelivered()).toEqual([]);
      expect(drops(mesh, EGRESS, DROP_NO_PROXY)).toBe(3);
      mesh.open();
    },
  );

  it("that allows it again lets a plain flow go on", () => {
    const mesh = make(TCP);
    mesh.setVerdict("allow");
    mesh.fromOpener(mesh.flow({ flags: SYN }));
    mesh.setVerdict("none");
    mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
    mesh.setVerdict("allow");
    mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
    expect(mesh.atOpener()).toEqual([mesh.flow({ flags: SYN_ACK }, true)]);
  });

  it("is asked again when the other side became somebody else, though it is the same", () => {
    for (const direction of ["egress", "ingress"] as const) {
      for (const end of ["client", "server"] as const) {
        const { mesh, handle } = connect({ ...TCP, direction });
        const become = (identity: number) =>
          mesh.a.datapath.apply({
            op: "ip",
            prefix: parsePrefixOrAddress("10.9.0.2")!,
            identity,
            peer: mesh.b.wireguard.publicKey,
          }, mesh.network.nowMs);
        become(65_541);
        mesh.fromProxy(mesh.proxy("client", mesh.proxyPort, handle, { flags: ACK }));
        expect(mesh.view.read(handle)?.identity).toBe(65_541);
        // rules are for everybody but one, who has none at all
        const closed = { identity: 65_542, protocol: 17, port: 9, verdict: "deny" } as const;
        const rule = { identity: 65_541, protocol: 6, port: 80, verdict: "http" } as const;
        const rules = [closed, rule];
        mesh.a.setPolicy(direction === "egress" ? policyOf(7, undefined, rules) : policyOf(7, rules));
        mesh.fromProxy(mesh.proxy("client", mesh.proxyPort, handle, { flags: ACK }));
        expect(mesh.view.read(handle)?.identity).toBe(65_541);
        become(65_542);
        delivered(mesh);
        mesh.fromProxy(mesh.proxy(end, end === "client" ? mesh.proxyPort : Q, handle, { flags: ACK }));
        expect(delivered(mesh)).toEqual([]);
        expect(mesh.view.read(handle)).toBeUndefined();
      }
    }
  });

  it.each(["allow", "http"] as const)("to %s leaves it with its proxy", (verdict) => {
    const { mesh, handle } = connect(TCP);
    mesh.setVerdict(verdict);
    mesh.fromOpener(mesh.flow({ flags: ACK }));
    expect(mesh.a.takeDelivered()).toEqual([mesh.proxy("client", HTTP_PORT, handle, { flags: ACK }, false)]);
    mesh.setVerdict(verdict);
    mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: ACK }));
    expect(mesh.atServer()).toEqual([mesh.flow({ flags: ACK })]);
  });

  it("that wants a proxy cuts a TCP flow that went without, and its next connection is steered", () => {
    for (const direction of ["egress", "ingress"] as const) {
      const mesh = make({ ...TCP, direction });
      mesh.setVerdict("allow");
      mesh.fromOpener(mesh.flow({ flags: SYN }));
      expect(mesh.atServer()).toEqual([mesh.flow({ flags: SYN })]);
      mesh.fromServer(mesh.flow({ flags: SYN_ACK }, true));
      expect(mesh.atOpener()).toEqual([mesh.flow({ flags: SYN_ACK }, true)]);
      mesh.setVerdict("http");
      mesh.fromServer(mesh.flow({ flags: ACK }, true));
      mesh.fromOpener(mesh.flow({ flags: ACK }));
      expect(drops(mesh, EGRESS, DROP_NO_PROXY) + drops(mesh, INGRESS, DROP_NO_PROXY)).toBeGreaterThanOrEqual(1);
      expect(delivered(mesh)).toEqual([]);
      mesh.open();
    }
  });

  it("that wants a proxy steers a UDP flow from its opener's next packet on", () => {
    const mesh = make(UDP);
    mesh.setVerdict("allow");
    mesh.fromOpener(mesh.flow());
    expect(mesh.atServer()).toEqual([mesh.flow()]);
    mesh.setVerdict("dns");
    const handle = mesh.open();
    expect(mesh.view.read(handle)?.protocol).toBe(17);
  });
});

describe("the end of a flow", () => {
  /** The loop looks at timers every second; five seconds see every slot. */
  const seconds = (mesh: Proxied, count: number) => {
    mesh.run((count - 5) * 1000);
    for (let i = 0; i < 5; i++) mesh.run(1000), mesh.a.tick();
  };
  const isThere = (mesh: Proxied, handle: number) => mesh.view.read(handle) !== undefined;

  it("comes 10 seconds after both connections are closed, and packets until then pass", () => {
    const { mesh, handle } = connect(TCP);
    mesh.fromOpener(mesh.flow({ flags: FIN_ACK }));
    mesh.fromProxy(mesh.proxy("client", HTTP_PORT, handle, { flags: FIN_ACK }));
    seconds(mesh, 20);
    expect(isThere(mesh, handle)).toBe(true); // the proxy may still have something for the server
    mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: FIN_ACK }));
    mesh.fromServer(mesh.flow({ flags: FIN_ACK }, true));
    seconds(mesh, 5);
    mesh.a.takeDelivered();
    mesh.b.takeDelivered();
    mesh.fromProxy(mesh.proxy("server", Q, handle, { flags: ACK }));
    expect(mesh.atServer()).toEqual([mesh.flow({ flags: ACK })]);
    seconds(mesh, 16);
    expect(isThere(mesh, handle)).toBe(false);
  });

  it("comes at once when the opener connects anew, after a reset too", () => {
    const { mesh, handle } = connect(TCP);
    mesh.fromOpener(mesh.flow({ flags: RST }));
    mesh.a.takeDelivered();
    const next = mesh.open();
    expect(next).not.toBe(handle);
    expect(isThere(mesh, handle)).toBe(false);
    expect(mesh.a.datapath.node.redirects!.table.size).toBe(1);
  });

  it("comes after half a minute of silence for UDP, and after hours for a TCP connection that stands", () => {
    const udp = make(UDP);
    const short = udp.open();
    seconds(udp, 25);
    expect(isThere(udp, short)).toBe(true);
    seconds(udp, 10);
    expect(isThere(udp, short)).toBe(false);
    const { mesh, handle } = connect(TCP);
    seconds(mesh, 3600);
    expect(isThere(mesh, handle)).toBe(true);
    seconds(mesh, 6 * 3600);
    expect(isThere(mesh, handle)).toBe(false);
    const opening = make(TCP);
    const half = opening.open();
    seconds(opening, 70);
    expect(isThere(opening, half)).toBe(false);
  });

  it("never gives its handle to another flow soon: a proxy's socket may wait under it", () => {
    const mesh = make(TCP);
    const usedAt = new Map<number, number>();
    for (let i = 0; i < 400; i++) {
      const handle = mesh.open();
      expect(usedAt.has(handle)).toBe(false);
      usedAt.set(handle, mesh.network.nowMs);
      mesh.fromProxy(mesh.proxy("client", HTTP_PORT, handle, { flags: FIN_ACK }));
      mesh.fromOpener(mesh.flow({ flags: FIN_ACK }));
      mesh.a.takeDelivered();
    }
  });

  it("makes room: the 4097th flow is refused while all are in use, and questions with answers go first", () => {
    const mesh = make(UDP);
    const openFrom = (sourcePort: number) => {
      const ports = { sourcePort, destinationPort: 80 };
      mesh.a.send(makePacket({ source: mesh.opener, destination: mesh.server, ...ports }));
      while (mesh.a.step());
      const [packet] = mesh.a.takeDelivered();
      return packet === undefined ? undefined : portsOf(packet)[0];
    };
    const handles = Array.from({ length: MAX_REDIRECTED }, (_, i) => openFrom(1000 + i)!);
    expect(new Set(handles).size).toBe(MAX_REDIRECTED);
    expect(openFrom(60_000)).toBeUndefined();
    expect(drops(mesh, EGRESS, DROP_NO_PROXY)).toBe(1);
    for (let i = 0; i < MAX_REDIRECTED; i += 100) {
      mesh.fromProxy(mesh.proxy("client", DNS_PORT, handles[i]!));
    }
    mesh.run(4000);
    mesh.a.takeDelivered();
    expect(openFrom(60_000)).toBeDefined();
    expect(openFrom(60_001)).toBeDefined();
    expect(mesh.a.datapath.node.redirects!.table.size).toBe(MAX_REDIRECTED);
  });

  it("makes room for who means it: connections that nobody finishes opening go, and others leave us a quarter", () => {
    const table = new RedirectTable(
      new ConntrackTable(64, new Uint8Array(16)).makeKey(),
      new RedirectView(new ArrayBuffer(RedirectView.bytes)),
      0,
    );
    const packet = new PacketInfo();
    const open = (direction: 0 | 1, sourcePort: number, atMs: number, flags: readonly number[] = [SYN]) => {
      const ends = { source: direction === INGRESS ? "10.9.0.2" : "10.9.0.1", destination: "10.9.0.3" };
      const bytes = makePacket({ protocol: "tcp", ...ends, sourcePort, destinationPort: 80, flags: SYN });
      expect(readPacket(bytes, 0, bytes.length, packet)).toBe(FORWARD);
      const slot = table.insert(bytes, packet, direction, 65538, 1, KIND_HTTP, HTTP_PORT, atMs, 0);
      if (slot === NO_SLOT) return false;
      flags.forEach((one, i) => {
        packet.tcpFlags = one;
        table.touch(slot, LEG_OPENER, i % 2 === 1, packet, atMs);
      });
      return true;
    };
    const whole = [SYN, SYN_ACK, ACK];
    for (let i = 0; i < MAX_INGRESS; i++) expect(open(INGRESS, 1000 + i, 0, i < 10 ? [SYN] : whole)).toBe(true);
    expect(open(INGRESS, 60_000, 1000)).toBe(false);
    for (let i = MAX_INGRESS; i < MAX_REDIRECTED; i++) expect(open(EGRESS, i, 1000, whole)).toBe(true);
    expect(table.size).toBe(MAX_REDIRECTED);
    // evicts what was begun and not finished, the first ten, and looks at some flows each time
    const opened = Array.from({ length: 40 }, (_, i) => open(INGRESS, 61_000 + i, 3000, whole)).filter(Boolean);
    expect(opened.length).toBe(10);
    expect(table.size).toBe(MAX_REDIRECTED);
  });
});
