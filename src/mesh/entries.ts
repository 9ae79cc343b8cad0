/**
 * The mesh state as a member sees it: entries under text keys, every change with a revision. The hub's sync stream, the file on
 * disk and a mesh file all carry exactly this, and `MeshState` (state.ts) turns it into tables.
 *
 *     settings                     one MeshSettings
 *     member/<cluster>/<name>      SignedRecord of a MemberRecord (this member's own is among them)
 *     identity/<decimal id>        IdentityEntry
 *     namespace/<name>             NamespaceEntry
 *     ip/<prefix>                  IpEntry: prefixes beyond the members' own addresses
 *     policy/<kind>/<ns>/<name>    a Kubernetes object as plain JSON data; <ns> is empty for a cluster-wide kind
 *     cidrgroup/<name>             a CiliumCIDRGroup as plain JSON data
 *     service/<ns>/<name>          ServiceEntry
 *
 * Values are plain data: msgpackr and structured clone carry them unchanged. Octet strings are `Uint8Array`.
 */

export interface ClusterRef {
  readonly name: string;
  /** 1 to 255; scopes identities */
  readonly id: number;
}

export interface RoutingSettings {
  readonly mode: "tunnel" | "native" | "hybrid";
  readonly tunnelProtocol: "geneve" | "vxlan";
  readonly encryption: "wireguard" | "none";
}

/** How policies are read; words and defaults are Cilium's. */
export interface PolicySettings {
  readonly enforcementMode: "default" | "always" | "never";
  /** selectors without a cluster label match the local cluster only (`policy-default-local-cluster`) */
  readonly defaultLocalCluster: boolean;
  readonly allowLocalhost: "always" | "policy";
  // Absent is off, or the default: a state that an older hub wrote has none of them.
  readonly auditMode?: boolean;
  readonly cidrMatchMode?: readonly ("nodes" | "pods")[];
  readonly hostFirewall?: boolean;
  /** how names are learned (`tofqdns-...`) */
  readonly fqdn?: FqdnSettings;
}

export interface FqdnSettings {
  /** answers are kept at least so long, seconds; 0 when absent */
  readonly minTtlSeconds?: number;
  /** addresses kept for one name, 1000 when absent */
  readonly maxIpsPerName?: number;
  /** what a refused query is answered with; `refused` when absent */
  readonly rejectCode?: "refused" | "nameError";
}

export interface MeshSettings {
  readonly cluster: ClusterRef;
  readonly routing: RoutingSettings;
  readonly policy: PolicySettings;
  /** prefixes that members' addresses come from, as text; routed into the TUN */
  readonly memberCidrs: readonly string[];
}

export interface NamedPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: "TCP" | "UDP" | "SCTP";
}

/** One member, as the hub vouches for it. */
export interface MemberRecord {
  readonly name: string;
  readonly cluster: ClusterRef;
  /** WireGuard static public key, 32 octets */
  readonly publicKey: Uint8Array;
  /** Ed25519 public key that authenticates the member to its hub, 32 octets */
  readonly deviceKey: Uint8Array;
  /** mesh addresses, canonical text without a length: first IPv4, then IPv6, where there is one */
  readonly addresses: readonly string[];
  /** address in outer headers (Cilium's InternalIP); unique in the mesh; allowed IP of the peer */
  readonly underlay: string;
  /** where the member was last seen from or says it listens, `address:port`, best first; may be empty (NAT) */
  readonly endpoints: readonly string[];
  /** the network that it says it is in, for `hybrid`; "" = it says none. At most 63 characters. */
  readonly network: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  /** AEADs that it wants transport data sealed with where the other side announces them too; empty: WireGuard's only */
  readonly aeads: readonly string[];
  readonly identity: number;
  /** Unix milliseconds */
  readonly notBefore: number;
  readonly notAfter: number;
  /** the hub itself: always a peer, never filtered out */
  readonly isHub: boolean;
}

/** A record and the hub's Ed25519 signature over exactly these octets. Members accept no peer without one that verifies. */
export interface SignedRecord {
  /** msgpack of a MemberRecord */
  readonly record: Uint8Array;
  /** 64 octets, over "edgemesh member record v1" || 0x00 || record */
  readonly signature: Uint8Array;
}

export interface IdentityEntry {
  /** "source:key" -> value, e.g. "k8s:app" -> "web" (src/identity/labels.ts) */
  readonly labels: Readonly<Record<string, string>>;
}

export interface NamespaceEntry {
  readonly labels: Readonly<Record<string, string>>;
}

export interface IpEntry {
  readonly identity: number;
  /** member that the prefix is behind, "<cluster>/<name>"; none: known but not reachable through the mesh */
  readonly member?: string;
}

/** A Kubernetes document as data, already accepted by the hub's validation; the member validates again. */
export type PolicyDocument = Readonly<Record<string, unknown>>;

/** A Kubernetes service, as far as policies (`toServices`) need it. */
export interface ServiceEntry {
  readonly labels: Readonly<Record<string, string>>;
  /** labels of the pods behind it; absent: the addresses are */
  readonly selector?: Readonly<Record<string, string>>;
  /** endpoints, canonical text */
  readonly addresses: readonly string[];
}

export type EntryValue =
  | MeshSettings
  | SignedRecord
  | IdentityEntry
  | NamespaceEntry
  | IpEntry
  | PolicyDocument
  | ServiceEntry;

/** The whole state for one member at a revision. What is not listed is gone. */
export interface SnapshotFrame {
  readonly t: "snapshot";
  /** which history the revisions count in; a hub that lost its store starts another */
  readonly epoch: string;
  readonly revision: number;
  readonly entries: readonly (readonly [key: string, value: EntryValue])[];
}

/** Changes that lead from the last revision applied to this one. */
export interface DeltaFrame {
  readonly t: "delta";
  readonly revision: number;
  readonly puts: readonly (readonly [key: string, value: EntryValue])[];
  readonly deletes: readonly string[];
}

export type StateFrame = SnapshotFrame | DeltaFrame;
