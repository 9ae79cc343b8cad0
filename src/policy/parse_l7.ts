/**
 * What a proxy has to judge on the ports of a block: HTTP requests, or the names that DNS is asked for.
 * @see facts policy.md sections 7, 8 and 13
 */
import { ANY_NAME } from "../fqdn/pattern.ts";
import type { PolicyFeatures } from "./features.ts";
import { field, type Fields, joinPath, type Problems, quote } from "./fields.ts";
import { type DnsRule, type HeaderMatch, type HttpRule, INGRESS, type L7Rules, PROTOCOL_SCTP } from "./model.ts";
import { readName } from "./parse_fqdn.ts";
import type { CiliumPort, Ports } from "./parse_ports.ts";
import type { Section } from "./parse_section.ts";

/** The block that L7 rules stand in. */
export interface BlockOfRules {
  readonly section: Section;
  readonly ports: Ports;
  /** how the ports were written */
  readonly listed: readonly CiliumPort[];
  /** path of the list of ports */
  readonly portsAt: string;
}

const KINDS = ["http", "dns"] as const;
const REMOVED_KINDS = ["kafka", "l7proto", "l7"];

/** @param value what stands under `rules`; without any rule in it the block is one of plain ports */
export function readL7(
  value: unknown,
  path: string,
  block: BlockOfRules,
  problems: Problems,
): { ports: Ports; l7: L7Rules | undefined } {
  const none = { ports: block.ports, l7: undefined };
  const rules = value === undefined ? undefined : problems.object(value, path, [...KINDS, ...REMOVED_KINDS]);
  if (rules === undefined) return none;
  for (const name of REMOVED_KINDS) {
    if (field(rules, name) !== undefined) {
      problems.add(
        joinPath(path, name),
        "REMOVED",
        `${name} was removed in Cilium 1.20; only http and dns can be judged`,
      );
    }
  }
  const given = KINDS.filter((name) => field(rules, name) !== undefined);
  if (given.length > 1) problems.add(path, "CONFLICT", "Block with both http and dns; write a block for each");
  const kind = given[0];
  if (kind === undefined) return none;
  const at = joinPath(path, kind);
  checkPlace(kind, at, block, problems);
  const items = problems.items(field(rules, kind), at);
  if (items === undefined) return none;
  if (items.length === 0) {
    const everything = kind === "http" ? "[{}]" : '[{matchPattern: "*"}]';
    problems.add(at, "MISSING", `An empty list of rules; ${everything} lets everything through`);
  }
  const lets = <T>(read: (item: unknown, path: string) => T | undefined, everything: T): T[] => {
    const list: T[] = [];
    items.forEach((item, i) => {
      const rule = read(item, `${at}[${i}]`);
      if (rule !== undefined) list.push(rule);
    });
    // Where nothing is closed, the rules only make what they match visible.
    return block.section.closes ? list : [...list, everything];
  };
  if (kind === "http") {
    const { features } = block.section;
    const http = lets<HttpRule>((item, path) => readHttpRule(item, path, features, problems), { headers: [] });
    return { ports: block.ports, l7: { kind, rules: http } };
  }
  const dns = lets<DnsRule>((item, path) => {
    const pattern = readName(item, path, problems);
    return pattern === undefined ? undefined : { pattern };
  }, { pattern: ANY_NAME });
  return { ports: withoutSctp(block.ports), l7: { kind, rules: dns } };
}

/** DNS has no SCTP, though the word ANY names it. */
function withoutSctp({ ranges, names }: Ports): Ports {
  return {
    ranges: ranges.filter(({ protocol }) => protocol !== PROTOCOL_SCTP),
    names: names.map(({ name, protocols }) => ({ name, protocols: protocols.filter((p) => p !== PROTOCOL_SCTP) })),
  };
}

/** Whether rules of this kind may stand where they do, beside these ports. */
function checkPlace(kind: "http" | "dns", path: string, block: BlockOfRules, problems: Problems): void {
  const { section, listed, portsAt } = block;
  const isIngress = section.direction === INGRESS;
  if (!(section.features.l7Proxy ?? true)) {
    problems.add(path, "TURNED_OFF", `${kind} rules need enable-l7-proxy, which is off`);
  }
  if (kind === "dns" && isIngress) {
    problems.add(path, "CONFLICT", "dns rules are for egress only: they say what the endpoint may ask for");
  } else if (section.isForNodes && kind === "http") {
    problems.add(
      path,
      "CONFLICT",
      "http rules need an endpointSelector; with a nodeSelector only dns on egress is judged",
    );
  }
  if (kind === "dns" && listed.length === 0) {
    problems.add(portsAt, "MISSING", 'dns rules need the port of the resolver: [{port: "53", protocol: ANY}]');
  }
  for (const { path: at, protocol, isZero, isRange } of listed) {
    if (isZero) problems.add(joinPath(at, "port"), "CONFLICT", `${kind} rules need ports, not 0 for every port`);
    if (kind === "dns") {
      if (isRange) problems.add(joinPath(at, "endPort"), "CONFLICT", "dns rules need single ports, not a range");
      if (!["TCP", "UDP", "ANY"].includes(protocol)) {
        problems.add(joinPath(at, "protocol"), "CONFLICT", `dns rules need TCP, UDP or ANY, not ${protocol}`);
      }
    } else if (protocol !== "TCP") {
      const found = protocol === "ANY" ? "ANY (which is the default)" : protocol;
      problems.add(joinPath(at, "protocol"), "CONFLICT", `http rules need protocol TCP, not ${found}`);
    }
  }
}

const EXPRESSION_FIELDS = ["method", "path", "host"] as const;

function readHttpRule(item: unknown, path: string, features: PolicyFeatures, problems: Problems): HttpRule | undefined {
  const fields = problems.object(item, path, [...EXPRESSION_FIELDS, "headers", "headerMatches"]);
  if (fields === undefined) return undefined;
  const rule: { method?: string; path?: string; host?: string; headers: HeaderMatch[] } = { headers: [] };
  for (const name of EXPRESSION_FIELDS) {
    const expression = readExpression(field(fields, name), joinPath(path, name), features, problems);
    if (expression !== undefined) rule[name] = expression;
  }
  readEach(field(fields, "headers"), joinPath(path, "headers"), problems, readHeader, rule.headers);
  readEach(field(fields, "headerMatches"), joinPath(path, "headerMatches"), problems, readHeaderMatch, rule.headers);
  return rule;
}

/** `undefined` for absent and empty: anything matches. */
function readExpression(
  value: unknown,
  path: string,
  features: PolicyFeatures,
  problems: Problems,
): string | undefined {
  const text = value === undefined ? undefined : problems.text(value, path);
  if (text === undefined || text === "") return undefined;
  const wrong = features.checkRegex?.(text);
  if (wrong === undefined) return text;
  return problems.add(path, "BAD_VALUE", `${quote(text)} is no regular expression (RE2): ${wrong}`);
}

function readEach<T>(
  value: unknown,
  path: string,
  problems: Problems,
  read: (item: unknown, path: string, problems: Problems) => T | undefined,
  into: T[],
): void {
  if (value === undefined) return;
  problems.items(value, path)?.forEach((item, i) => {
    const one = read(item, `${path}[${i}]`, problems);
    if (one !== undefined) into.push(one);
  });
}

/** `Name`, or `Name: value`; the colon may be missing, as in Cilium. */
function readHeader(item: unknown, path: string, problems: Problems): HeaderMatch | undefined {
  const text = problems.text(item, path);
  if (text === undefined) return undefined;
  const [, head, rest] = /^([^:\s]*)(?::\s*|\s+|$)(.*)$/s.exec(text) ?? [];
  const name = readHeaderName(head || text, path, problems);
  if (name === undefined) return undefined;
  const value = readHeaderValue((rest ?? "").trim(), path, problems);
  return value === undefined ? undefined : value === "" ? { name } : { name, value };
}

/** They say how a message is read, or end at the proxy. @see RFC 9110 section 7.6.1 */
const PROXY_HEADERS = [
  "connection",
  "content-length",
  "expect",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
const MISMATCHES = ["LOG", "ADD", "DELETE", "REPLACE"] as const;

function readHeaderMatch(item: unknown, path: string, problems: Problems): HeaderMatch | undefined {
  const fields = problems.object(item, path, ["name", "value", "secret", "mismatch"]);
  if (fields === undefined) return undefined;
  if (field(fields, "secret") !== undefined) {
    problems.add(
      joinPath(path, "secret"),
      "UNSUPPORTED_SECRET",
      "secret is not supported: there are none; write a value",
    );
  }
  const nameAt = joinPath(path, "name");
  const nameValue = field(fields, "name");
  const nameText = nameValue === undefined
    ? problems.add(nameAt, "MISSING", "Header match without a name")
    : problems.text(nameValue, nameAt);
  const name = nameText === undefined ? undefined : readHeaderName(nameText, nameAt, problems);
  const value = readValueField(fields, path, problems);
  const mismatchValue = field(fields, "mismatch");
  const mismatch = mismatchValue === undefined || mismatchValue === ""
    ? undefined
    : problems.word(mismatchValue, joinPath(path, "mismatch"), MISMATCHES);
  if (mismatch !== undefined && mismatch !== "LOG" && name !== undefined && PROXY_HEADERS.includes(name)) {
    problems.add(
      joinPath(path, "mismatch"),
      "CONFLICT",
      `The proxy itself writes the header ${name}; only LOG can be done`,
    );
  }
  if ((mismatch === "ADD" || mismatch === "REPLACE") && value === "") {
    problems.add(joinPath(path, "value"), "MISSING", `${mismatch} needs the value that the header is to have`);
  }
  if (name === undefined || value === undefined) return undefined;
  return { name, ...(value !== "" && { value }), ...(mismatch !== undefined && { mismatch }) };
}

/** Empty when there is none. */
function readValueField(fields: Fields, path: string, problems: Problems): string | undefined {
  const at = joinPath(path, "value");
  const value = field(fields, "value");
  const text = value === undefined ? "" : problems.text(value, at);
  return text === undefined ? undefined : readHeaderValue(text, at, problems);
}

/** In lower case. @see RFC 9110 section 5.6.2 (token) */
function readHeaderName(text: string, path: string, problems: Problems): string | undefined {
  if (text.length <= 256 && /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(text)) return text.toLowerCase();
  const hint = text.startsWith(":") ? "; use method, path and host" : "";
  return problems.add(path, "BAD_VALUE", `${quote(text)} is no header name${hint}`);
}

/** @see RFC 9110 section 5.5 */
function readHeaderValue(text: string, path: string, problems: Problems): string | undefined {
  if (/^[\t\x20-\x7e\x80-\xff]*$/.test(text)) return text;
  return problems.add(
    path,
    "BAD_VALUE",
    `${quote(text)} is no header value: it has characters that headers cannot have`,
  );
}
