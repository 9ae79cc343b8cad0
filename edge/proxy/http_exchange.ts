/**
 * One request and its answer. Whatever happens to it, it is recorded once: what was answered, by which rule, or why it was refused.
 */
import type { RuleRef } from "../../src/policy/explain.ts";
import { DROP_PROXY_REFUSED, FORWARD } from "../../src/verdict.ts";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import type { HttpFacts, ProxyDoors } from "./doors.ts";

/** What of a request is recorded; `path` and `host` become those that are judged. */
export interface ExchangeFacts {
  method: string;
  path: string;
  host: string;
}

export class Exchange {
  readonly facts: ExchangeFacts;
  /** the rule that let it through */
  rule: RuleRef | undefined;
  /** what rules with `mismatch` found */
  mismatches: readonly string[] = [];
  readonly #flow: RedirectedFlow;
  readonly #doors: Pick<ProxyDoors, "record">;
  readonly #unixMs: number;
  #isRecorded = false;

  constructor(flow: RedirectedFlow, doors: Pick<ProxyDoors, "record">, facts: ExchangeFacts) {
    this.facts = facts;
    this.#flow = flow;
    this.#doors = doors;
    this.#unixMs = Date.now();
  }

  /** @param status what the client was answered; 0: nothing */
  forwarded(status: number, reason?: string): void {
    this.#record(FORWARD, status, reason ?? (this.mismatches.length > 0 ? this.mismatches.join("; ") : undefined));
  }

  refused(status: number, reason: string): void {
    this.#record(DROP_PROXY_REFUSED, status, reason);
  }

  #record(verdict: number, status: number, reason: string | undefined): void {
    if (this.#isRecorded) return;
    this.#isRecorded = true;
    const http: HttpFacts = { ...this.facts, status };
    this.#doors.record({
      unixMs: this.#unixMs,
      flow: this.#flow,
      kind: "http",
      verdict,
      http,
      ...(this.rule === undefined ? {} : { rule: this.rule }),
      ...(reason === undefined ? {} : { reason }),
    });
  }
}
