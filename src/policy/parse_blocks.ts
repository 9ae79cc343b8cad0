/** The L4 part of an entry of a Cilium policy: `toPorts` with what a proxy judges, or `icmps`. @see facts policy.md sections 6, 7, 13 */
import { field, type Fields, joinPath, type Problems } from "./fields.ts";
import type { L7Rules } from "./model.ts";
import { readL7 } from "./parse_l7.ts";
import { type Ports, readCiliumPorts, readIcmps } from "./parse_ports.ts";
import type { Section } from "./parse_section.ts";

/** A block whose traffic a proxy judges. */
export interface ProxiedBlock {
  readonly ports: Ports;
  readonly l7: L7Rules;
  readonly path: string;
}

export interface PortPart {
  /** of all blocks without L7 rules, and of ICMP; `undefined` when there is none of them */
  readonly plain: Ports | undefined;
  readonly proxied: readonly ProxiedBlock[];
}

/** The L4 part: `undefined` when there is none (every protocol and port). */
export function readPortPart(entry: Fields, path: string, section: Section, problems: Problems): PortPart | undefined {
  const blocksAt = joinPath(path, "toPorts");
  const icmpsAt = joinPath(path, "icmps");
  const blocks = listOf(field(entry, "toPorts"), blocksAt, problems);
  const icmps = listOf(field(entry, "icmps"), icmpsAt, problems);
  if (icmps.length > 0 && !(section.features.icmpRules ?? true)) {
    problems.add(icmpsAt, "TURNED_OFF", "icmps needs enable-icmp-rules, which is off");
  }
  if (blocks.length > 0 && icmps.length > 0) {
    problems.add(icmpsAt, "CONFLICT", "icmps and toPorts need entries of their own");
  }
  if (blocks.length === 0 && icmps.length === 0) return undefined;
  const plain: Ports = { ranges: [], names: [] };
  const proxied: ProxiedBlock[] = [];
  let hasPlain = icmps.length > 0;
  blocks.forEach((item, i) => {
    const block = readBlock(item, `${blocksAt}[${i}]`, section, problems);
    if (block === undefined) return;
    const { ports, l7 } = block;
    if (l7 !== undefined) {
      proxied.push({ ports, l7, path: `${blocksAt}[${i}]` });
      return;
    }
    hasPlain = true;
    plain.ranges.push(...ports.ranges);
    plain.names.push(...ports.names);
  });
  icmps.forEach((icmp, i) => readIcmps(icmp, `${icmpsAt}[${i}]`, problems, plain));
  return { plain: hasPlain ? plain : undefined, proxied };
}

interface Block {
  readonly ports: Ports;
  readonly l7: L7Rules | undefined;
}

const PROXY_FIELDS = ["rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"];

function readBlock(item: unknown, path: string, section: Section, problems: Problems): Block | undefined {
  const block = problems.object(item, path, ["ports", ...PROXY_FIELDS]);
  if (block === undefined) return undefined;
  const ports: Ports = { ranges: [], names: [] };
  const portsAt = joinPath(path, "ports");
  const listed = readCiliumPorts(field(block, "ports"), portsAt, section.features, problems, ports);
  if (section.verdict === "deny") {
    refuseInDeny(block, path, problems);
    return { ports, l7: undefined };
  }
  refuseEnvoy(block, path, problems);
  return readL7(field(block, "rules"), joinPath(path, "rules"), { section, ports, listed, portsAt }, problems);
}

function refuseInDeny(block: Fields, path: string, problems: Problems): void {
  for (const name of PROXY_FIELDS) {
    if (field(block, name) === undefined) continue;
    const message = `A deny rule is about ports only; allow what is wanted by ${name} in a rule that allows`;
    problems.add(joinPath(path, name), "CONFLICT", message);
  }
}

const NO_TLS = "is not supported: the proxy reads no TLS; leave the L7 rules of this port out";

/** What only Envoy does. */
const REFUSED: readonly (readonly [string, "UNSUPPORTED_TLS" | "UNSUPPORTED_LISTENER", string])[] = [
  ["terminatingTLS", "UNSUPPORTED_TLS", NO_TLS],
  ["originatingTLS", "UNSUPPORTED_TLS", NO_TLS],
  ["serverNames", "UNSUPPORTED_TLS", "is not supported: the proxy reads no TLS; limit egress by toFQDNs"],
  ["listener", "UNSUPPORTED_LISTENER", "is not supported: there is no Envoy to listen; leave it out"],
];

function refuseEnvoy(block: Fields, path: string, problems: Problems): void {
  for (const [name, code, message] of REFUSED) {
    if (field(block, name) !== undefined) problems.add(joinPath(path, name), code, `${name} ${message}`);
  }
}

function listOf(value: unknown, path: string, problems: Problems): readonly unknown[] {
  return value === undefined ? [] : (problems.items(value, path) ?? []);
}
