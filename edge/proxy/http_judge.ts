/**
 * From a request as `node:http` has read it to what is forwarded in its place, or to the answer that refuses it. Nothing else
 * decides: `http_session.ts` and `http_tunnel.ts` only carry it out.
 */
import type { IncomingMessage } from "node:http";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { readRequestHead, type RequestHead } from "../../src/l7/http_headers.ts";
import { HttpRuleSet } from "../../src/l7/http_rules.ts";
import { readTarget } from "../../src/l7/http_target.ts";
import type { L7RuleOf, ProxyDoors } from "./doors.ts";
import { denialReason, deniedAnswer, type OwnAnswer, redirectAnswer, refusedAnswer } from "./http_answers.ts";
import { Exchange } from "./http_exchange.ts";

/** A request that goes on: judged and forwarded are the same path and the same headers. */
export interface AllowedRequest {
  readonly head: RequestHead;
  readonly method: string;
  readonly path: string;
  /** Host first; without what ends at this hop, and without Transfer-Encoding */
  readonly headers: readonly string[];
}

/** Either `allowed` or `answer` is there. */
export interface Judged {
  readonly exchange: Exchange;
  readonly allowed?: AllowedRequest;
  readonly answer?: OwnAnswer;
  /** the request could not be read safely: what follows it on the connection cannot be either */
  readonly isLast: boolean;
}

/** Judges the requests of all connections of one proxy; keeps what it compiled of a list of rules as long as the list lives. */
export class HttpJudge {
  readonly #doors: ProxyDoors;
  readonly #sets = new WeakMap<readonly L7RuleOf[], HttpRuleSet>();

  constructor(doors: ProxyDoors) {
    this.#doors = doors;
  }

  judge(flow: RedirectedFlow, message: IncomingMessage): Judged {
    const method = message.method ?? "";
    const exchange = new Exchange(flow, this.#doors, {
      method,
      path: message.url ?? "",
      host: message.headers.host ?? "",
    });
    const head = readRequestHead(message.rawHeaders, message.httpVersion);
    if ("refusal" in head) return refuse(exchange, head.status, head.refusal, true);
    const target = readTarget(method, message.url ?? "");
    if ("refusal" in target) return refuse(exchange, target.status, target.refusal, head.framing !== "none");
    const host = target.authority ?? head.host;
    exchange.facts.path = target.path;
    exchange.facts.host = host ?? "";
    const set = this.#setFor(flow);
    const headers = ["Host", host ?? "", ...head.headers];
    const { rule, headers: edited, mismatches } = set.judge({ method, path: target.path, host, headers });
    if (rule === undefined) {
      exchange.refused(403, denialReason(set.policies));
      return { exchange, answer: deniedAnswer(set.policies), isLast: false };
    }
    exchange.rule = rule;
    exchange.mismatches = mismatches;
    // only what policy allows is told where to go
    if (target.isRedirect) {
      exchange.forwarded(307, "the path has escaped separators");
      return { exchange, answer: redirectAnswer(target.path), isLast: false };
    }
    return { exchange, allowed: { head, method, path: target.path, headers: edited }, isLast: false };
  }

  #setFor(flow: RedirectedFlow): HttpRuleSet {
    const rules = this.#doors.l7RulesFor(flow);
    let set = this.#sets.get(rules);
    if (set === undefined) this.#sets.set(rules, set = new HttpRuleSet(rules));
    return set;
  }
}

/** Refuses for a reason of the proxy's own, not of a policy. */
export function refuse(exchange: Exchange, status: number, reason: string, isLast: boolean): Judged {
  exchange.refused(status, reason);
  return { exchange, answer: refusedAnswer(status, reason), isLast };
}
