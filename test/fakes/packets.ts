/** Makes IP packets for tests, checksums and all, in the plainest way: octet by octet, with a checksum of its own. */

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
  readonly id?: number;
  readonly payload?: Uint8Array;
  readonly trafficClass?: number;
  readonly ttl?: number;
}

export function ones(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) + (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const be16 = (value: number) => [(value >>> 8) & 255, value & 255];
const be32 = (value: number) => [...be16(value >>> 16), ...be16(value & 0xffff)];

export function addressOctets(text: string): number[] {
  if (!text.includes(":")) return text.split(".").map(Number);
  const [head, tail] = text.split("::");
  const groups = (part: string | undefined) => (part ? part.split(":").map((group) => parseInt(group, 16)) : []);
  const front = groups(head);
  const back = groups(tail);
  return [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back].flatMap(be16);
}

/** A whole IPv4 or IPv6 packet; by default UDP without payload. */
export function makePacket(fields: PacketFields): Uint8Array {
  const source = addressOctets(fields.source);
  const destination = addressOctets(fields.destination);
  const isV4 = source.length === 4;
  const kind = fields.protocol ?? "udp";
  const protocol = kind === "tcp" ? 6 : kind === "udp" ? 17 : isV4 ? 1 : 58;
  const transport = Uint8Array.from(transportOf(fields, kind, isV4));
  const pseudo = isV4
    ? [...source, ...destination, 0, protocol, ...be16(transport.length)]
    : [...source, ...destination, ...be32(transport.length), 0, 0, 0, protocol];
  const checksumAt = kind === "tcp" ? 16 : kind === "udp" ? 6 : 2;
  const covered = kind === "icmp" && isV4 ? transport : Uint8Array.from([...pseudo, ...transport]);
  const checksum = ones(covered) || (kind === "udp" ? 0xffff : 0);
  transport.set(be16(checksum), checksumAt);
  return Uint8Array.from([...ipHeader(fields, source, destination, protocol, transport.length), ...transport]);
}

function transportOf(fields: PacketFields, kind: string, isV4: boolean): number[] {
  const payload = [...(fields.payload ?? [])];
  const ports = [...be16(fields.sourcePort ?? 40000), ...be16(fields.destinationPort ?? 80)];
  if (kind === "tcp") {
    const flags = fields.flags ?? 0x10;
    return [
      ...ports,
      ...be32(fields.sequence ?? 1),
      ...be32(fields.acknowledgement ?? 1),
      0x50,
      flags,
      0xff,
      0xff,
      0,
      0,
      0,
      0,
      ...payload,
    ];
  }
  if (kind === "udp") return [...ports, ...be16(8 + payload.length), 0, 0, ...payload];
  return [fields.icmpType ?? (isV4 ? 8 : 128), fields.icmpCode ?? 0, 0, 0, ...be16(fields.id ?? 7), 0, 1, ...payload];
}

function ipHeader(
  fields: PacketFields,
  source: number[],
  destination: number[],
  protocol: number,
  payloadBytes: number,
): number[] {
  const trafficClass = fields.trafficClass ?? 0;
  const ttl = fields.ttl ?? 64;
  if (source.length === 4) {
    const header = Uint8Array.from([
      0x45,
      trafficClass,
      ...be16(20 + payloadBytes),
      0,
      1,
      0x40,
      0,
      ttl,
      protocol,
      0,
      0,
      ...source,
      ...destination,
    ]);
    header.set(be16(ones(header)), 10);
    return [...header];
  }
  return [
    0x60 | (trafficClass >> 4),
    (trafficClass & 15) << 4,
    0,
    0,
    ...be16(payloadBytes),
    protocol,
    ttl,
    ...source,
    ...destination,
  ];
}
