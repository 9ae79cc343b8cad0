/**
 * Two members of which one hands a flow to a proxy, and the packets of every step between opener, proxy and server. The test plays
 * all three programs: it sends what they would send, and looks at what they would get, octet by octet.
 */
import { proxyClientAddress, proxyServerAddress } from "../../src/datapath/proxy_addresses.ts";
import { RedirectView } from "../../src/datapath/redirect_view.ts";
import type { Ciphers } from "../../src/ports.ts";
import { MeshNode, policyOf, runUntil, type TestRule } from "./mesh_node.ts";
import { FakeNetwork } from "./network.ts";
import { makePacket, ones, type PacketFields } from "./packets.ts";

export const HTTP_PORT = 31080;
export const DNS_PORT = 31053;
export const SYN = 2, SYN_ACK = 18, ACK = 16, FIN_ACK = 17, RST = 4;

export interface ProxiedOptions {
  readonly family: 4 | 6;
  readonly protocol: "tcp" | "udp";
  /** of the flow, at the member with the proxy */
  readonly direction: "egress" | "ingress";
  readonly offload?: boolean;
  /** the opener's port, and the server's */
  readonly sourcePort?: number;
  readonly destinationPort?: number;
}

/** What a packet is but for its addresses. */
export type Rest = Omit<PacketFields, "source" | "destination" | "sourcePort" | "destinationPort" | "protocol">;

const OWN = { 4: "10.9.0.1", 6: "fd09::1" }, OTHER = { 4: "10.9.0.2", 6: "fd09::2" };

export class Proxied {
  readonly options: ProxiedOptions;
  /** the member with the proxy, and the other one */
  readonly a: MeshNode;
  readonly b: MeshNode;
  readonly view: RedirectView;
  readonly network = new FakeNetwork({ seed: 7 });
  readonly own: string;
  readonly opener: string;
  readonly server: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly proxyPort: number;
  #revision = 1;

  constructor(ciphers: Ciphers, options: ProxiedOptions) {
    this.options = options;
    const { family, protocol, direction, offload = false } = options;
    this.sourcePort = options.sourcePort ?? 40_000;
    this.destinationPort = options.destinationPort ?? 80;
    this.proxyPort = protocol === "tcp" ? HTTP_PORT : DNS_PORT;
    this.own = OWN[family];
    [this.opener, this.server] = direction === "egress" ? [OWN[family], OTHER[family]] : [OTHER[family], OWN[family]];
    const memory = new SharedArrayBuffer(RedirectView.bytes);
    this.view = new RedirectView(memory);
    const common = { offload };
    this.a = new MeshNode(this.network, ciphers, {
      ...common,
      name: "a",
      addresses: [OWN[4], OWN[6]],
      underlay: "192.0.2.1",
      identity: 65537,
    });
    this.b = new MeshNode(this.network, ciphers, {
      name: "b",
      addresses: [OTHER[4], OTHER[6]],
      underlay: "192.0.2.2",
      identity: 65538,
    });
    this.a.learn(this.b);
    this.b.learn(this.a);
    this.b.setPolicy(policyOf(1));
    this.a.datapath.apply({ op: "proxy", http: HTTP_PORT, dns: DNS_PORT, view: memory }, this.network.nowMs);
    this.setVerdict(protocol === "tcp" ? "http" : "dns");
    // so that there is a session, and the first packet of a test goes straight through
    this.b.send(makePacket({ source: OTHER[4], destination: "10.9.0.1", protocol: "icmp" }));
    this.run();
    this.a.takeDelivered();
  }

  /** What policy says to the flow from now on. */
  setVerdict(verdict: TestRule["verdict"] | "none"): void {
    const { direction, protocol } = this.options;
    const rule = { identity: 0, protocol: protocol === "tcp" ? 6 : 17, port: this.destinationPort };
    const icmp: TestRule = { identity: 0, protocol: 1, port: 8, verdict: "allow" };
    const rules = verdict === "none" ? [icmp] : [icmp, { ...rule, verdict }];
    const revision = this.#revision++;
    this.a.setPolicy(direction === "egress" ? policyOf(revision, undefined, rules) : policyOf(revision, rules));
  }

  run(ms = 50): void {
    runUntil([this.a, this.b], this.network.nowMs + ms);
  }

  /** The packet of the flow itself; `isReply`: from the server. */
  flow(rest: Rest = {}, isReply = false): Uint8Array {
    const there = { source: this.opener, destination: this.server };
    const ports = { sourcePort: this.sourcePort, destinationPort: this.destinationPort };
    const back = { source: this.server, destination: this.opener };
    const backPorts = { sourcePort: this.destinationPort, destinationPort: this.sourcePort };
    const { protocol } = this.options;
    return makePacket({ ...rest, protocol, ...(isReply ? { ...back, ...backPorts } : { ...there, ...ports }) });
  }

  /** The packet between the proxy (`port` of ours) and one of its two addresses. */
  proxy(end: "client" | "server", port: number, handle: number, rest: Rest = {}, isFromProxy = true): Uint8Array {
    const { family, protocol } = this.options;
    const address = end === "client" ? proxyClientAddress(family) : proxyServerAddress(family);
    const [source, destination] = isFromProxy ? [this.own, address] : [address, this.own];
    const [sourcePort, destinationPort] = isFromProxy ? [port, handle] : [handle, port];
    return makePacket({ ...rest, protocol, source, destination, sourcePort, destinationPort });
  }

  /** The opener's program sends, wherever it runs. */
  fromOpener(packet: Uint8Array): void {
    (this.options.direction === "egress" ? this.a : this.b).send(packet);
    this.run();
  }

  /** The server's. */
  fromServer(packet: Uint8Array): void {
    (this.options.direction === "egress" ? this.b : this.a).send(packet);
    this.run();
  }

  /** The proxy's. */
  fromProxy(packet: Uint8Array): void {
    this.a.send(packet);
    this.run();
  }

  /** Opens the flow. @returns its handle, as the proxy reads it from its client's port */
  open(rest: Rest = { flags: SYN }): number {
    this.fromOpener(this.flow(rest));
    const delivered = this.a.takeDelivered();
    if (delivered.length !== 1) throw new Error(`The proxy got ${delivered.length} packets`);
    return portsOf(delivered[0]!)[0];
  }

  atOpener(): Uint8Array[] {
    return (this.options.direction === "egress" ? this.a : this.b).takeDelivered();
  }

  atServer(): Uint8Array[] {
    return (this.options.direction === "egress" ? this.b : this.a).takeDelivered();
  }
}

/** Source and destination port of a packet without options. */
export function portsOf(packet: Uint8Array): [number, number] {
  const at = packet[0]! >> 4 === 4 ? 20 : 40;
  return [(packet[at]! << 8) | packet[at + 1]!, (packet[at + 2]! << 8) | packet[at + 3]!];
}

/** A packet as a TUN with offload gives it: its checksum unfinished, and a virtio header that says so. */
export function unfinished(packet: Uint8Array, gsoSize = 0): Uint8Array {
  const isV4 = packet[0]! >> 4 === 4;
  const at = isV4 ? 20 : 40;
  const protocol = isV4 ? packet[9]! : packet[6]!;
  const checksumAt = protocol === 6 ? 16 : 6;
  const bytes = new Uint8Array(10 + packet.length);
  bytes.set([1, gsoSize === 0 ? 0 : protocol === 17 ? 5 : isV4 ? 1 : 4], 0);
  bytes.set([at + (protocol === 6 ? 20 : 8), 0, gsoSize & 255, gsoSize >> 8, at, 0, checksumAt, 0], 2);
  bytes.set(packet, 10);
  bytes.set(be16(~ones(pseudoOf(packet))), 10 + at + checksumAt);
  return bytes;
}

/** Finishes what `unfinished` left out, as a kernel would. */
export function finished(bytes: Uint8Array): Uint8Array {
  const packet = bytes.slice(10);
  if (bytes[0] !== 1) return packet;
  const at = bytes[6]!, fieldAt = at + bytes[8]!;
  const checksum = ones(packet.slice(at));
  packet.set(be16(checksum === 0 && bytes[8] === 6 ? 0xffff : checksum), fieldAt);
  return packet;
}

/** Whether all checksums of a packet are right, summed up whole. */
export function isSound(packet: Uint8Array): boolean {
  const isV4 = packet[0]! >> 4 === 4;
  const at = isV4 ? 20 : 40;
  if (isV4 && ones(packet.slice(0, 20)) !== 0) return false;
  return ones(Uint8Array.from([...pseudoOf(packet), ...packet.slice(at)])) === 0;
}

function pseudoOf(packet: Uint8Array): Uint8Array {
  const isV4 = packet[0]! >> 4 === 4;
  const at = isV4 ? 20 : 40;
  const addresses = isV4 ? packet.slice(12, 20) : packet.slice(8, 40);
  return Uint8Array.from([...addresses, 0, isV4 ? packet[9]! : packet[6]!, ...be16(packet.length - at)]);
}

function be16(value: number): number[] {
  return [(value >> 8) & 255, value & 255];
}
