/** The real `NetworkDoor`: rtnetlink through `ffi/netlink.ts`. */
import process from "node:process";
import { formatPrefix, type IpPrefix, maskedPrefix, parsePrefix } from "../../src/ip/address.ts";
import { type Guard, type Netlink, openNetlink } from "../../ffi/netlink.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import type { NetworkDoor } from "./network.ts";

const MAIN_TABLE = 254;
/** the largest user number but one: 2^32 - 1 is nobody */
const LAST_USER = 0xffff_fffe;

/** Opens a netlink socket at each call: they are rare, and a socket kept for months collects nothing this way. */
export function netlinkDoor(): NetworkDoor {
  const run = <T>(task: (netlink: Netlink) => T): T => {
    let netlink: Netlink | undefined;
    try {
      netlink = openNetlink();
      return task(netlink);
    } catch (error) {
      const code = errnoOf(error) === "EDGE_NETLINK_DENIED" ? "EDGE_NETWORK_DENIED" : "EDGE_NETWORK_FAILED";
      throw new EdgeError(code, messageOf(error), { cause: error });
    } finally {
      netlink?.close();
    }
  };
  const namesOf = (netlink: Netlink) => new Map(netlink.listLinks().map(({ index, name }) => [index, name]));
  return {
    interfaceIndex: (name) => run((netlink) => netlink.findLink(name)?.index ?? 0),
    setUp: (index, mtuBytes) =>
      run((netlink) => {
        const link = netlink.listLinks().find((candidate) => candidate.index === index);
        if (link?.isUp !== true || link.mtu !== mtuBytes) netlink.setLinkUp(index, mtuBytes);
      }),
    addresses: () =>
      run((netlink) => {
        const names = namesOf(netlink);
        return netlink.listAddresses().map(({ index, prefix }) => ({
          interfaceIndex: index,
          interfaceName: names.get(index) ?? String(index),
          prefix: formatPrefix(prefix),
        }));
      }),
    routes: () =>
      run((netlink) => {
        const names = namesOf(netlink);
        return netlink.listRoutes().filter(({ table }) => table === MAIN_TABLE).map(({ index, destination }) => ({
          interfaceIndex: index,
          interfaceName: names.get(index) ?? "several devices",
          prefix: formatPrefix(maskedPrefix(destination)),
        }));
      }),
    addAddress: (index, text) => run((netlink) => netlink.addAddress(index, prefixOf(text))),
    removeAddress: (index, text) => run((netlink) => netlink.removeAddress(index, prefixOf(text))),
    addRoute: (index, text) => run((netlink) => netlink.addRoute({ destination: prefixOf(text), index })),
    removeRoute: (index, text) => run((netlink) => netlink.removeRoute({ destination: prefixOf(text), index })),
    guard: (text) => run((netlink) => guardsOf(text).forEach((guard) => netlink.addGuard(guard))),
    unguard: (text) => run((netlink) => guardsOf(text).forEach((guard) => netlink.removeGuard(guard))),
  };
}

/** All users but root, who may do anything anyway, and the one that we are; and whatever is forwarded, which no user sends. */
function guardsOf(text: string): Guard[] {
  const destination = prefixOf(text);
  const self = process.getuid?.() ?? 0;
  const ranges = self === 0 ? [[1, LAST_USER]] : [[1, self - 1], [self + 1, LAST_USER]];
  const users = ranges.flatMap(([firstUser, lastUser]): Guard[] =>
    firstUser! <= lastUser! ? [{ destination, refused: { firstUser: firstUser!, lastUser: lastUser! } }] : []
  );
  return [...users, { destination, refused: "forwarded" }];
}

function prefixOf(text: string): IpPrefix {
  return parsePrefix(text)!;
}
