/** Reads the probes of a scenario. */
import { RESERVED_LABELS, reservedOfName } from "../../src/identity/reserved.ts";
import { didYouMean, field, type Fields, joinPath, type Problems, quote } from "../../src/policy/fields.ts";
import { addressOf, labelsOf, textAt } from "./read_values.ts";
import { type HttpRequest, type Probe, PROBE_PROTOCOLS, type ProbeEnd, type ProbeProtocol } from "./scenario.ts";

const PROBE_FIELDS = [
  "from",
  "fromIP",
  "to",
  "toIP",
  "proto",
  "port",
  "icmpType",
  "side",
  "reply",
  "http",
  "httpStatus",
  "dns",
  "dnsRcode",
  "sni",
  "expect",
  "dropReason",
  "verdict",
  "note",
];
const ECHO_REQUEST = { ICMP: 8, ICMPv6: 128 };

/** @param refs endpoints of the scenario */
export function readProbes(value: unknown, path: string, refs: readonly string[], problems: Problems): Probe[] {
  const probes: Probe[] = [];
  problems.items(value, path)?.forEach((item, i) => {
    const probe = readProbe(item, `${path}[${i}]`, refs, problems);
    if (probe !== undefined) probes.push(probe);
  });
  return probes;
}

function readProbe(item: unknown, path: string, refs: readonly string[], problems: Problems): Probe | undefined {
  const fields = problems.object(item, path, PROBE_FIELDS);
  if (fields === undefined) return undefined;
  textAt(fields, path, "note", problems);
  const from = readEnd(fields, path, "from", refs, problems);
  const to = readEnd(fields, path, "to", refs, problems);
  const proto = problems.word(field(fields, "proto") ?? "TCP", joinPath(path, "proto"), PROBE_PROTOCOLS);
  const expect = problems.word(field(fields, "expect"), joinPath(path, "expect"), ["allow", "deny"]);
  const port = proto === undefined ? undefined : readPort(fields, path, proto, problems);
  const reply = field(fields, "reply");
  const isReply = reply === undefined ? false : problems.boolean(reply, joinPath(path, "reply")) ?? false;
  const side = problems.word(field(fields, "side") ?? "both", joinPath(path, "side"), ["egress", "ingress", "both"]);
  const http = readHttp(field(fields, "http"), joinPath(path, "http"), problems);
  const rest = {
    isReply,
    http: http?.request,
    httpStatus: readNumber(fields, path, "httpStatus", 100, 599, problems) ?? http?.status,
    ...readDns(fields, path, problems),
    sni: textAt(fields, path, "sni", problems),
    dropReason: readNumber(fields, path, "dropReason", 0, 65535, problems),
    verdict: textAt(fields, path, "verdict", problems),
    given: item,
  };
  if (from === undefined || to === undefined || proto === undefined || port === undefined) return undefined;
  return expect === undefined || side === undefined ? undefined : { from, to, proto, port, side, expect, ...rest };
}

/** `from` or `fromIP`: exactly one. */
function readEnd(
  fields: Fields,
  path: string,
  name: "from" | "to",
  refs: readonly string[],
  problems: Problems,
): ProbeEnd | undefined {
  const ref = textAt(fields, path, name, problems);
  const outside = field(fields, `${name}IP`);
  if (ref !== undefined && outside !== undefined) {
    return problems.add(joinPath(path, name), "CONFLICT", `Probe with both ${name} and ${name}IP`);
  }
  if (outside !== undefined) {
    const address = addressOf(outside, joinPath(path, `${name}IP`), problems);
    return address && { address };
  }
  if (ref === undefined) {
    if (field(fields, name) !== undefined) return undefined;
    return problems.add(joinPath(path, name), "MISSING", `Probe without ${name} or ${name}IP`);
  }
  if (refs.includes(ref) || isReservedRef(ref)) return { ref };
  return problems.add(
    joinPath(path, name),
    "BAD_VALUE",
    `${quote(ref)} is no endpoint of this scenario${didYouMean(ref, refs)}`,
  );
}

/** Reserved identities exist without being listed. */
export function isReservedRef(ref: string): boolean {
  return ref.startsWith("reserved:") && RESERVED_LABELS.has(reservedOfName(ref.slice("reserved:".length)) ?? -1);
}

function readPort(fields: Fields, path: string, proto: ProbeProtocol, problems: Problems): number | undefined {
  const isIcmp = proto === "ICMP" || proto === "ICMPv6";
  const stray = isIcmp ? "port" : "icmpType";
  if (field(fields, stray) !== undefined) {
    problems.add(joinPath(path, stray), "CONFLICT", `${stray} does not go with ${proto}`);
  }
  const name = isIcmp ? "icmpType" : "port";
  const port = readNumber(fields, path, name, 0, isIcmp ? 255 : 65535, problems);
  if (port !== undefined || field(fields, name) !== undefined) return port;
  if (isIcmp) return ECHO_REQUEST[proto];
  return problems.add(joinPath(path, name), "MISSING", `Probe without a port`);
}

function readNumber(
  fields: Fields,
  path: string,
  name: string,
  least: number,
  most: number,
  problems: Problems,
): number | undefined {
  const value = field(fields, name);
  return value === undefined ? undefined : problems.integer(value, joinPath(path, name), least, most);
}

function readHttp(
  value: unknown,
  path: string,
  problems: Problems,
): { request: HttpRequest; status: number | undefined } | undefined {
  const fields = value === undefined
    ? undefined
    : problems.object(value, path, ["method", "path", "host", "headers", "httpStatus"]);
  if (fields === undefined) return undefined;
  const request = {
    method: textAt(fields, path, "method", problems) ?? "GET",
    path: textAt(fields, path, "path", problems) ?? "/",
    host: textAt(fields, path, "host", problems),
    headers: labelsOf(field(fields, "headers"), joinPath(path, "headers"), problems),
  };
  return { request, status: readNumber(fields, path, "httpStatus", 100, 599, problems) };
}

function readDns(fields: Fields, path: string, problems: Problems): Pick<Probe, "dns" | "dnsRcode"> {
  const at = joinPath(path, "dns");
  const value = field(fields, "dns");
  const inner = value === undefined ? undefined : problems.object(value, at, ["name", "type", "dnsRcode"]);
  const name = inner && problems.text(field(inner, "name"), joinPath(at, "name"));
  const type = (inner && textAt(inner, at, "type", problems)) ?? "A";
  const code = field(fields, "dnsRcode") ?? (inner && field(inner, "dnsRcode"));
  const dnsRcode = code === undefined || typeof code === "number"
    ? code
    : problems.text(code, joinPath(path, "dnsRcode"));
  return { dns: name === undefined ? undefined : { name, type }, dnsRcode };
}
