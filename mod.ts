/**
 * The public door of edgemesh as a library: what others may build on. Re-exports only.
 *
 * - the pure core: WireGuard without IO, the datapath step by step, policy, mesh state, tokens; time and bytes come in as arguments
 * - what the core needs from outside, as interfaces (`src/ports.ts`)
 * - clients of a hub: join, sync, administration
 *
 * The program is `edge/main.ts`.
 *
 * @module
 */
export * from "./src/ports.ts";
export * from "./src/verdict.ts";
export {
  formatAddress,
  formatPrefix,
  type IpAddress,
  type IpPrefix,
  maskedPrefix,
  parseAddress,
  parsePrefix,
  parsePrefixOrAddress,
  prefixContains,
} from "./src/ip/address.ts";
export { formatUnderlayAddr, parseUnderlayAddr, type UnderlayAddr } from "./src/ip/underlay_addr.ts";
export type * from "./src/mesh/entries.ts";
export { type MeshChange, MeshState, type MeshStateOptions, type Position } from "./src/mesh/state.ts";
export type { RecordTrust } from "./src/mesh/entry_set.ts";
export { type PeerOptions, RECORD_GRACE_MS } from "./src/mesh/tables.ts";
export { type JoinToken, readToken, type TokenFault, writeToken } from "./src/hub/token.ts";
export { PolicyEngine } from "./src/policy/engine.ts";
export { PolicyTable, type PolicyUpdate } from "./src/policy/table.ts";
export { POLICY_KINDS, type PolicyResult, readPolicy } from "./src/policy/read_policy.ts";
export type { PolicyError, PolicyErrorCode } from "./src/policy/errors.ts";
export { WireGuard, type WireGuardOptions } from "./src/tunnel/wireguard.ts";
export type * from "./src/datapath/control.ts";
export { EdgeError, type EdgeErrorCode, ERROR_CODES } from "./edge/errors.ts";
export { joinHub, type JoinOptions, type JoinOutcome } from "./edge/sync/join_client.ts";
export { HubClient, type HubClientOptions } from "./edge/sync/client.ts";
export type { SourceStatus, StateSink, StateSource } from "./edge/sync/source.ts";
export { AdminClient, type AdminClientOptions } from "./edge/sync/admin_client.ts";
export type * from "./edge/agent/documents.ts";
