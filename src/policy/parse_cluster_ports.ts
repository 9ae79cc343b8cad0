/**
 * Ports of ClusterNetworkPolicy (`protocols`) and of its forerunners (`ports`). Each entry says exactly one thing.
 * @see facts policy.md section 14
 */
import { field, type Fields, joinPath, type Problems, quote } from "./fields.ts";
import { PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOLS_ANY } from "./model.ts";
import { isKubernetesPortName, LAST_PORT, NUMBER_OF_PROTOCOL, type Ports } from "./parse_ports.ts";

/** How the entries of a list are read. */
export interface PortReader {
  /** fields, one of which is set */
  readonly known: readonly string[];
  readonly entry: (name: string, value: unknown, path: string, problems: Problems, into: Ports) => void;
}

const PROTOCOL_OF_FIELD: Readonly<Record<string, number>> = {
  tcp: PROTOCOL_TCP,
  udp: PROTOCOL_UDP,
  sctp: PROTOCOL_SCTP,
};

/** `{tcp: {destinationPort: {number: 80}}}`, or `{destinationNamedPort: "web"}`. */
export const readProtocol: PortReader = {
  known: ["tcp", "udp", "sctp", "destinationNamedPort"],
  entry: (name, value, path, problems, into) => {
    if (name === "destinationNamedPort") readPortName(value, path, problems, into);
    else readDestinationPort(PROTOCOL_OF_FIELD[name]!, value, path, problems, into);
  },
};

/** `{portNumber: {port: 80}}`, `{portRange: {start: 80, end: 90}}`, or `{namedPort: "web"}`. */
export const readAdminPort: PortReader = {
  known: ["portNumber", "namedPort", "portRange"],
  entry: (name, value, path, problems, into) => {
    if (name === "namedPort") {
      readPortName(value, path, problems, into);
      return;
    }
    const isRange = name === "portRange";
    const fields = problems.object(value, path, ["protocol", ...(isRange ? ["start", "end"] : ["port"])]);
    if (fields === undefined) return;
    const protocolValue = field(fields, "protocol");
    const word = protocolValue === undefined
      ? "TCP"
      : problems.word(protocolValue, joinPath(path, "protocol"), ["TCP", "UDP", "SCTP"]);
    const protocol = word === undefined ? undefined : NUMBER_OF_PROTOCOL[word];
    if (isRange) readRange(protocol, fields, path, problems, into);
    else {
      const port = readPort(fields, "port", path, problems);
      if (port !== undefined && protocol !== undefined) into.ranges.push({ protocol, first: port, last: port });
    }
  },
};

function readDestinationPort(protocol: number, value: unknown, path: string, problems: Problems, into: Ports): void {
  const fields = problems.object(value, path, ["destinationPort"]);
  if (fields === undefined) return;
  const at = joinPath(path, "destinationPort");
  const port = field(fields, "destinationPort");
  if (port === undefined) {
    problems.add(
      at,
      "MISSING",
      `Entry without a destinationPort; {range: {start: 1, end: ${LAST_PORT}}} is all of them`,
    );
    return;
  }
  const inner = problems.object(port, at, ["number", "range"]);
  if (inner === undefined) return;
  const range = field(inner, "range");
  const number = field(inner, "number");
  if (number !== undefined && range !== undefined) {
    problems.add(at, "CONFLICT", "Port with both number and range; exactly one is meant");
  } else if (range !== undefined) {
    const rangeAt = joinPath(at, "range");
    const ends = problems.object(range, rangeAt, ["start", "end"]);
    if (ends !== undefined) readRange(protocol, ends, rangeAt, problems, into);
  } else if (number === undefined) problems.add(at, "MISSING", "Port without a number or a range");
  else {
    const one = readPort(inner, "number", at, problems);
    if (one !== undefined) into.ranges.push({ protocol, first: one, last: one });
  }
}

function readRange(protocol: number | undefined, fields: Fields, path: string, problems: Problems, into: Ports): void {
  const first = readPort(fields, "start", path, problems);
  const last = readPort(fields, "end", path, problems);
  if (first === undefined || last === undefined) return;
  if (last <= first) {
    problems.add(joinPath(path, "end"), "BAD_VALUE", `The end ${last} is not above the start ${first}`);
  } else if (protocol !== undefined) into.ranges.push({ protocol, first, last });
}

function readPort(fields: Fields, name: string, path: string, problems: Problems): number | undefined {
  const at = joinPath(path, name);
  const value = field(fields, name);
  return value === undefined
    ? problems.add(at, "MISSING", `Entry without a ${name}`)
    : problems.integer(value, at, 1, LAST_PORT);
}

/** The protocol is that of the port that has the name. */
function readPortName(value: unknown, path: string, problems: Problems, into: Ports): void {
  const name = problems.text(value, path);
  if (name === undefined) return;
  if (isKubernetesPortName(name)) into.names.push({ name, protocols: PROTOCOLS_ANY });
  else problems.add(path, "BAD_VALUE", `${quote(name)} is no port name: up to 15 of a-z, 0-9, "-", with a letter`);
}
