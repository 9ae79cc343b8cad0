/**
 * How packets go from member to member: which settings fit together, who sends to whom without an envelope, and where the tunnel
 * of a mesh without encryption ends. Used by `tables.ts`, by the hub for its flags and by the mesh file.
 *
 * The mode decides what is sent, never who is believed: identities come from the ipcache in every mode.
 */
import { type IpAddress, parseAddress, parsePrefix, prefixContains } from "../ip/address.ts";
import type { MemberRecord, MeshSettings, RoutingSettings } from "./entries.ts";

/** The label that Kubernetes has for it: a member that names no network is in that of its zone. */
const ZONE_LABEL = "topology.kubernetes.io/zone";
const NETWORK_NAME = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

/** Why these settings cannot be had together; undefined when they can. */
export function routingFault({ mode, encryption }: RoutingSettings): string | undefined {
  if (encryption === "wireguard" || mode === "tunnel") return undefined;
  return `mode ${mode} needs encryption wireguard: without an envelope and without WireGuard nothing would say whose a packet is`;
}

/** What a network may be called: as a Kubernetes label's value, and "" for none. */
export function isNetworkName(text: string): boolean {
  return NETWORK_NAME.test(text);
}

/** The network that a member is in: the one that it announces, else its zone; "" = none. */
export function networkOf(member: Pick<MemberRecord, "network" | "labels">): string {
  return member.network || member.labels[ZONE_LABEL] || "";
}

/** How packets are sent between two members; the same for both directions. */
export function modeBetween(
  a: Pick<MemberRecord, "network" | "labels"> | undefined,
  b: Pick<MemberRecord, "network" | "labels">,
  { mode }: RoutingSettings,
): "tunnel" | "native" {
  if (mode !== "hybrid") return mode;
  const network = networkOf(b);
  return a !== undefined && network !== "" && networkOf(a) === network ? "native" : "tunnel";
}

/**
 * Where a member's tunnel ends on the underlay, in a mesh without encryption. `undefined` when it has no address of its own there
 * (behind a NAT, or one that another member has too): its address in outer headers is one of the mesh's then, and packets to that
 * would come back to us.
 */
export function plainAddressOf(member: MemberRecord, settings: MeshSettings): IpAddress | undefined {
  if (settings.routing.encryption !== "none" || member.addresses.includes(member.underlay)) return undefined;
  const address = parseAddress(member.underlay)!;
  return settings.memberCidrs.some((cidr) => prefixContains(parsePrefix(cidr)!, address)) ? undefined : address;
}
