/**
 * The machine's side of the tunnel: addresses and MTU of the TUN device, and routes into it. Nothing is touched before the wanted
 * prefixes are checked against the machine's own addresses and routes: a conflict is named, and the old set-up stays.
 *
 * Called by `agent.ts` whenever the member's addresses or routes change, and every minute: other network managers remove routes
 * that they did not make.
 */
import { formatPrefix, maskedPrefix, parsePrefix, parsePrefixOrAddress, prefixContains } from "../../src/ip/address.ts";
import { PROXY_ROUTES } from "../../src/datapath/proxy_addresses.ts";
import { EdgeError, messageOf } from "../errors.ts";

/** An address of an interface of this machine. */
export interface LocalAddress {
  readonly interfaceIndex: number;
  readonly interfaceName: string;
  /** "10.9.0.1/32" */
  readonly prefix: string;
}

/** A route of the main table. */
export interface LocalRoute {
  readonly interfaceIndex: number;
  readonly interfaceName: string;
  /** masked prefix; "0.0.0.0/0" and "::/0" are the default routes */
  readonly prefix: string;
}

/** What the kernel offers, as few calls; throws EdgeErrors EDGE_NETWORK_*. `netlink_door.ts` is the real one. */
export interface NetworkDoor {
  /** 0: there is no such interface */
  interfaceIndex(name: string): number;
  setUp(interfaceIndex: number, mtuBytes: number): void;
  addresses(): readonly LocalAddress[];
  routes(): readonly LocalRoute[];
  addAddress(interfaceIndex: number, prefix: string): void;
  removeAddress(interfaceIndex: number, prefix: string): void;
  addRoute(interfaceIndex: number, prefix: string): void;
  removeRoute(interfaceIndex: number, prefix: string): void;
  /** Lets no program of another user send to a prefix, and forwards nothing to it; that it is so already is fine. */
  guard(prefix: string): void;
  unguard(prefix: string): void;
}

/** What the TUN device should have. */
export interface NetworkPlan {
  readonly tun: string;
  readonly mtuBytes: number;
  /** host prefixes: "10.9.0.1/32" */
  readonly addresses: readonly string[];
  /** prefixes, none covered by another */
  readonly routes: readonly string[];
}

/** IPv6 needs links of at least 1280 octets (RFC 8200 §5): below, the device gets no IPv6. */
const IPV6_MIN_MTU_BYTES = 1280;

/** Brings a machine in line with plans. Remembers what it made: only that is ever removed. */
export class Network {
  readonly #door: NetworkDoor;
  #madeAddresses = new Set<string>();
  #madeRoutes = new Set<string>();
  #guarded = new Set<string>();
  #guardFault: string | undefined;
  #madeOn = 0;

  constructor(door: NetworkDoor) {
    this.#door = door;
  }

  /**
   * Makes it so; nothing changes when it is so already.
   * @returns how many things had to be changed
   * @throws EdgeError EDGE_CIDR_CONFLICT before anything was touched; EDGE_NETWORK_* when the kernel refuses
   */
  apply(plan: NetworkPlan): number {
    const index = this.#door.interfaceIndex(plan.tun);
    if (index === 0) throw new EdgeError("EDGE_NETWORK_FAILED", `Cannot set up "${plan.tun}": there is no such device`);
    if (index !== this.#madeOn) this.#forget(index);
    const usable = plan.mtuBytes >= IPV6_MIN_MTU_BYTES ? plan : withoutIpv6(plan);
    const conflict = conflictOf(usable, index, this.#door.addresses(), this.#door.routes());
    if (conflict !== undefined) throw new EdgeError("EDGE_CIDR_CONFLICT", conflict);
    this.#door.setUp(index, plan.mtuBytes);
    this.#alignGuards(usable);
    return this.#alignAddresses(index, usable) + this.#alignRoutes(index, usable);
  }

  /**
   * Why programs of other users can reach servers past a proxy of this node; undefined: they cannot, or no proxy runs. A kernel
   * without routing policy rules is one reason, a machine with one user only another.
   */
  get guardFault(): string | undefined {
    return this.#guardFault;
  }

  /** Takes back what does not go with the device. */
  release(): void {
    this.#alignGuards(undefined);
  }

  /**
   * What is sent to a proxy's server address goes on to the server as the flow's own, and what is sent to its client address to the
   * client: nobody but the proxy may, neither programs of others nor containers, whose packets come with our address too.
   */
  #alignGuards(plan: NetworkPlan | undefined): void {
    const wanted = PROXY_ROUTES.filter((prefix) => plan?.routes.includes(prefix));
    this.#guardFault = undefined;
    try {
      for (const prefix of wanted) {
        this.#door.guard(prefix); // each time: others may have flushed all rules
        this.#guarded.add(prefix);
      }
      for (const prefix of this.#guarded) {
        if (wanted.includes(prefix)) continue;
        this.#guarded.delete(prefix);
        this.#door.unguard(prefix);
      }
    } catch (error) {
      this.#guardFault = messageOf(error);
    }
  }

  /** The device is gone, and with it all that was made on it. */
  #forget(index: number): void {
    this.#madeAddresses = new Set();
    this.#madeRoutes = new Set();
    this.#madeOn = index;
  }

  #alignAddresses(index: number, plan: NetworkPlan): number {
    const door = this.#door;
    const present = door.addresses().filter((address) => address.interfaceIndex === index).map((a) => a.prefix);
    return align(plan.addresses, new Set(present), this.#madeAddresses, {
      add: (prefix) => door.addAddress(index, prefix),
      remove: (prefix) => door.removeAddress(index, prefix),
    });
  }

  #alignRoutes(index: number, plan: NetworkPlan): number {
    const door = this.#door;
    const present = door.routes().filter((route) => route.interfaceIndex === index).map((route) => route.prefix);
    return align(plan.routes, new Set(present), this.#madeRoutes, {
      add: (prefix) => door.addRoute(index, prefix),
      remove: (prefix) => door.removeRoute(index, prefix),
    });
  }
}

function align(
  wanted: readonly string[],
  present: ReadonlySet<string>,
  made: Set<string>,
  act: { add(prefix: string): void; remove(prefix: string): void },
): number {
  let changes = 0;
  for (const prefix of wanted) {
    if (!present.has(prefix)) {
      act.add(prefix);
      changes++;
    }
    made.add(prefix);
  }
  for (const prefix of made) {
    if (wanted.includes(prefix)) continue;
    if (present.has(prefix)) {
      act.remove(prefix);
      changes++;
    }
    made.delete(prefix);
  }
  return changes;
}

function withoutIpv6(plan: NetworkPlan): NetworkPlan {
  const isIpv4 = (prefix: string) => !prefix.includes(":");
  return { ...plan, addresses: plan.addresses.filter(isIpv4), routes: plan.routes.filter(isIpv4) };
}

/**
 * Why a plan would take something away from this machine: a local address or route of another interface inside a wanted prefix.
 * A wider route is none: ours is more specific, and the rest stays reachable.
 */
export function conflictOf(
  plan: NetworkPlan,
  tunIndex: number,
  addresses: readonly LocalAddress[],
  routes: readonly LocalRoute[],
): string | undefined {
  for (const text of [...plan.routes, ...plan.addresses]) {
    const wanted = parsePrefix(text)!;
    for (const { interfaceIndex, interfaceName, prefix } of addresses) {
      const local = parsePrefixOrAddress(prefix);
      if (interfaceIndex === tunIndex || local === undefined || !prefixContains(wanted, local.address)) continue;
      return `Cannot route ${text} into the mesh: "${interfaceName}" has the address ${prefix}`;
    }
    for (const { interfaceIndex, interfaceName, prefix } of routes) {
      const local = parsePrefix(prefix);
      if (interfaceIndex === tunIndex || local === undefined || local.length < wanted.length) continue;
      if (!prefixContains(wanted, local.address)) continue;
      return `Cannot route ${text} into the mesh: ${formatPrefix(maskedPrefix(local))} is routed to "${interfaceName}"`;
    }
  }
  return undefined;
}
