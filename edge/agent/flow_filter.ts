/**
 * Which flows somebody wants to see: Hubble's filters, as query parameters of `GET /v1/flows` and as flags of `edgemesh observe`.
 * Values of one filter are alternatives, filters must all hold.
 */
import { type IpPrefix, parseAddress, parsePrefixOrAddress, prefixContains } from "../../src/ip/address.ts";
import { nearest } from "../config.ts";
import { choice, integer } from "../config_values.ts";
import type { FlowDocument } from "./documents.ts";

/** Whether a flow is wanted. */
export type FlowFilter = (flow: FlowDocument) => boolean;

interface FilterSpec {
  readonly value: string;
  readonly help: string;
  /** @throws RangeError with a sentence that starts with "must" */
  readonly make: (text: string, compile: CompileRegex) => FlowFilter;
}

/** RE2, the whole text has to match; undefined for what cannot be compiled. Given from outside: it is heavy. */
export type CompileRegex = (source: string) => { matches(text: string): boolean } | undefined;

const PROTOCOLS = ["tcp", "udp", "icmp", "icmpv4", "icmpv6", "sctp", "http", "dns"] as const;
const TYPES = ["l3_l4", "l7", "drop"] as const;
const VERDICTS = ["FORWARDED", "DROPPED", "REDIRECTED", "AUDIT"] as const;
/** Filters that need `CompileRegex`. */
export const REGEX_FILTERS: readonly string[] = ["http-path"];

/** By flag and parameter name. */
export const FLOW_FILTERS: Readonly<Record<string, FilterSpec>> = {
  "verdict": {
    value: "VERDICT",
    help: "FORWARDED, DROPPED, REDIRECTED or AUDIT",
    make: (text) => {
      const verdict = choice(...VERDICTS)(text.toUpperCase());
      return (flow) => flow.verdict === verdict;
    },
  },
  "type": {
    value: "TYPE",
    help: "l3_l4, l7, or drop",
    make: (text) => {
      const type = choice(...TYPES)(text.toLowerCase());
      return (flow) =>
        type === "drop" ? flow.type === "L3_L4" && flow.verdict === "DROPPED" : flow.type === type.toUpperCase();
    },
  },
  "protocol": {
    value: "PROTOCOL",
    help: "tcp, udp, icmp, icmpv6, sctp, http or dns",
    make: (text) => {
      const word = choice(...PROTOCOLS)(text.toLowerCase());
      if (word === "http") return (flow) => flow.http !== null;
      if (word === "dns") return (flow) => flow.dns !== null;
      if (word === "icmp") return (flow) => flow.protocol === "ICMP" || flow.protocol === "ICMPv6";
      const name = word === "icmpv4" ? "icmp" : word;
      return (flow) => flow.protocol.toLowerCase() === name;
    },
  },
  "ip": { value: "ADDRESS", help: "address or prefix at either end", make: (text) => atEither(within(text)) },
  "from-ip": {
    value: "ADDRESS",
    help: "address or prefix at the source",
    make: (text) => at("source", within(text)),
  },
  "to-ip": {
    value: "ADDRESS",
    help: "address or prefix at the destination",
    make: (text) => at("destination", within(text)),
  },
  "port": { value: "PORT", help: "port at either end", make: (text) => atEither(withPort(text)) },
  "from-port": { value: "PORT", help: "port at the source", make: (text) => at("source", withPort(text)) },
  "to-port": { value: "PORT", help: "port at the destination", make: (text) => at("destination", withPort(text)) },
  "identity": {
    value: "NUMBER",
    help: "security identity at either end",
    make: (text) => {
      const identity = integer(0, 0xffffffff)(text);
      return atEither((end) => end.identity === identity);
    },
  },
  "traffic-direction": {
    value: "DIRECTION",
    help: "ingress or egress",
    make: (text) => {
      const direction = choice("ingress", "egress")(text.toLowerCase());
      return (flow) => flow.direction === direction;
    },
  },
  "http-status": {
    value: "STATUS",
    help: "status code, or its beginning and a plus: 404, 40+, 5+",
    make: (text) => {
      if (!/^([1-9][0-9]{2}|[1-9][0-9]?\+)$/.test(text)) {
        throw new RangeError("must be a status code such as 404 or 5+");
      }
      const begin = text.replace("+", "");
      return (flow) => flow.http !== null && flow.http.status > 0 && String(flow.http.status).startsWith(begin);
    },
  },
  "http-method": {
    value: "METHOD",
    help: "GET, POST, or another",
    make: (text) => (flow) => flow.http !== null && flow.http.method === text.toUpperCase(),
  },
  "http-path": {
    value: "REGEX",
    help: "regular expression (RE2) that is found in the path",
    make: (text, compile) => {
      if (compile(text) === undefined) throw new RangeError("must be a regular expression as RE2 takes it");
      const anywhere = compile(`(?s:.*)(?:${text})(?s:.*)`);
      if (anywhere === undefined) throw new RangeError("must be a shorter regular expression");
      return (flow) => flow.http !== null && anywhere.matches(flow.http.path);
    },
  },
};

/**
 * One filter of all that were given.
 * @param given   values by name of the filter
 * @throws RangeError with a whole sentence
 */
export function makeFlowFilter(given: ReadonlyMap<string, readonly string[]>, compile: CompileRegex): FlowFilter {
  const all: FlowFilter[] = [];
  for (const [name, texts] of given) {
    if (!Object.hasOwn(FLOW_FILTERS, name)) {
      const near = nearest(name, Object.keys(FLOW_FILTERS));
      throw new RangeError(
        `Cannot filter by "${name}": no such filter${near === undefined ? "" : `; did you mean "${near}"?`}`,
      );
    }
    const alternatives = texts.map((text) => makeOne(name, text, compile));
    all.push((flow) => alternatives.some((isWanted) => isWanted(flow)));
  }
  return (flow) => all.every((isWanted) => isWanted(flow));
}

function makeOne(name: string, text: string, compile: CompileRegex): FlowFilter {
  try {
    return FLOW_FILTERS[name]!.make(text, compile);
  } catch (error) {
    throw new RangeError(`Cannot filter by ${name} "${text.slice(0, 100)}": it ${(error as Error).message}`);
  }
}

type End = NonNullable<FlowDocument["source"]>;
type EndFilter = (end: End) => boolean;

function at(side: "source" | "destination", isWanted: EndFilter): FlowFilter {
  return (flow) => flow[side] !== null && isWanted(flow[side]);
}

function atEither(isWanted: EndFilter): FlowFilter {
  const [source, destination] = [at("source", isWanted), at("destination", isWanted)];
  return (flow) => source(flow) || destination(flow);
}

function within(text: string): EndFilter {
  const prefix: IpPrefix | undefined = parsePrefixOrAddress(text);
  if (prefix === undefined) throw new RangeError("must be an address or a prefix");
  return (end) => {
    const address = parseAddress(end.address);
    return address !== undefined && address.length === prefix.address.length && prefixContains(prefix, address);
  };
}

function withPort(text: string): EndFilter {
  const port = integer(0, 65535)(text);
  return (end) => end.port === port;
}
