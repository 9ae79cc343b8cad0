/** IP packets for tests with addresses as text, checksums and all (`../support/inner_packets.ts`). */
import { icmpPacket, naiveSum, tcpPacket, udpPacket } from "../support/inner_packets.ts";

export interface PacketFields {
  readonly source: string;
  readonly destination: string;
  readonly protocol?: "tcp" | "udp" | "icmp";
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly flags?: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  readonly icmpType?: number;
  readonly icmpCode?: number;
  /** of an echo request */
  readonly id?: number;
  readonly payload?: Uint8Array;
  readonly trafficClass?: number;
  readonly ttl?: number;
}

/** The Internet checksum (RFC 1071): 0 over what carries its own. */
export function ones(bytes: Uint8Array): number {
  return ~naiveSum(bytes) & 0xffff;
}

export function addressOctets(text: string): number[] {
  if (!text.includes(":")) return text.split(".").map(Number);
  const [head, tail] = text.split("::");
  const groups = (part: string | undefined) => (part ? part.split(":").map((group) => parseInt(group, 16)) : []);
  const front = groups(head);
  const back = groups(tail);
  const all = [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back];
  return all.flatMap((group) => [group >> 8, group & 255]);
}

/** A whole IPv4 or IPv6 packet; by default UDP without payload. */
export function makePacket(fields: PacketFields): Uint8Array {
  const { protocol = "udp", destinationPort = 80, payload = new Uint8Array(0), trafficClass = 0, ttl = 64 } = fields;
  const ends = { source: addressOctets(fields.source), destination: addressOctets(fields.destination) };
  const common = { ...ends, sourcePort: fields.sourcePort ?? 40000, destinationPort, payload, trafficClass, ttl };
  if (protocol === "udp") return udpPacket(common);
  if (protocol === "icmp") {
    const type = fields.icmpType ?? (ends.source.length === 4 ? 8 : 128);
    return icmpPacket(type, fields.icmpCode ?? 0, ((fields.id ?? 7) << 16) | 1, common);
  }
  const { flags = 0x10, sequence = 1, acknowledgement = 1 } = fields;
  return tcpPacket({ ...common, flags, sequence, acknowledgement, window: 0xffff });
}
