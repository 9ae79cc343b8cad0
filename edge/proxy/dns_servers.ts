/** Whom the local resolver asks: the servers of `--dns-upstream`, or those of /etc/resolv.conf as it stands now. */
import { readFileSync, statSync } from "node:fs";
import { parseAddress } from "../../src/ip/address.ts";
import { type AddressPort, isSameAddress, plainAddress } from "./dns_upstream.ts";

/** Name servers, which may change while the program runs. */
export interface NameServers {
  /** in the order to be asked; empty: none is known */
  current(): readonly AddressPort[];
}

const DNS_PORT = 53;
/** As many as the C library takes (resolv.conf(5), MAXNS). */
const MAX_SERVERS = 3;

/** Servers that do not change. @param listen where the resolver itself listens: never asked */
export function fixedServers(servers: readonly AddressPort[], listen: AddressPort): NameServers {
  const others = servers.filter((server) => !isOneself(server, listen));
  return { current: () => others };
}

/**
 * The servers of a resolv.conf(5), read again whenever the file is another: a laptop changes networks.
 *
 * @param path   a file that may be missing
 * @param listen where the resolver itself listens: never asked, though the file may name it
 */
export function systemServers(path: string, listen: AddressPort): NameServers {
  let stamp = "";
  let servers: readonly AddressPort[] = [];
  return {
    current: () => {
      const now = stampOf(path);
      if (now !== stamp) {
        stamp = now;
        servers = now === "" ? [] : readResolvConf(readQuietly(path)).filter((server) => !isOneself(server, listen));
      }
      return servers;
    },
  };
}

/** The name servers of a resolv.conf(5), at most three; lines that are none, and texts that are no address, are left out. */
export function readResolvConf(text: string): readonly AddressPort[] {
  const servers: AddressPort[] = [];
  for (const line of text.split("\n")) {
    const address = /^\s*nameserver\s+([0-9A-Fa-f.:]{2,45}(?:%[A-Za-z0-9_.-]{1,15})?)\s*(?:[#;].*)?$/.exec(line)?.[1];
    if (address !== undefined && parseAddress(plainAddress(address)) !== undefined) {
      servers.push({ address, port: DNS_PORT });
    }
  }
  return servers.slice(0, MAX_SERVERS);
}

function isOneself(server: AddressPort, listen: AddressPort): boolean {
  return server.port === listen.port && isSameAddress(server.address, listen.address);
}

function stampOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch {
    return "";
  }
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
