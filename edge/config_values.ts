/**
 * Parsers of setting values: text in, a typed value out, `RangeError` with a sentence that starts with "must" on anything else.
 * The table in `config.ts` refers to them; strict address parsing is that of `src/ip`.
 */
import { formatAddress, formatPrefix, maskedPrefix, parseAddress, parsePrefix } from "../src/ip/address.ts";
import { isNetworkName } from "../src/mesh/routing.ts";
import { OFFLOAD_WORDS, parseOffloads } from "../src/offload/switches.ts";
import type { OffloadSwitches } from "../src/ports.ts";

function refuse(must: string): never {
  throw new RangeError(`must ${must}`);
}

/** A whole number in decimal, `min` to `max`. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : NaN;
    return value >= min && value <= max ? value : refuse(`be a whole number from ${min} to ${max}`);
  };
}

/** One of a few words. */
export function choice<const T extends string>(...words: readonly T[]): (text: string) => T {
  return (text) => words.find((word) => word === text) ?? refuse(`be one of ${words.join(", ")}`);
}

/** `on` and `off`; also `true`/`false`, `1`/`0`, `yes`/`no`, as environment files write them. A flag without a value is "on". */
export function onOff(text: string): boolean {
  if (["on", "true", "1", "yes"].includes(text)) return true;
  if (["off", "false", "0", "no"].includes(text)) return false;
  return refuse("be on or off");
}

/** A file system path: not empty, no NUL. */
export function path(text: string): string {
  return text !== "" && !text.includes("\0") ? text : refuse("be a path");
}

/** Any text but the empty one. */
export function nonEmpty(text: string): string {
  return text !== "" ? text : refuse("not be empty");
}

/** A Linux network device name: 1 to 15 octets, no slash or white space, not "." or "..". */
export function deviceName(text: string): string {
  return /^[A-Za-z0-9_.@-]{1,15}$/.test(text) && text !== "." && text !== ".."
    ? text
    : refuse("be a device name: 1 to 15 letters, digits or _.@-");
}

/** A DNS label (RFC 1123): node and namespace names. */
export function dnsLabel(text: string): string {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text)
    ? text
    : refuse("be 1 to 63 lower-case letters, digits or -, not starting or ending with -");
}

/** What a network may be called; empty takes a name back. */
export function networkName(text: string): string {
  return isNetworkName(text)
    ? text
    : refuse("be at most 63 letters, digits, -, _ or ., not starting or ending with one of these");
}

/** A node name: DNS labels with dots between, at most 253 octets in all. */
export function dnsName(text: string): string {
  const ok = text.length <= 253 && text.split(".").every((part) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(part));
  return ok ? text : refuse("be a lower-case DNS name");
}

/** A cluster name as Cilium takes it: at most 32 lower-case letters, digits or dashes. */
export function clusterName(text: string): string {
  return /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(text)
    ? text
    : refuse("be 1 to 32 lower-case letters, digits or -, not starting or ending with -");
}

/** `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets. */
export function hostPort(text: string): string {
  const match = /^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})):([1-9][0-9]{0,4})$/.exec(text);
  return match !== null && Number(match[1]) <= 65535 ? text : refuse("be HOST:PORT ([ADDRESS]:PORT for IPv6)");
}

/** Where local HTTP listens: `address:port` on loopback, or `none`. Port 0 lets the system choose. */
export function loopbackListen(text: string): { readonly host: string; readonly port: number } | undefined {
  if (text === "none") return undefined;
  const match = /^(127(?:\.[0-9]{1,3}){3}|\[::1\]|localhost):(0|[1-9][0-9]{0,4})$/.exec(text);
  if (match === null || Number(match[2]) > 65535) {
    return refuse("be none, or a loopback address and port such as 127.0.0.1:9780");
  }
  return { host: match[1]!.replace(/^\[|\]$/g, ""), port: Number(match[2]) };
}

/** `address:port`, IPv6 in brackets; without a port the default one, if there is one. The address is one, not all of a machine. */
export function addressPort(
  defaultPort?: number,
): (text: string) => { readonly address: string; readonly port: number } {
  return (text) => {
    const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([1-9][0-9]{0,4}))?$/.exec(text);
    const found = parseAddress(match?.[1] ?? match?.[2] ?? (defaultPort === undefined ? "" : text));
    const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
    if (found === undefined || port === undefined || port > 65535 || found.every((octet) => octet === 0)) {
      const example = defaultPort === undefined
        ? "127.0.0.1:53 or [::1]:53"
        : "192.0.2.53, or with its port 192.0.2.53:5353";
      return refuse(`be one address${defaultPort === undefined ? " and port" : ""} such as ${example}`);
    }
    return { address: formatAddress(found), port };
  };
}

/** An address prefix in canonical text, host bits cleared. */
export function cidr(text: string): string {
  const prefix = parsePrefix(text);
  return prefix === undefined ? refuse("be a prefix such as 10.9.0.0/16") : formatPrefix(maskedPrefix(prefix));
}

/** `key=value` of a label; key and value as Kubernetes takes them. */
export function label(text: string): readonly [key: string, value: string] {
  const at = text.indexOf("=");
  const key = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? "" : text.slice(at + 1);
  const okKey = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/.test(key);
  const okValue = value === "" || /^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/.test(value);
  return at >= 0 && okKey && okValue ? [key, value] : refuse("be KEY=VALUE of a Kubernetes label");
}

/** `nodes`, `pods`, both with a comma between, or `none`. Each once, in this order. */
export function cidrMatchModes(text: string): readonly ("nodes" | "pods")[] {
  if (text === "none") return [];
  const words = text.split(",").map((word) => word.trim()).filter((word) => word !== "");
  if (!words.every((word) => word === "nodes" || word === "pods")) return refuse("be none, nodes, pods or nodes,pods");
  return (["nodes", "pods"] as const).filter((mode) => words.includes(mode));
}

/** Which offloads are wanted: `auto`, `none`, a list of words, or of words with "no-" before each. */
export function offloads(text: string): OffloadSwitches {
  const words = OFFLOAD_WORDS.join(", ");
  return parseOffloads(text) ?? refuse(`be auto, none, or a list of ${words}, or of those with no- before each`);
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A length of time such as `90s`, `1h30m`, `7d`; a bare number counts seconds. In milliseconds, at most ten years. */
export function durationMs(text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000;
  if (!/^([0-9]{1,9}(ms|s|m|h|d))+$/.test(text)) return refuse("be a length of time such as 30s, 5m or 24h");
  let total = 0;
  for (const part of text.matchAll(/([0-9]+)(ms|s|m|h|d)/g)) total += Number(part[1]) * UNIT_MS[part[2]!]!;
  return total <= 3650 * UNIT_MS["d"]! ? total : refuse("be at most 3650d");
}
