/** Ports and ICMP types of both kinds of policy. @see facts policy.md sections 1 and 6 */
import type { PolicyFeatures } from "./features.ts";
import { field, joinPath, type Problems, quote } from "./fields.ts";
import {
  type PortName,
  type PortRange,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  PROTOCOLS_ANY,
} from "./model.ts";

/** What a rule's port part came to. */
export interface Ports {
  readonly ranges: PortRange[];
  readonly names: PortName[];
}

export const LAST_PORT = 65535;
const MAX_PORTS = 40;
const MAX_ICMP_FIELDS = 40;
/** What NetworkPolicy calls them. */
export const NUMBER_OF_PROTOCOL: Readonly<Record<string, number>> = {
  TCP: PROTOCOL_TCP,
  UDP: PROTOCOL_UDP,
  SCTP: PROTOCOL_SCTP,
};
/** Protocols without ports. */
const EXTENDED_PROTOCOLS: Readonly<Record<string, number>> = {
  VRRP: 112,
  IGMP: 2,
  GRE: 47,
  IPIP: 4,
  IPV6: 41,
  ESP: 50,
  AH: 51,
};

const ICMP_IPV4: Readonly<Record<string, number>> = {
  EchoReply: 0,
  DestinationUnreachable: 3,
  Redirect: 5,
  Echo: 8,
  EchoRequest: 8,
  RouterAdvertisement: 9,
  RouterSelection: 10,
  TimeExceeded: 11,
  ParameterProblem: 12,
  Timestamp: 13,
  TimestampReply: 14,
  Photuris: 40,
  ExtendedEchoRequest: 42,
  ExtendedEchoReply: 43,
};

const ICMP_IPV6: Readonly<Record<string, number>> = {
  DestinationUnreachable: 1,
  PacketTooBig: 2,
  TimeExceeded: 3,
  ParameterProblem: 4,
  EchoRequest: 128,
  EchoReply: 129,
  MulticastListenerQuery: 130,
  MulticastListenerReport: 131,
  MulticastListenerDone: 132,
  RouterSolicitation: 133,
  RouterAdvertisement: 134,
  NeighborSolicitation: 135,
  NeighborAdvertisement: 136,
  RedirectMessage: 137,
  RouterRenumbering: 138,
  ICMPNodeInformationQuery: 139,
  ICMPNodeInformationResponse: 140,
  InverseNeighborDiscoverySolicitation: 141,
  InverseNeighborDiscoveryAdvertisement: 142,
  HomeAgentAddressDiscoveryRequest: 144,
  HomeAgentAddressDiscoveryReply: 145,
  MobilePrefixSolicitation: 146,
  MobilePrefixAdvertisement: 147,
  DuplicateAddressRequestCodeSuffix: 157,
  DuplicateAddressConfirmationCodeSuffix: 158,
  ExtendedEchoRequest: 160,
  ExtendedEchoReply: 161,
};

/** One entry of a NetworkPolicy's `ports`. */
export function readKubernetesPort(item: unknown, path: string, problems: Problems, into: Ports): void {
  const fields = problems.object(item, path, ["protocol", "port", "endPort"]);
  if (fields === undefined) return;
  const protocolValue = field(fields, "protocol");
  const word = protocolValue === undefined
    ? "TCP"
    : problems.word(protocolValue, joinPath(path, "protocol"), ["TCP", "UDP", "SCTP"]);
  const protocol = word === undefined ? undefined : NUMBER_OF_PROTOCOL[word]!;
  const port = field(fields, "port");
  const end = field(fields, "endPort");
  const endAt = joinPath(path, "endPort");
  if (typeof port === "string") {
    if (end !== undefined) problems.add(endAt, "CONFLICT", "endPort needs a port number, not a name");
    if (!isKubernetesPortName(port)) {
      const hint = /^[0-9]+$/.test(port)
        ? `: write ${port} without quotes`
        : `: up to 15 of a-z, 0-9, "-", with a letter`;
      problems.add(joinPath(path, "port"), "BAD_VALUE", `${quote(port)} is no port name${hint}`);
    } else if (protocol !== undefined) into.names.push({ name: port, protocols: [protocol] });
    return;
  }
  if (port === undefined) {
    if (end !== undefined) problems.add(endAt, "CONFLICT", "endPort without a port");
    else if (protocol !== undefined) into.ranges.push({ protocol, first: 0, last: LAST_PORT });
    return;
  }
  const first = problems.integer(port, joinPath(path, "port"), 1, LAST_PORT);
  const last = end === undefined ? first : problems.integer(end, endAt, 1, LAST_PORT);
  if (first === undefined || last === undefined || protocol === undefined) return;
  if (last < first) problems.add(endAt, "BAD_VALUE", `endPort ${last} is below port ${first}`);
  else into.ranges.push({ protocol, first, last });
}

/** An IANA service name. @see RFC 6335 section 5.1 */
export function isKubernetesPortName(name: string): boolean {
  return name.length <= 15 && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) && /[a-z]/.test(name);
}

/** How a port of a Cilium policy was written. */
export interface CiliumPort {
  readonly path: string;
  /** ANY when there was none */
  readonly protocol: string;
  /** port 0: every port */
  readonly isZero: boolean;
  readonly isRange: boolean;
}

/**
 * The `ports` of one block of a Cilium policy's `toPorts`; none when there is no list.
 * @returns how they were written, those that could be read
 */
export function readCiliumPorts(
  value: unknown,
  path: string,
  features: PolicyFeatures,
  problems: Problems,
  into: Ports,
): CiliumPort[] {
  const items = value === undefined ? undefined : problems.items(value, path);
  if (items === undefined) return [];
  if (items.length > MAX_PORTS) {
    problems.add(path, "TOO_MANY", `${items.length} ports in one block, more than ${MAX_PORTS}; write several blocks`);
    return [];
  }
  return items.flatMap((item, i) => readCiliumPort(item, `${path}[${i}]`, features, problems, into) ?? []);
}

function readCiliumPort(
  item: unknown,
  path: string,
  features: PolicyFeatures,
  problems: Problems,
  into: Ports,
): CiliumPort | undefined {
  const fields = problems.object(item, path, ["port", "endPort", "protocol"]);
  if (fields === undefined) return undefined;
  const protocol = readCiliumProtocol(field(fields, "protocol"), joinPath(path, "protocol"), features, problems);
  const portValue = field(fields, "port");
  const portAt = joinPath(path, "port");
  const endValue = field(fields, "endPort");
  const end = endValue === undefined ? 0 : problems.integer(endValue, joinPath(path, "endPort"), 0, LAST_PORT);
  const hasPorts = protocol?.hasPorts ?? true;
  const text = portValue === undefined
    ? hasPorts ? problems.add(portAt, "MISSING", 'Port without a number or name; "0" stands for every port') : "0"
    : problems.text(portValue, portAt);
  if (text === undefined || protocol === undefined || end === undefined) return undefined;
  const { word, numbers } = protocol;
  if (!hasPorts && text !== "" && !/^0+$/.test(text)) {
    return problems.add(portAt, "CONFLICT", `Protocol ${word} has no ports; leave the port out, or write "0"`);
  }
  if (!hasPorts || /^[0-9]+$/.test(text)) {
    const first = Number(text);
    if (first > LAST_PORT) return problems.add(portAt, "BAD_VALUE", `Port ${quote(text)} is above ${LAST_PORT}`);
    for (const number of numbers) into.ranges.push(rangeFrom(number, first, end));
    return { path, protocol: word, isZero: first === 0, isRange: first !== 0 && end > first };
  }
  if (!isCiliumPortName(text)) {
    return problems.add(portAt, "BAD_VALUE", `${quote(text)} is neither a port (0 to ${LAST_PORT}) nor a port name`);
  }
  into.names.push({ name: text.toLowerCase(), protocols: numbers });
  return { path, protocol: word, isZero: false, isRange: false };
}

/** Port 0 is all of them; an end at or below the port is no range. */
function rangeFrom(protocol: number, first: number, end: number): PortRange {
  if (first === 0) return { protocol, first: 0, last: LAST_PORT };
  return { protocol, first, last: Math.max(first, end) };
}

function isCiliumPortName(name: string): boolean {
  return name.length <= 15 && /^([a-zA-Z0-9]-?)*[a-zA-Z0-9]$/.test(name) && /[a-zA-Z]/.test(name);
}

/** A protocol as it was written, and what it stands for. */
interface CiliumProtocol {
  readonly word: string;
  /** IP protocol numbers */
  readonly numbers: readonly number[];
  readonly hasPorts: boolean;
}

const ANY: CiliumProtocol = { word: "ANY", numbers: PROTOCOLS_ANY, hasPorts: true };

function readCiliumProtocol(
  value: unknown,
  path: string,
  features: PolicyFeatures,
  problems: Problems,
): CiliumProtocol | undefined {
  if (value === undefined) return ANY;
  const word = problems.text(value, path);
  if (word === undefined) return undefined;
  if (word === "ANY" || word === "") return ANY;
  if (Object.hasOwn(NUMBER_OF_PROTOCOL, word)) return { word, numbers: [NUMBER_OF_PROTOCOL[word]!], hasPorts: true };
  if (Object.hasOwn(EXTENDED_PROTOCOLS, word)) {
    if (features.extendedProtocols ?? false) return { word, numbers: [EXTENDED_PROTOCOLS[word]!], hasPorts: false };
    return problems.add(path, "TURNED_OFF", `Protocol ${word} needs enable-extended-ip-protocols, which is off`);
  }
  if (/^icmp/i.test(word)) {
    return problems.add(path, "BAD_VALUE", `Protocol ${quote(word)} has no ports; use the field "icmps"`);
  }
  const words = ["TCP", "UDP", "SCTP", "ANY"];
  return problems.add(
    path,
    "BAD_VALUE",
    `${quote(word)} is not one of ${words.join(", ")}${problems.hint(word, words)}`,
  );
}

/** One entry of `icmps`. The type stands where a port would. */
export function readIcmps(item: unknown, path: string, problems: Problems, into: Ports): void {
  const rule = problems.object(item, path, ["fields"]);
  const listed = rule && field(rule, "fields");
  if (listed === undefined) return;
  const at = joinPath(path, "fields");
  const items = problems.items(listed, at);
  if (items === undefined) return;
  if (items.length > MAX_ICMP_FIELDS) {
    problems.add(at, "TOO_MANY", `More than ${MAX_ICMP_FIELDS} ICMP fields in one entry`);
  } else items.forEach((one, i) => readIcmpField(one, `${at}[${i}]`, problems, into));
}

function readIcmpField(item: unknown, path: string, problems: Problems, into: Ports): void {
  const fields = problems.object(item, path, ["family", "type"]);
  if (fields === undefined) return;
  const familyValue = field(fields, "family");
  const family = familyValue === undefined
    ? "IPv4"
    : problems.word(familyValue, joinPath(path, "family"), ["IPv4", "IPv6"]);
  const typeAt = joinPath(path, "type");
  const typeValue = field(fields, "type");
  if (typeValue === undefined) problems.add(typeAt, "MISSING", "ICMP field without a type");
  if (family === undefined || typeValue === undefined) return;
  const names = family === "IPv4" ? ICMP_IPV4 : ICMP_IPV6;
  const type = readIcmpType(typeValue, typeAt, family, names, problems);
  if (type === undefined) return;
  into.ranges.push({ protocol: family === "IPv4" ? PROTOCOL_ICMP : PROTOCOL_ICMPV6, first: type, last: type });
}

function readIcmpType(
  value: unknown,
  path: string,
  family: string,
  names: Readonly<Record<string, number>>,
  problems: Problems,
): number | undefined {
  if (typeof value !== "string") return problems.integer(value, path, 0, 255);
  if (/^[0-9]{1,6}$/.test(value)) return problems.integer(Number(value), path, 0, 255);
  if (Object.hasOwn(names, value)) return names[value];
  return problems.add(
    path,
    "BAD_VALUE",
    `${quote(value)} is no ICMP type of ${family}${problems.hint(value, Object.keys(names))}`,
  );
}
