/**
 * What becomes of a request in a flow that policy admits: judged as the proxies judge it, by the rules of each end that redirects.
 * What no proxy stands in the way of passes unseen.
 */
import { canonicalName, matchesPattern } from "../../src/fqdn/pattern.ts";
import { HttpRuleSet } from "../../src/l7/http_rules.ts";
import { readTarget } from "../../src/l7/http_target.ts";
import type { JudgedBy } from "../../src/policy/engine.ts";
import { REDIRECT } from "../../src/verdict.ts";
import type { HttpRequest, Probe } from "./scenario.ts";
import type { Step } from "./world.ts";

/** How a request ends. */
export interface RequestOutcome {
  /** status of the answer: the proxy's own, or 200 from behind it */
  readonly httpStatus?: number;
  /** of the answer: the proxy's own, or 0 from behind it */
  readonly dnsRcode?: number;
  /** the end whose proxy refuses it */
  readonly refusedBy: Step | undefined;
}

const STATUS_OK = 200;
const STATUS_REFUSED = 403;
const STATUS_BAD_REQUEST = 400;
const RCODE_OK = 0;
const RCODE_REFUSED = 5;

/** @returns `undefined` for a probe that asks nothing */
export function judgeRequest({ http, dns }: Probe, steps: readonly Step[]): RequestOutcome | undefined {
  const proxied = steps.filter(({ verdict }) => verdict === REDIRECT);
  if (http !== undefined) {
    for (const step of proxied) {
      const httpStatus = statusOf(http, step.l7);
      if (httpStatus !== STATUS_OK) return { httpStatus, refusedBy: step };
    }
    return { httpStatus: STATUS_OK, refusedBy: undefined };
  }
  if (dns === undefined) return undefined;
  const refusedBy = proxied.find(({ l7 }) => !isNameAllowed(dns.name, l7));
  return { dnsRcode: refusedBy === undefined ? RCODE_OK : RCODE_REFUSED, refusedBy };
}

/** A question to the DNS proxy is no HTTP request, and the other way about: neither gets through the wrong one. */
function statusOf(request: HttpRequest, l7: readonly JudgedBy[]): number {
  if (l7.some((rule) => rule.l7.kind !== "http")) return STATUS_BAD_REQUEST;
  const target = readTarget(request.method, request.path);
  if ("refusal" in target) return target.status;
  const host = target.authority ?? request.host;
  const headers = [...(host === undefined ? [] : ["Host", host]), ...Object.entries(request.headers).flat()];
  const { rule } = new HttpRuleSet(l7).judge({ method: request.method, path: target.path, host, headers });
  return rule === undefined ? STATUS_REFUSED : STATUS_OK;
}

function isNameAllowed(text: string, rules: readonly JudgedBy[]): boolean {
  const name = canonicalName(text);
  return name !== undefined &&
    rules.some(({ l7 }) => l7.kind === "dns" && l7.rules.some(({ pattern }) => matchesPattern(pattern, name)));
}
