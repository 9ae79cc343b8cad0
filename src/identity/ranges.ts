/**
 * Which numbers an identity may have. The low 24 bits travel on the wire; the bits above are a scope that never leaves the node.
 *
 *     31      24 23          16 15            0
 *     +--------+--------------+---------------+
 *     | scope  |  cluster ID  |   identity    |   255-cluster mode: shift 16 (511-cluster mode: 15)
 *     +--------+--------------+---------------+
 *
 * @see Cilium `pkg/identity/numericidentity.go`, `pkg/clustermesh/types`
 */

/** First number of a cluster's range that is given out; lower ones are reserved. */
export const FIRST_ALLOCATABLE = 256;
/** Scope bits of identities that exist on one node only: CIDR and FQDN. */
export const SCOPE_LOCAL = 0x0100_0000;
const WIRE_BITS = 24;

/** Most clusters in a mesh: 255 (the default) or 511. All clusters of a mesh must agree. */
export type MaxClusters = 255 | 511;

export interface IdentityRange {
  readonly first: number;
  /** inclusive */
  readonly last: number;
}

/** Bits that the cluster ID is shifted left by: 16 or 15. */
function clusterShift(maxClusters: MaxClusters = 255): number {
  return maxClusters === 255 ? 16 : 15;
}

/**
 * The numbers that a cluster may give out.
 * @param clusterId 1 up to `maxClusters`; 0 stands for a cluster outside any mesh
 * @throws RangeError for another ID
 */
export function clusterRange(clusterId: number, maxClusters: MaxClusters = 255): IdentityRange {
  if (!Number.isInteger(clusterId) || clusterId < 0 || clusterId > maxClusters) {
    throw new RangeError(`Cluster ID ${clusterId} is not within 0 to ${maxClusters}`);
  }
  const shift = clusterShift(maxClusters);
  const base = clusterId << shift;
  return { first: base + FIRST_ALLOCATABLE, last: base + (1 << shift) - 1 };
}

/** Whether a remote cluster may publish this number: inside its bits, `[c << shift, ((c + 1) << shift) - 1]`. */
export function isInCluster(identity: number, clusterId: number, maxClusters: MaxClusters = 255): boolean {
  return isWireIdentity(identity) && identity >>> clusterShift(maxClusters) === clusterId;
}

/** Whether it fits a VNI: an integer of scope 0. */
export function isWireIdentity(identity: number): boolean {
  return Number.isInteger(identity) && identity >= 0 && identity < 1 << WIRE_BITS;
}
