/**
 * What the control thread tells the datapath, and what it hears back. Plain data: structured clone carries it.
 *
 * Commands are applied between batches, in order, all commands of one message before the next packet; so a message is one
 * consistent change.
 */
import type { IpAddress, IpPrefix } from "../ip/address.ts";
import type { UnderlayAddr } from "../ip/underlay_addr.ts";
import type { PolicyUpdate } from "../policy/table.ts";
import type { AeadName, OffloadSwitches } from "../ports.ts";
import type { Verdict } from "../verdict.ts";

export type DatapathCommand =
  | SetSelf
  | PutPeer
  | { readonly op: "removePeer"; readonly publicKey: Uint8Array }
  | PutIp
  | { readonly op: "removeIp"; readonly prefix: IpPrefix }
  | { readonly op: "policy"; readonly update: PolicyUpdate }
  | SetProxy
  | { readonly op: "offload"; readonly switches: OffloadSwitches }
  | Ping;

/** This node. Sent first, and again when something changes. */
export interface SetSelf {
  readonly op: "self";
  /** mesh addresses: what the TUN holds, and the only inner destinations accepted */
  readonly addresses: readonly IpAddress[];
  /** this node's address in outer headers */
  readonly underlay: IpAddress;
  readonly identity: number;
  readonly tunnelProtocol: "geneve" | "vxlan";
  /** `none`: the tunnel goes over the underlay as it is, and everybody there can read and forge it. WireGuard when absent. */
  readonly encryption?: "wireguard" | "none";
  /** the mesh is native or hybrid: peers may send packets without an envelope. False when absent. */
  readonly acceptsNative?: boolean;
  /** without encryption: the address that the tunnel's socket is bound to; absent: we have none of our own on the underlay */
  readonly plain?: IpAddress;
}

export interface PutPeer {
  readonly op: "peer";
  /** "<cluster>/<name>", for logs */
  readonly name: string;
  readonly publicKey: Uint8Array;
  readonly presharedKey?: Uint8Array;
  /** a first guess; what authenticates later replaces it (roaming). Sent again unchanged, it does not undo roaming. */
  readonly endpoint?: UnderlayAddr;
  /** 0 = off */
  readonly keepaliveSeconds: number;
  /** the peer's address in outer headers: tunnel endpoint and allowed IP */
  readonly underlay: IpAddress;
  /** what both records announce for transport data; absent: ChaCha20-Poly1305, WireGuard's own */
  readonly aead?: AeadName;
  /** how packets are sent to it: in an envelope, or bare (native). What is accepted from it does not depend on this. */
  readonly mode: "tunnel" | "native";
  /** without encryption: where its tunnel listens on the underlay; absent: nothing can be sent to it */
  readonly plain?: IpAddress;
}

/** An ipcache entry. The longest prefix that covers an address decides. */
export interface PutIp {
  readonly op: "ip";
  readonly prefix: IpPrefix;
  /** what policy judges by */
  readonly identity: number;
  /** what the sender puts into the VNI, where that is another number: `identity` is then one of this node's own scope */
  readonly wireIdentity?: number;
  /** the peer that it is behind; none: known, not reachable */
  readonly peer?: Uint8Array;
}

/**
 * Where this node's proxies listen, on its mesh addresses. Flows that policy hands to a proxy that does not run are dropped
 * (NO_PROXY). Off until it is sent.
 */
export interface SetProxy {
  readonly op: "proxy";
  /** TCP port of the HTTP proxy, 0 = not running */
  readonly http: number;
  /** UDP and TCP port of the DNS proxy, 0 = not running */
  readonly dns: number;
  /** where the proxies look flows up (`RedirectView`); `DatapathLink.send` puts it in */
  readonly view?: SharedArrayBuffer;
}

/** Sends one ICMP echo request from the mesh address of the family, through every step of the egress path. */
export interface Ping {
  readonly op: "ping";
  /** 1 to 65535, chosen by the caller; answered by a `pong` event of the same id and sequence, or by none */
  readonly id: number;
  readonly sequence: number;
  readonly to: IpAddress;
}

export type DatapathEvent =
  | { readonly op: "ready"; readonly tun: string; readonly offload: OffloadFacts; readonly port: number }
  | {
    readonly op: "pong";
    readonly id: number;
    readonly sequence: number;
    readonly roundTripMs: number;
    readonly verdict: Verdict;
  }
  /** an offload went on or off, by a command or by an error */
  | { readonly op: "offload"; readonly offload: OffloadFacts }
  | { readonly op: "snapshot"; readonly query: number; readonly snapshot: DatapathSnapshot }
  | { readonly op: "flows"; readonly query: number; readonly flows: readonly FlowRecord[] }
  | {
    readonly op: "log";
    readonly level: "debug" | "info" | "warn" | "error";
    readonly event: string;
    readonly fields: Record<string, unknown>;
  }
  /** the datapath cannot go on (TUN deleted, socket closed); the control thread decides what to do */
  | { readonly op: "fatal"; readonly code: string; readonly message: string };

/** What the machine gave, for status and the health page; a reason where a thing is off. */
export interface OffloadFacts {
  readonly tunTso: string;
  readonly tunUso: string;
  readonly tcpMerge: string;
  readonly udpMerge: string;
  readonly udpSegment: string;
  readonly udpGro: string;
  readonly receiveBufferBytes: number;
  readonly sendBufferBytes: number;
  readonly ipv6: boolean;
  readonly aead: string;
  /** what this member may announce for data between members, best first */
  readonly memberAeads: readonly AeadName[];
  /** how that was found out */
  readonly memberAead: string;
}

export interface PeerSnapshot {
  readonly name: string;
  readonly publicKey: Uint8Array;
  readonly endpoint?: UnderlayAddr;
  /** Unix milliseconds, 0 = never */
  readonly lastHandshakeUnixMs: number;
  /** whole UDP payloads, as `wg` counts */
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly hasSession: boolean;
  /** largest packet of the underlay that is known to get there, no more than this node may make; 0 = not known */
  readonly pathMtuBytes: number;
  /** what the current session seals with; absent: there is none */
  readonly aead?: AeadName;
}

export interface DatapathSnapshot {
  readonly peers: readonly PeerSnapshot[];
  readonly flows: number;
  readonly policyRevision: number;
  /** look-ups that policy rule `i` decided at `i + 1`, those that none did at 0; both directions, since the rule came */
  readonly ruleHits: Float64Array;
  /** newest last */
  readonly drops: readonly DropRecord[];
}

/** One flow that is alive, for `observe` and for the dry run of a policy. */
export interface FlowRecord {
  /** that opened it, seen from this node */
  readonly direction: "ingress" | "egress";
  /** who opened it */
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  /** ICMP echo: the identifier; other ICMP: 0 */
  readonly sourcePort: number;
  /** ICMP: the type that opened it, as policy is asked for it */
  readonly destinationPort: number;
  /** identity of the other side, when the flow was opened or judged again */
  readonly identity: number;
  readonly state: "new" | "established" | "closing";
  /** of the opener, and to it; octets with IP headers. Of a redirected flow those between opener and proxy. */
  readonly packets: number;
  readonly bytes: number;
  readonly replyPackets: number;
  readonly replyBytes: number;
  /** to a second */
  readonly lastSeenUnixMs: number;
  /** it goes through a proxy of this node */
  readonly isRedirected: boolean;
}

/** One dropped packet, kept in a small ring for `monitor --drops`. */
export interface DropRecord {
  readonly unixMs: number;
  readonly direction: "ingress" | "egress";
  readonly verdict: Verdict;
  readonly source?: string;
  readonly destination?: string;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** identity of the other side, 0 = unknown */
  readonly identity: number;
}
