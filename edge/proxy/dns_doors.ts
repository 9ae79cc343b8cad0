/** What the DNS proxy and the local resolver are given beyond `ProxyDoors`, and the limits that both keep. */
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import type { Verdict } from "../../src/verdict.ts";
import type { ProxyDoors } from "./doors.ts";
import type { AddressPort } from "./dns_upstream.ts";

/** Runs a task once, after so many milliseconds, unless the answer is called before. */
export interface OneShots {
  after(ms: number, task: () => void): () => void;
}

/** The doors of everything that answers DNS questions. */
export interface DnsDoors extends ProxyDoors {
  /**
   * Addresses were seen for a name that `patterns` mentions. Resolves when the datapath has the policy that follows; the answer
   * waits for that, but no longer than `LEARN_WAIT_MS`.
   * @param name       canonical
   * @param addresses  text
   * @param ttlSeconds as answered
   */
  learn(name: string, addresses: readonly string[], ttlSeconds: number): Promise<void>;
  /** Patterns of the `toFQDNs` peers in force, as `readPattern` spells them. */
  patterns(): readonly string[];
  /** What a question that no rule allows is answered with. */
  rejectCode(): "refused" | "nameError";
  /** Unix milliseconds */
  unixMs(): number;
  readonly timers: OneShots;
}

/** What policy says of a flow from this node, and that flow. */
export interface OwnFlow {
  /** FORWARD, REDIRECT, or the reason of a drop */
  readonly verdict: Verdict;
  /** with this node's address of the family and port 0, direction egress, and the identity of the other side */
  readonly flow: RedirectedFlow;
}

/** The doors of the local resolver. */
export interface ResolverDoors extends DnsDoors {
  /** Judges a flow that does not exist from this node to a server. `to.address` carries no zone. */
  judge(to: AddressPort, protocol: 6 | 17): OwnFlow;
}

/** Longest wait for the datapath before an answer goes out (Cilium: `tofqdns-proxy-response-max-delay`). */
export const LEARN_WAIT_MS = 100;
/** Questions that wait for an answer at a time, of all clients together. Each may hold sockets. */
export const MAX_WAITING = 256;
/** Longest question: a name, an OPT record and a signature take a tenth of it. */
export const MAX_QUERY_BYTES = 4096;
/** Longest wait for an answer in a redirected flow (Cilium: 10 s): the client repeats its question itself. */
export const FLOW_WAIT_MS = 10_000;
