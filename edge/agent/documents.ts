/**
 * The documents that the local HTTP interface answers with, and that `-o json` prints: one shape for both. Stable: fields are
 * added, never renamed or removed. Times are RFC 3339 in UTC, lengths of time say their unit, octets are base64.
 */
import type { NamedPort, PolicySettings } from "../../src/mesh/entries.ts";
import type { RuleVerdict } from "../../src/policy/model.ts";
import type { DryRunResult } from "../sync/dry_run.ts";
import type { DnsFacts, HttpFacts } from "../proxy/doors.ts";
import type { FlowVerdict } from "./flow_log.ts";
import type { HealthItem } from "./health.ts";

/** Version of all shapes in this file. */
export const API_VERSION = "edgemesh/v1";

/** `GET /v1/status`, `edgemesh status` */
export interface StatusDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Status";
  readonly version: string;
  /** starting: no state was applied yet; degraded: works, but something is wrong (`health`); failing: traffic suffers */
  readonly state: "starting" | "ready" | "degraded" | "failing";
  /** this member; null until the mesh state names it */
  readonly member: MemberDocument | null;
  /** how packets go from member to member; null until the mesh state says so */
  readonly routing: RoutingDocument | null;
  readonly device: DeviceDocument;
  readonly hub: HubDocument;
  readonly mesh: {
    readonly epoch: string | null;
    readonly revision: number | null;
    /** what is in force comes from disk, not from the hub */
    readonly isStale: boolean;
    /** when the state was last known to be the newest; null: never */
    readonly syncedAt: string | null;
    readonly members: number;
    readonly identities: number;
    readonly policies: number;
    readonly refused: readonly { readonly key: string; readonly reason: string }[];
  };
  readonly peers: {
    readonly total: number;
    readonly withSession: number;
    /** how many are behind a way that is narrower than this node's underlay MTU, and the narrowest of those */
    readonly withNarrowPath: number;
    readonly leastPathMtuBytes: number | null;
  };
  readonly policy: {
    /** new inbound connections are judged by policy; false: all are refused */
    readonly isReady: boolean;
    readonly revision: number;
    readonly refused: readonly { readonly policy: string; readonly reason: string }[];
  };
  readonly traffic: TrafficDocument;
  readonly health: readonly HealthItem[];
  readonly startedAt: string;
  readonly stateWrites: number;
}

/** One member of the mesh, from its record. */
export interface MemberDocument {
  readonly name: string;
  readonly cluster: { readonly name: string; readonly id: number };
  readonly addresses: readonly string[];
  readonly underlay: string;
  readonly identity: number;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  readonly publicKey: string;
  readonly isHub: boolean;
}

export interface RoutingDocument {
  readonly mode: "tunnel" | "native" | "hybrid";
  readonly tunnelProtocol: "geneve" | "vxlan";
  readonly encryption: "wireguard" | "none";
  /** the network that this member is in, for hybrid; "" = none */
  readonly network: string;
}

/** The TUN device and what the machine gave. */
export interface DeviceDocument {
  readonly tun: string;
  readonly isUp: boolean;
  readonly mtuBytes: number;
  readonly wireguardPort: number;
  /** threads that move packets */
  readonly datapathWorkers: number;
  /** empty until the datapath runs */
  readonly offload: Readonly<Record<string, string | number | boolean>>;
  readonly routes: readonly string[];
  /** how often the datapath was started */
  readonly starts: number;
}

export interface HubDocument {
  /** none: this member runs from a mesh file */
  readonly state: "connecting" | "synced" | "offline" | "refused" | "none";
  readonly endpoint: string | null;
  readonly detail: string | null;
  readonly since: string;
}

export interface TrafficDocument {
  readonly fromTunPackets: number;
  readonly fromTunBytes: number;
  readonly toTunPackets: number;
  readonly toTunBytes: number;
  readonly fromUnderlayDatagrams: number;
  readonly fromUnderlayBytes: number;
  readonly toUnderlayDatagrams: number;
  readonly toUnderlayBytes: number;
  readonly ingressDrops: Readonly<Record<string, number>>;
  readonly egressDrops: Readonly<Record<string, number>>;
}

/** `GET /v1/peers`, `edgemesh peers`, `edgemesh wg show` */
export interface PeersDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Peers";
  readonly publicKey: string | null;
  readonly wireguardPort: number;
  readonly tun: string;
  readonly peers: readonly PeerDocument[];
}

export interface PeerDocument extends MemberDocument {
  /** active: has a session; idle: had one; new: never heard of it; unencrypted: the mesh has no sessions */
  readonly state: "active" | "idle" | "new" | "unencrypted";
  /** how packets are sent to it */
  readonly mode: "tunnel" | "native";
  /** the network that it is in, for hybrid; "" = none */
  readonly network: string;
  /** where it was last heard; null: not yet known */
  readonly underlayAddr: string | null;
  readonly lastHandshake: string | null;
  readonly rxBytes: number;
  readonly txBytes: number;
  /** what the session seals with; null: there is none */
  readonly aead: string | null;
  /** largest packet of the underlay that gets there, up to this node's underlay MTU; null: not known */
  readonly pathMtuBytes: number | null;
  readonly keepaliveSeconds: number;
  readonly hasPresharedKey: boolean;
  /** prefixes that are routed to it */
  readonly prefixes: readonly string[];
}

/** `GET /v1/drops`, `edgemesh monitor --drops` */
export interface DropsDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Drops";
  /** counted since the datapath started, by direction and reason */
  readonly totals: {
    readonly ingress: Readonly<Record<string, number>>;
    readonly egress: Readonly<Record<string, number>>;
  };
  /** the newest, newest last; a small ring: not every drop is here */
  readonly recent: readonly DropDocument[];
}

export interface DropDocument {
  readonly at: string;
  readonly direction: "ingress" | "egress";
  readonly reason: string;
  readonly text: string;
  readonly source: string | null;
  readonly destination: string | null;
  readonly protocol: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** of the other side; 0 = unknown */
  readonly identity: number;
}

/** `GET /v1/flows`, `edgemesh observe` */
export interface FlowsDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Flows";
  /** "<cluster>/<name>" of this member */
  readonly member: string;
  /** number of the newest flow known: `?since=` it asks for what comes later; 0: none yet */
  readonly newest: number;
  /** flows after `since` that are gone already */
  readonly lost: number;
  /** oldest first */
  readonly flows: readonly FlowDocument[];
}

/** A request that a proxy judged, a packet that was dropped, or a flow that was let through. */
export interface FlowDocument {
  readonly number: number;
  readonly at: string;
  readonly type: "L3_L4" | "L7";
  readonly verdict: FlowVerdict;
  readonly direction: "ingress" | "egress";
  /** null: no packet could be read */
  readonly source: FlowEndDocument | null;
  readonly destination: FlowEndDocument | null;
  readonly protocol: string;
  /** name of the drop reason */
  readonly drop: string | null;
  readonly reason: string | null;
  readonly rule: { readonly policy: string; readonly path: string } | null;
  readonly http: HttpFacts | null;
  readonly dns: DnsFacts | null;
}

export interface FlowEndDocument {
  readonly address: string;
  /** for ICMP the type, at the destination */
  readonly port: number;
  /** of the member with that address; null: none */
  readonly name: string | null;
  /** 0 = unknown */
  readonly identity: number;
}

/** `GET /v1/identities`, `edgemesh identity list` */
export interface IdentitiesDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Identities";
  readonly identities: readonly { readonly id: number; readonly labels: Readonly<Record<string, string>> }[];
}

/** `GET /v1/policies`, `edgemesh policy get` */
export interface PoliciesDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Policies";
  readonly isReady: boolean;
  readonly revision: number;
  /** what no rule allows is dropped */
  readonly enforcement: { readonly ingress: boolean; readonly egress: boolean };
  /** how policies are read; null until the mesh state says so */
  readonly settings: ({ readonly cluster: string } & PolicySettings) | null;
  /** look-ups that no rule decided; null while the datapath has not applied this revision */
  readonly undecidedHits: number | null;
  readonly policies: readonly PolicyDocumentState[];
  /** what policies may refer to; absent: an agent of an older release */
  readonly cidrGroups?: readonly CidrGroupState[];
  /** addresses that were learned for names of policies in force */
  readonly names?: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly services?: readonly ServiceState[];
}

export interface CidrGroupState {
  readonly name: string;
  readonly document: Readonly<Record<string, unknown>>;
}

export interface ServiceState {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** labels of the members behind it; null: the addresses are */
  readonly selector: Readonly<Record<string, string>> | null;
  readonly addresses: readonly string[];
}

export interface PolicyDocumentState {
  readonly kind: string;
  /** "" for a cluster-wide kind */
  readonly namespace: string;
  readonly name: string;
  /** refused: not enforced as written, `reason` says why */
  readonly state: "enforced" | "refused";
  readonly reason: string | null;
  /** it selects this member */
  readonly selectsSelf: boolean;
  /** those in force for this member */
  readonly rules: readonly RuleState[];
  readonly document: Readonly<Record<string, unknown>>;
}

export interface RuleState {
  /** where it stands in the document, e.g. "spec.ingress[0]" */
  readonly path: string;
  readonly verdict: RuleVerdict;
  /** look-ups that it decided since it came: new flows, and flows judged again; null while the datapath has not applied this revision */
  readonly hits: number | null;
}

/** `POST /v1/policy/dry-run`, `edgemesh policy dry-run` */
export interface DryRunDocument extends DryRunResult {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "DryRun";
}

/** `POST /v1/ping`: one echo request */
export interface PingDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Ping";
  readonly to: string;
  /** name of the member with that address; null: none */
  readonly member: string | null;
  readonly sequence: number;
  /** answered; dropped here (`reason`); or no answer in time */
  readonly result: "answered" | "dropped" | "timeout";
  readonly roundTripMs: number | null;
  readonly reason: string | null;
}

/** Any answer that is an error. */
export interface ErrorDocument {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: "Error";
  readonly code: string;
  readonly message: string;
  readonly fix: string;
}
