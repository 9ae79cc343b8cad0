/** What a token grants, and when it stops granting. Pure: the hub's clock comes in. */
import { isDnsLabel, isLabel } from "./allocate.ts";
import type { JoinRequest } from "./join.ts";
import type { TokenRow } from "./records.ts";
import { type JoinRefusal, refuse } from "./refusal.ts";

/** The same device may repeat its join with the same token for this long, and gets the same answer. */
export const REPEAT_WINDOW_MS = 15 * 60 * 1000;
/** How far the hub's clock may lag behind the one that issued the token. */
const CLOCK_TOLERANCE_MS = 10 * 60 * 1000;
const DEFAULT_NAMESPACE = "default";
const MAX_LABELS = 64;
const MAX_NAMED_PORTS = 64;

export type TokenState = "valid" | "expired" | "used-up" | "revoked";

export function stateOfToken(token: TokenRow, nowUnixMs: number): TokenState {
  if (token.revokedAt !== null) return "revoked";
  if (token.uses !== null && token.used >= token.uses) return "used-up";
  return token.notAfter !== null && nowUnixMs > token.notAfter ? "expired" : "valid";
}

/** Why a token admits nobody new at this time; `undefined` = it does. */
export function refusalOfToken(token: TokenRow, nowUnixMs: number): JoinRefusal | undefined {
  if (token.createdAt - nowUnixMs > CLOCK_TOLERANCE_MS) {
    return refuse("clock", "the hub's clock is behind the time when this token was issued");
  }
  switch (stateOfToken(token, nowUnixMs)) {
    case "revoked":
      return refuse("revoked", "the token was revoked");
    case "used-up":
      return refuse("used-up", `the token has no use left (${token.used} of ${token.uses})`);
    case "expired":
      return refuse("expired", `the token expired at ${new Date(token.notAfter!).toISOString()}`);
    case "valid":
      return undefined;
  }
}

/** Name, namespace and labels that the member gets. */
export interface Grant {
  /** "" = the hub chooses */
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** What the device asks for, within what the token fixes; or why not. */
export function grantOf(
  token: TokenRow,
  request: JoinRequest,
): { readonly grant: Grant } | { readonly refusal: JoinRefusal } {
  const fault = faultOfWishes(request) ?? conflictOf(token, request);
  if (fault !== undefined) return { refusal: refuse("bad-request", fault) };
  return {
    grant: {
      name: token.name || request.name,
      namespace: token.namespace || request.namespace || DEFAULT_NAMESPACE,
      labels: { ...request.labels, ...token.labels },
    },
  };
}

/** What is malformed among the things a device may choose. */
function faultOfWishes(request: JoinRequest): string | undefined {
  if (request.name !== "" && !isDnsLabel(request.name)) return "the name is no DNS label (a-z, 0-9, -, at most 63)";
  if (request.namespace !== "" && !isDnsLabel(request.namespace)) return "the namespace is no DNS label";
  const labels = Object.entries(request.labels);
  if (labels.length > MAX_LABELS) return `there are more than ${MAX_LABELS} labels`;
  const bad = labels.find(([key, value]) => !isLabel(key, value));
  if (bad !== undefined) return `label ${JSON.stringify(bad[0].slice(0, 80))} is not what Kubernetes takes as a label`;
  if (request.namedPorts.length > MAX_NAMED_PORTS) return `there are more than ${MAX_NAMED_PORTS} named ports`;
  const names = request.namedPorts.map((port) => port.name);
  if (new Set(names).size !== names.length) return "a port name is there twice";
  return names.every(isDnsLabel) ? undefined : "a port name is no DNS label";
}

function conflictOf(token: TokenRow, request: JoinRequest): string | undefined {
  if (token.name !== "" && request.name !== "" && request.name !== token.name) {
    return `the token is for the name "${token.name}"`;
  }
  if (token.namespace !== "" && request.namespace !== "" && request.namespace !== token.namespace) {
    return `the token is for the namespace "${token.namespace}"`;
  }
  const changed = Object.keys(request.labels).find((key) =>
    Object.hasOwn(token.labels, key) && token.labels[key] !== request.labels[key]
  );
  return changed === undefined ? undefined : `the token fixes the label "${changed}"`;
}
