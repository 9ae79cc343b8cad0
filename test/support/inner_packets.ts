/** Builds whole IP packets with right lengths and checksums, the slow and plain way. Independent of `src/bytes/checksum.ts`. */

export interface PacketFields {
  source?: number[];
  destination?: number[];
  sourcePort?: number;
  destinationPort?: number;
  payload?: Uint8Array;
  /** TOS or traffic class */
  trafficClass?: number;
  ttl?: number;
  /** IPv4 */
  id?: number;
  /** IPv4: reserved, DF, MF as the top three bits, and the offset */
  fragment?: number;
  /** IPv6 */
  flowLabel?: number;
  // TCP
  sequence?: number;
  acknowledgement?: number;
  flags?: number;
  window?: number;
  options?: number[];
}

export const A4 = [10, 8, 0, 1];
export const B4 = [10, 8, 0, 2];
export const A6 = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
export const B6 = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

const u16 = (value: number) => [(value >> 8) & 255, value & 255];
const u32 = (value: number) => [...u16(value >>> 16), ...u16(value & 0xffff)];

/** RFC 1071 word by word: the folded sum, not complemented. */
export function naiveSum(bytes: Iterable<number>, start = 0): number {
  let sum = start;
  let isHigh = true;
  for (const octet of bytes) {
    sum += isHigh ? octet * 256 : octet;
    isHigh = !isHigh;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  return sum;
}

/** Pseudo-header sum for a transport part of `bytes` octets. */
export function pseudoSum(source: number[], destination: number[], protocol: number, bytes: number): number {
  return naiveSum([...source, ...destination, ...u32(bytes), ...u32(protocol)]);
}

function ipPacket(protocol: number, fields: PacketFields, transport: number[]): Uint8Array {
  const source = fields.source ?? A4, destination = fields.destination ?? B4;
  const ttl = fields.ttl ?? 64, trafficClass = fields.trafficClass ?? 0;
  if (source.length === 16) {
    const head = u32((6 << 28) | (trafficClass << 20) | (fields.flowLabel ?? 0));
    return Uint8Array.from([...head, ...u16(transport.length), protocol, ttl, ...source, ...destination, ...transport]);
  }
  const header = [
    0x45,
    trafficClass,
    ...u16(20 + transport.length),
    ...u16(fields.id ?? 1),
    ...u16(fields.fragment ?? 0x4000),
    ttl,
    protocol,
    0,
    0,
    ...source,
    ...destination,
  ];
  [header[10], header[11]] = u16(~naiveSum(header) & 0xffff) as [number, number];
  return Uint8Array.from([...header, ...transport]);
}

function withChecksum(
  transport: number[],
  at: number,
  protocol: number,
  fields: PacketFields,
  isUdp: boolean,
): number[] {
  const seed = pseudoSum(fields.source ?? A4, fields.destination ?? B4, protocol, transport.length);
  const checksum = ~naiveSum(transport, seed) & 0xffff;
  const written = isUdp && checksum === 0 ? 0xffff : checksum;
  [transport[at], transport[at + 1]] = u16(written) as [number, number];
  return transport;
}

/** FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128 */
export function tcpPacket(fields: PacketFields = {}): Uint8Array {
  const options = fields.options ?? [];
  const transport = [
    ...u16(fields.sourcePort ?? 40000),
    ...u16(fields.destinationPort ?? 80),
    ...u32(fields.sequence ?? 1000),
    ...u32(fields.acknowledgement ?? 5000),
    (5 + options.length / 4) << 4,
    fields.flags ?? 16,
    ...u16(fields.window ?? 500),
    0,
    0,
    0,
    0,
    ...options,
    ...(fields.payload ?? []),
  ];
  return ipPacket(6, fields, withChecksum(transport, 16, 6, fields, false));
}

export function udpPacket(fields: PacketFields = {}): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const transport = [
    ...u16(fields.sourcePort ?? 40000),
    ...u16(fields.destinationPort ?? 443),
    ...u16(8 + payload.length),
    0,
    0,
    ...payload,
  ];
  return ipPacket(17, fields, withChecksum(transport, 6, 17, fields, true));
}

/** An ICMP (IPv4) or ICMPv6 packet: type, code, the second word of the header, and what follows. */
export function icmpPacket(type: number, code: number, rest: number, fields: PacketFields = {}): Uint8Array {
  const isV6 = (fields.source ?? A4).length === 16;
  const body = [type, code, 0, 0, ...u32(rest), ...(fields.payload ?? [])];
  if (isV6) return ipPacket(58, fields, withChecksum(body, 2, 58, fields, false));
  [body[2], body[3]] = u16(~naiveSum(body) & 0xffff) as [number, number];
  return ipPacket(1, fields, body);
}

/** Any other protocol, payload as it is. */
export function rawPacket(protocol: number, fields: PacketFields = {}): Uint8Array {
  return ipPacket(protocol, fields, [...(fields.payload ?? [])]);
}

/** Whether lengths agree and IPv4 header and transport checksum verify; for TCP, UDP and ICMP packets without extension headers. */
export function verifies(packet: Uint8Array): boolean {
  const isV6 = packet[0]! >> 4 === 6;
  const headerBytes = isV6 ? 40 : (packet[0]! & 15) * 4;
  const declared = isV6 ? 40 + packet[4]! * 256 + packet[5]! : packet[2]! * 256 + packet[3]!;
  if (declared !== packet.length) return false;
  if (!isV6 && naiveSum(packet.subarray(0, headerBytes)) !== 0xffff) return false;
  const protocol = packet[isV6 ? 6 : 9]!;
  const transport = packet.subarray(headerBytes);
  if (protocol === 17) {
    if (transport[4]! * 256 + transport[5]! !== transport.length) return false;
    if (transport[6] === 0 && transport[7] === 0) return !isV6;
  }
  const source = [...packet.subarray(isV6 ? 8 : 12, isV6 ? 24 : 16)];
  const destination = [...packet.subarray(isV6 ? 24 : 16, isV6 ? 40 : 20)];
  const seed = protocol === 1 ? 0 : pseudoSum(source, destination, protocol, transport.length);
  return naiveSum(transport, seed) === 0xffff;
}
