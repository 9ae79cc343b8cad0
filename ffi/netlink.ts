/**
 * The kernel's network configuration, through rtnetlink: link state and MTU, addresses, routes. No program `ip` is needed.
 * Used at start and stop by the control thread; every call waits for the kernel's answer, which comes at once.
 *
 * @see rtnetlink(7)
 */
import { readU32LE, writeU32LE } from "../src/bytes/integers.ts";
import { formatAddress, formatPrefix, type IpAddress, type IpPrefix, maskedPrefix } from "../src/ip/address.ts";
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { IFADDRMSG, IFINFOMSG, RTMSG, SOCKADDR_NL, TIMEVAL } from "./layout.ts";
import { libc } from "./libc.ts";
import { allocate, type Memory } from "./memory.ts";
import { attributesIn, type Message, messagesIn, MessageWriter, u32Of } from "./netlink_message.ts";

const REQUEST_BYTES = 1024;
/** The kernel fills at most 32 KiB of it. */
const ANSWER_BYTES = 65536;
/** The answer is there when the request returns; this is for a kernel that loses it. */
const ANSWER_SECONDS = 5;
/**
 * Before the rules that other programs make without a wish (32766 and down), behind the table of local addresses (0): users who are
 * refused, then the machine's own packets go by the main table, then all others are refused.
 */
const GUARD_USERS_PRIORITY = 90;
const GUARD_OWN_PRIORITY = 91;
const GUARD_FORWARDED_PRIORITY = 92;
/** A listing during which something changed is asked for again. */
const LIST_TRIES = 5;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly isUp: boolean;
}

export interface LinkAddress {
  /** of the link that has it */
  readonly index: number;
  /** with its host bits */
  readonly prefix: IpPrefix;
}

/** A route to a device, as we make them. */
export interface DeviceRoute {
  /** host bits are cleared */
  readonly destination: IpPrefix;
  /** of the device */
  readonly index: number;
  /** preferred source address of what we send ourselves */
  readonly source?: IpAddress;
  /** path MTU of the route, octets; absent: the device's */
  readonly mtu?: number;
  /** TCP segment size to announce, octets */
  readonly advmss?: number;
  /** less is preferred; absent: 0 for IPv4, and what the kernel then takes, 1024, for IPv6 */
  readonly metric?: number;
  /** absent: main (254) */
  readonly table?: number;
}

/** Who may not send to an address of this machine. */
export interface Guard {
  readonly destination: IpPrefix;
  /** programs of these users, by number, 0 to 2^32 - 2, both included; or whoever's packets this machine forwards, containers' too */
  readonly refused: { readonly firstUser: number; readonly lastUser: number } | "forwarded";
}

/** A route of the machine, for conflict checks. Only unicast routes are listed; `index` is 0 for one with several next hops. */
export interface ListedRoute {
  readonly destination: IpPrefix;
  readonly index: number;
  readonly table: number;
  readonly metric: number;
  /** who made it: 2 kernel, 3 boot, 4 administrator, others see /etc/iproute2/rt_protos */
  readonly protocol: number;
  readonly gateway?: IpAddress;
  readonly source?: IpAddress;
  readonly mtu?: number;
  readonly advmss?: number;
}

/**
 * Opens a netlink socket.
 * @throws FfiError EDGE_NETLINK_FAILED
 */
export function openNetlink(): Netlink {
  return new Netlink();
}

/**
 * A socket to the kernel's routing part. All methods throw FfiError: EDGE_NETLINK_DENIED without CAP_NET_ADMIN,
 * EDGE_NETLINK_CONFLICT when something else is there already, else EDGE_NETLINK_FAILED.
 */
export class Netlink {
  readonly #fd: number;
  readonly #request: Memory = allocate(REQUEST_BYTES);
  readonly #writer = new MessageWriter(this.#request.bytes);
  readonly #answer: Memory = allocate(ANSWER_BYTES);
  #sequence = 0;

  constructor() {
    const c = libc();
    this.#fd = c.socket(C.AF_NETLINK, C.SOCK_RAW | C.SOCK_CLOEXEC, C.NETLINK_ROUTE);
    const sockaddr = allocate(SOCKADDR_NL.size);
    sockaddr.bytes[SOCKADDR_NL.family] = C.AF_NETLINK;
    const timeout = allocate(TIMEVAL.size);
    timeout.words[TIMEVAL.seconds / 4] = ANSWER_SECONDS;
    let result = this.#fd;
    if (result >= 0) result = c.bind(this.#fd, sockaddr.address, SOCKADDR_NL.size);
    if (result >= 0) result = c.setsockopt(this.#fd, C.SOL_SOCKET, C.SO_RCVTIMEO, timeout.address, TIMEVAL.size);
    if (result >= 0) return;
    if (this.#fd >= 0) c.close(this.#fd);
    throw new E.FfiError("EDGE_NETLINK_FAILED", `Cannot open a netlink socket: ${E.describeErrno(result)}`, result);
  }

  close(): void {
    libc().close(this.#fd);
  }

  /** The link of that name; `undefined` when there is none. */
  findLink(name: string): Link | undefined {
    return this.listLinks().find((link) => link.name === name);
  }

  listLinks(): Link[] {
    return this.#list("links", C.RTM_GETLINK, C.RTM_NEWLINK, IFINFOMSG.size, (bytes, message) => {
      const attributes = attributesIn(bytes, message.bodyAt + IFINFOMSG.size, message.end);
      const name = attributes.get(C.IFLA_IFNAME);
      return {
        index: readU32LE(bytes, message.bodyAt + IFINFOMSG.index),
        name: name ? new TextDecoder().decode(name.subarray(0, Math.max(0, name.indexOf(0)))) : "",
        mtu: u32Of(attributes, C.IFLA_MTU) ?? 0,
        isUp: (readU32LE(bytes, message.bodyAt + IFINFOMSG.flags) & C.IFF_UP) !== 0,
      };
    });
  }

  /** Sets the MTU and brings the link up, in one change. */
  setLinkUp(index: number, mtu: number): void {
    this.#setLink(index, true, mtu);
  }

  /** Takes the link down; its routes go with it, and its IPv6 addresses. */
  setLinkDown(index: number): void {
    this.#setLink(index, false, undefined);
  }

  #setLink(index: number, isUp: boolean, mtu: number | undefined): void {
    const at = this.#start(C.RTM_NEWLINK, 0, IFINFOMSG.size);
    const bytes = this.#writer.bytes;
    writeU32LE(bytes, at + IFINFOMSG.index, index);
    writeU32LE(bytes, at + IFINFOMSG.flags, isUp ? C.IFF_UP : 0);
    writeU32LE(bytes, at + IFINFOMSG.change, C.IFF_UP);
    if (mtu !== undefined) this.#writer.attributeU32(C.IFLA_MTU, mtu);
    const what = mtu === undefined ? "" : ` with MTU ${mtu}`;
    this.#mustAck(`Cannot set link ${index} ${isUp ? "up" : "down"}${what}`, this.#transact());
  }

  /** Adds an address; that it is there already, on this link and with this length, is fine. IPv6: no duplicate detection. */
  addAddress(index: number, prefix: IpPrefix): void {
    const action = `Cannot add address "${formatPrefix(prefix)}" to link ${index}`;
    this.#writeAddress(C.RTM_NEWADDR, C.NLM_F_CREATE | C.NLM_F_EXCL, index, prefix);
    const result = this.#transact();
    if (result === -E.EEXIST) {
      const wanted = formatPrefix(prefix);
      const isThere = (address: LinkAddress) => address.index === index && formatPrefix(address.prefix) === wanted;
      if (this.listAddresses().some(isThere)) return;
      throw new E.FfiError(
        "EDGE_NETLINK_CONFLICT",
        `${action}: it is there with another prefix length (EEXIST)`,
        result,
      );
    }
    this.#mustAck(action, result);
  }

  /** Removes an address; that it is not there is fine. */
  removeAddress(index: number, prefix: IpPrefix): void {
    this.#writeAddress(C.RTM_DELADDR, 0, index, prefix);
    const result = this.#transact();
    if (result === -E.EADDRNOTAVAIL || result === -E.ENODEV) return;
    this.#mustAck(`Cannot remove address "${formatPrefix(prefix)}" from link ${index}`, result);
  }

  #writeAddress(type: number, flags: number, index: number, prefix: IpPrefix): void {
    const at = this.#start(type, flags, IFADDRMSG.size);
    const bytes = this.#writer.bytes;
    const isV6 = prefix.address.length === 16;
    bytes[at + IFADDRMSG.family] = isV6 ? C.AF_INET6 : C.AF_INET;
    bytes[at + IFADDRMSG.prefixLength] = prefix.length;
    bytes[at + IFADDRMSG.flags] = isV6 ? C.IFA_F_NODAD : 0;
    writeU32LE(bytes, at + IFADDRMSG.index, index);
    this.#writer.attribute(C.IFA_LOCAL, prefix.address);
    this.#writer.attribute(C.IFA_ADDRESS, prefix.address);
  }

  /** All addresses of all links, both families. */
  listAddresses(): LinkAddress[] {
    return this.#list("addresses", C.RTM_GETADDR, C.RTM_NEWADDR, IFADDRMSG.size, (bytes, message) => {
      const attributes = attributesIn(bytes, message.bodyAt + IFADDRMSG.size, message.end);
      // on a point-to-point link IFA_ADDRESS is the other end
      const address = attributes.get(C.IFA_LOCAL) ?? attributes.get(C.IFA_ADDRESS);
      if (!isAddress(address)) return undefined;
      const index = readU32LE(bytes, message.bodyAt + IFADDRMSG.index);
      return { index, prefix: { address, length: bytes[message.bodyAt + IFADDRMSG.prefixLength]! } };
    });
  }

  /** Adds a route; that the same one is there already is fine. */
  addRoute(route: DeviceRoute): void {
    const action = `Cannot add route "${formatPrefix(maskedPrefix(route.destination))}" to link ${route.index}`;
    this.#writeRoute(C.RTM_NEWROUTE, C.NLM_F_CREATE | C.NLM_F_EXCL, route);
    const result = this.#transact();
    if (result === -E.EEXIST) {
      const others = this.listRoutes().filter((listed) => isSameKey(listed, route));
      if (others.some((listed) => isSameRoute(listed, route))) return;
      const where = others.map((listed) => `link ${listed.index}`).join(", ") || "another device";
      throw new E.FfiError(
        "EDGE_NETLINK_CONFLICT",
        `${action}: a different one is there, to ${where} (EEXIST)`,
        result,
      );
    }
    this.#mustAck(action, result);
  }

  /** Removes a route; that it is not there is fine. */
  removeRoute(route: DeviceRoute): void {
    this.#writeRoute(C.RTM_DELROUTE, 0, route);
    const result = this.#transact();
    if (result === -ESRCH || result === -E.ENODEV) return;
    this.#mustAck(`Cannot remove route "${formatPrefix(maskedPrefix(route.destination))}"`, result);
  }

  /**
   * Refuses what some send to an address, with rules of the routing policy; that they are there already is fine. What others send is
   * routed by the main table.
   */
  addGuard(guard: Guard): void {
    for (const rule of rulesOf(guard)) {
      this.#writeRule(C.RTM_NEWRULE, C.NLM_F_CREATE | C.NLM_F_EXCL, guard.destination, rule);
      const result = this.#transact();
      if (result !== -E.EEXIST) {
        this.#mustAck(`Cannot guard "${formatPrefix(maskedPrefix(guard.destination))}"`, result);
      }
    }
  }

  /** Takes `addGuard` back; that it is not there is fine. */
  removeGuard(guard: Guard): void {
    for (const rule of rulesOf(guard).reverse()) {
      this.#writeRule(C.RTM_DELRULE, 0, guard.destination, rule);
      const result = this.#transact();
      if (result === -ENOENT) continue;
      this.#mustAck(`Cannot remove the guard of "${formatPrefix(maskedPrefix(guard.destination))}"`, result);
    }
  }

  /** A rule has the layout of a route; its action stands where the route's type does. */
  #writeRule(type: number, flags: number, destination: IpPrefix, rule: GuardRule): void {
    const at = this.#start(type, flags, RTMSG.size);
    const bytes = this.#writer.bytes;
    const masked = maskedPrefix(destination);
    bytes[at + RTMSG.family] = masked.address.length === 16 ? C.AF_INET6 : C.AF_INET;
    bytes[at + RTMSG.destinationLength] = masked.length;
    bytes[at + RTMSG.table] = rule.action === C.FR_ACT_TO_TBL ? C.RT_TABLE_MAIN : 0;
    bytes[at + RTMSG.type] = rule.action;
    this.#writer.attribute(C.FRA_DST, masked.address);
    this.#writer.attributeU32(C.FRA_PRIORITY, rule.priority);
    if (rule.isOwnOnly) this.#writer.attribute(C.FRA_IIFNAME, LOOPBACK_NAME);
    if (rule.users === undefined) return;
    const users = new Uint8Array(8);
    writeU32LE(users, 0, rule.users.firstUser);
    writeU32LE(users, 4, rule.users.lastUser);
    this.#writer.attribute(C.FRA_UID_RANGE, users);
  }

  #writeRoute(type: number, flags: number, route: DeviceRoute): void {
    const at = this.#start(type, flags, RTMSG.size);
    const bytes = this.#writer.bytes;
    const destination = maskedPrefix(route.destination);
    const isV6 = destination.address.length === 16;
    const table = route.table ?? C.RT_TABLE_MAIN;
    bytes[at + RTMSG.family] = isV6 ? C.AF_INET6 : C.AF_INET;
    bytes[at + RTMSG.destinationLength] = destination.length;
    bytes[at + RTMSG.table] = table < 256 ? table : 0;
    bytes[at + RTMSG.protocol] = C.RTPROT_STATIC;
    bytes[at + RTMSG.scope] = type === C.RTM_DELROUTE
      ? C.RT_SCOPE_NOWHERE // any
      : isV6
      ? C.RT_SCOPE_UNIVERSE
      : C.RT_SCOPE_LINK;
    bytes[at + RTMSG.type] = C.RTN_UNICAST;
    this.#writer.attribute(C.RTA_DST, destination.address);
    this.#writer.attributeU32(C.RTA_OIF, route.index);
    this.#writer.attributeU32(C.RTA_TABLE, table);
    if (route.metric !== undefined) this.#writer.attributeU32(C.RTA_PRIORITY, route.metric);
    if (type === C.RTM_DELROUTE) return;
    if (route.source !== undefined) this.#writer.attribute(C.RTA_PREFSRC, route.source);
    if (route.mtu === undefined && route.advmss === undefined) return;
    this.#writer.nested(C.RTA_METRICS, () => {
      if (route.mtu !== undefined) this.#writer.attributeU32(C.RTAX_MTU, route.mtu);
      if (route.advmss !== undefined) this.#writer.attributeU32(C.RTAX_ADVMSS, route.advmss);
    });
  }

  /** All unicast routes of all tables, both families. */
  listRoutes(): ListedRoute[] {
    return this.#list("routes", C.RTM_GETROUTE, C.RTM_NEWROUTE, RTMSG.size, readRoute);
  }

  /** Starts a request that the kernel is to answer, and gives the offset of its body. */
  #start(type: number, flags: number, bodyBytes: number): number {
    return this.#writer.start(type, C.NLM_F_REQUEST | C.NLM_F_ACK | flags, ++this.#sequence, bodyBytes);
  }

  /** Sends the request; gives what the kernel acknowledged it with: 0 or a negative errno. */
  #transact(): number {
    const sent = this.#send();
    if (sent < 0) return sent;
    for (;;) {
      const received = this.#receive();
      if (received < 0) return received;
      for (const message of messagesIn(this.#answer.bytes, received)) {
        if (message.sequence !== this.#sequence || message.type !== C.NLMSG_ERROR) continue;
        return message.end - message.bodyAt >= 4 ? readU32LE(this.#answer.bytes, message.bodyAt) | 0 : -E.EIO;
      }
    }
  }

  #send(): number {
    return libc().sendto(this.#fd, this.#request.address, this.#writer.end, 0, 0, 0);
  }

  #receive(): number {
    for (;;) {
      const received = libc().read(this.#fd, this.#answer.address, ANSWER_BYTES);
      if (received !== -E.EINTR) return received === 0 ? -E.EIO : received;
    }
  }

  #list<T>(
    what: string,
    type: number,
    answer: number,
    bodyBytes: number,
    read: (bytes: Uint8Array, message: Message) => T | undefined,
  ): T[] {
    let why = 0;
    for (let tries = 0; tries < LIST_TRIES; tries++) {
      const found: T[] = [];
      why = this.#dump(type, answer, bodyBytes, (message) => {
        const entry = read(this.#answer.bytes, message);
        if (entry !== undefined) found.push(entry);
      });
      if (why === 0) return found;
      if (why !== -E.EAGAIN) break;
    }
    throw new E.FfiError("EDGE_NETLINK_FAILED", `Cannot list ${what}: ${E.describeErrno(why)}`, why);
  }

  /** @returns 0, a negative errno, or -EAGAIN when the listing was torn */
  #dump(type: number, answer: number, bodyBytes: number, each: (message: Message) => void): number {
    this.#writer.start(type, C.NLM_F_REQUEST | C.NLM_F_DUMP, ++this.#sequence, bodyBytes);
    const sent = this.#send();
    if (sent < 0) return sent;
    let isTorn = false;
    for (;;) {
      const received = this.#receive();
      if (received < 0) return received === -E.EAGAIN ? -E.EIO : received;
      for (const message of messagesIn(this.#answer.bytes, received)) {
        if (message.sequence !== this.#sequence) continue;
        if ((message.flags & C.NLM_F_DUMP_INTR) !== 0) isTorn = true;
        if (message.type === C.NLMSG_DONE) return isTorn ? -E.EAGAIN : 0;
        if (message.type === C.NLMSG_ERROR) {
          return message.end - message.bodyAt >= 4 ? readU32LE(this.#answer.bytes, message.bodyAt) | 0 : -E.EIO;
        }
        if (message.type === answer && message.end - message.bodyAt >= bodyBytes) each(message);
      }
    }
  }

  #mustAck(action: string, result: number): void {
    if (result >= 0) return;
    if (result === -E.EPERM) {
      throw new E.FfiError("EDGE_NETLINK_DENIED", `${action}: no capability CAP_NET_ADMIN (EPERM)`, result);
    }
    throw new E.FfiError("EDGE_NETLINK_FAILED", `${action}: ${E.describeErrno(result)}`, result);
  }
}

const ESRCH = 3;
const ENOENT = 2;

/** What the machine itself sends comes "from" the loopback device, to the routing policy. */
const LOOPBACK_NAME = new TextEncoder().encode("lo\0");

/** One rule of the routing policy. */
interface GuardRule {
  readonly priority: number;
  readonly action: number;
  readonly users?: { readonly firstUser: number; readonly lastUser: number };
  /** only for what this machine itself sends */
  readonly isOwnOnly?: boolean;
}

/** In the order in which they may come into force. */
function rulesOf({ refused }: Guard): GuardRule[] {
  if (refused !== "forwarded") {
    return [{ priority: GUARD_USERS_PRIORITY, action: C.FR_ACT_PROHIBIT, users: refused }];
  }
  return [
    { priority: GUARD_OWN_PRIORITY, action: C.FR_ACT_TO_TBL, isOwnOnly: true },
    { priority: GUARD_FORWARDED_PRIORITY, action: C.FR_ACT_PROHIBIT },
  ];
}

function isAddress(value: Uint8Array | undefined): value is Uint8Array {
  return value !== undefined && (value.length === 4 || value.length === 16);
}

function readRoute(bytes: Uint8Array, message: Message): ListedRoute | undefined {
  const at = message.bodyAt;
  const family = bytes[at + RTMSG.family]!;
  if (bytes[at + RTMSG.type] !== C.RTN_UNICAST || (family !== C.AF_INET && family !== C.AF_INET6)) return undefined;
  const attributes = attributesIn(bytes, at + RTMSG.size, message.end);
  const nowhere = new Uint8Array(family === C.AF_INET ? 4 : 16);
  const gateway = attributes.get(C.RTA_GATEWAY);
  const source = attributes.get(C.RTA_PREFSRC);
  const metrics = attributes.get(C.RTA_METRICS);
  const inner = metrics ? attributesIn(metrics, 0, metrics.length) : new Map<number, Uint8Array>();
  const mtu = u32Of(inner, C.RTAX_MTU);
  const advmss = u32Of(inner, C.RTAX_ADVMSS);
  return {
    destination: {
      address: attributes.get(C.RTA_DST) ?? nowhere, // the default route has none
      length: bytes[at + RTMSG.destinationLength]!,
    },
    index: u32Of(attributes, C.RTA_OIF) ?? 0,
    table: u32Of(attributes, C.RTA_TABLE) ?? bytes[at + RTMSG.table]!,
    metric: u32Of(attributes, C.RTA_PRIORITY) ?? 0,
    protocol: bytes[at + RTMSG.protocol]!,
    ...(isAddress(gateway) ? { gateway } : {}),
    ...(isAddress(source) ? { source } : {}),
    ...(mtu === undefined ? {} : { mtu }),
    ...(advmss === undefined ? {} : { advmss }),
  };
}

/** Whether the kernel would say that the two cannot be there together. */
function isSameKey(listed: ListedRoute, route: DeviceRoute): boolean {
  const destination = maskedPrefix(route.destination);
  const metric = route.metric ?? (destination.address.length === 16 ? 1024 : 0);
  return formatPrefix(listed.destination) === formatPrefix(destination) && listed.metric === metric &&
    listed.table === (route.table ?? C.RT_TABLE_MAIN);
}

function isSameRoute(listed: ListedRoute, route: DeviceRoute): boolean {
  const textOf = (address: IpAddress | undefined) => address && formatAddress(address);
  return listed.index === route.index && listed.gateway === undefined &&
    textOf(listed.source) === textOf(route.source) && listed.mtu === route.mtu && listed.advmss === route.advmss;
}
