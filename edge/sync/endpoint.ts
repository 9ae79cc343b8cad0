/** `host:port` as people and tokens write it: a DNS name, an IPv4 address, or an IPv6 address in brackets. */
import { parseAddress } from "../../src/ip/address.ts";

export interface Endpoint {
  /** DNS name or address, without brackets */
  readonly host: string;
  /** 1 to 65535 */
  readonly port: number;
}

/** Reads `host:port`; `undefined` for anything else. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]@]+)):([0-9]{1,5})$/.exec(text);
  if (match === null || text.length > 300) return undefined;
  const port = Number(match[3]);
  if (port < 1 || port > 65535) return undefined;
  const isBracketed = match[1] !== undefined;
  if (isBracketed && (!match[1]!.includes(":") || parseAddress(match[1]!) === undefined)) return undefined;
  return { host: match[1] ?? match[2]!, port };
}

/** The reverse. */
export function formatEndpoint(endpoint: Endpoint): string {
  return endpoint.host.includes(":") ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`;
}
