/**
 * Reserved identities: numbers that mean the same on every node of every cluster.
 * @see Cilium `pkg/identity/numericidentity.go`
 */
import type { Labels } from "./labels.ts";

export const IDENTITY_UNKNOWN = 0;
export const IDENTITY_HOST = 1;
/** outside, family not said (single-stack Cilium) */
export const IDENTITY_WORLD = 2;
export const IDENTITY_UNMANAGED = 3;
export const IDENTITY_HEALTH = 4;
export const IDENTITY_INIT = 5;
export const IDENTITY_REMOTE_NODE = 6;
export const IDENTITY_KUBE_APISERVER = 7;
export const IDENTITY_INGRESS = 8;
export const IDENTITY_WORLD_IPV4 = 9;
export const IDENTITY_WORLD_IPV6 = 10;

const NAMES: readonly string[] = [
  "unknown",
  "host",
  "world",
  "unmanaged",
  "health",
  "init",
  "remote-node",
  "kube-apiserver",
  "ingress",
  "world-ipv4",
  "world-ipv6",
];

/** Name of a reserved identity, `undefined` for every other number. */
export function nameOfReserved(identity: number): string | undefined {
  return NAMES[identity];
}

/** Number of a reserved name, `undefined` for any other text. */
export function reservedOfName(name: string): number | undefined {
  const identity = NAMES.indexOf(name);
  return identity < 0 ? undefined : identity;
}

/** Whether an identity stands for everybody outside. */
export function isWorldIdentity(identity: number): boolean {
  return identity === IDENTITY_WORLD || identity === IDENTITY_WORLD_IPV4 || identity === IDENTITY_WORLD_IPV6;
}

/** Labels of the reserved identities that traffic can have. kube-apiserver is also a remote node. */
export const RESERVED_LABELS: ReadonlyMap<number, Labels> = new Map(
  NAMES.slice(1).map((name, i): [number, Labels] => [
    i + 1,
    i + 1 === IDENTITY_KUBE_APISERVER
      ? { "reserved:kube-apiserver": "", "reserved:remote-node": "" }
      : { [`reserved:${name}`]: "" },
  ]),
);
