/**
 * Judges one HTTP request by the rules that a flow is redirected for. Semantics are those of Cilium's filter for Envoy: what a rule
 * names must all hold, the rules of all policies are alternatives, `{}` matches every request.
 *
 *     method, path, host   RE2, the whole value; the path has its query (`:path`), the host its port (`:authority`)
 *     headers              name alone: it is there; with a value: all its values, joined by ",", are exactly that
 *     mismatch             a header condition that fails, but does not fail the rule: LOG, ADD, DELETE, REPLACE act instead
 *
 * Where some rule has a `mismatch`, every rule is looked at, so that all actions happen; a rule that does not match acts nowhere.
 * Headers that delimit the message are not acted on, and a rule that would write what is no header matches nothing.
 */
import type { RuleRef } from "../policy/explain.ts";
import type { HeaderMatch, HttpRule, L7Rules } from "../policy/model.ts";
import { headersWithout, isFramingHeader, isWritable } from "./http_headers.ts";
import { compileRegex, type Regex } from "./regex.ts";

export { checkRegex } from "./regex.ts";

/** What is judged, and what is then forwarded: the same bytes. */
export interface HttpRequest {
  readonly method: string;
  /** normalised (`http_target.ts`), with its query */
  readonly path: string;
  /** undefined: the request names none, which HTTP/1.0 may */
  readonly host: string | undefined;
  /** name, value, name, value, ...; names as they were written, Host among them */
  readonly headers: readonly string[];
}

export interface HttpJudgement {
  /** the first rule that allows it; undefined: none does */
  readonly rule: RuleRef | undefined;
  /** the request's headers after ADD, DELETE and REPLACE; the same list where nothing was changed */
  readonly headers: readonly string[];
  /** headers that were not as a rule with `mismatch` wants them, one text each */
  readonly mismatches: readonly string[];
}

type MaybeRegex = Regex | undefined;

interface CompiledRule {
  readonly method: MaybeRegex;
  readonly path: MaybeRegex;
  readonly host: MaybeRegex;
  readonly conditions: readonly HeaderMatch[];
  readonly actions: readonly HeaderMatch[];
  /** an expression of it cannot be compiled, or a header of it cannot be written: it matches nothing */
  readonly isBroken: boolean;
}

/** Compiled once for each rule object: those of a policy live as long as it. */
const compiledRules = new WeakMap<HttpRule, CompiledRule>();

/** The HTTP rules of one list, compiled. Rules of other kinds in it allow nothing. */
export class HttpRuleSet {
  readonly #rules: readonly (CompiledRule & { readonly ref: RuleRef })[];
  readonly #hasActions: boolean;
  /** names of the policies that have rules here, in order */
  readonly policies: readonly string[];

  constructor(list: readonly { readonly rule: RuleRef; readonly l7: L7Rules }[]) {
    this.#rules = list.flatMap(({ rule: ref, l7 }) =>
      l7.kind === "http" ? l7.rules.map((rule) => ({ ...compileRule(rule), ref })) : []
    );
    this.#hasActions = this.#rules.some((rule) => rule.actions.length > 0);
    this.policies = [...new Set(this.#rules.map(({ ref }) => ref.policy))];
  }

  judge(request: HttpRequest): HttpJudgement {
    const edited = new EditedHeaders(request.headers);
    let rule: RuleRef | undefined;
    for (const candidate of this.#rules) {
      if (!matches(candidate, request, edited.list)) continue;
      rule ??= candidate.ref;
      if (!this.#hasActions) break;
      for (const action of candidate.actions) edited.correct(action);
    }
    if (rule === undefined) return { rule, headers: request.headers, mismatches: [] };
    return { rule, headers: edited.list, mismatches: edited.mismatches };
  }
}

function compileRule(rule: HttpRule): CompiledRule {
  const known = compiledRules.get(rule);
  if (known !== undefined) return known;
  const sources = [rule.method, rule.path, rule.host];
  const [method, path, host] = sources.map((source) => source ? compileRegex(source) : undefined);
  const actions = rule.headers.filter((header) => header.mismatch !== undefined);
  const compiled: CompiledRule = {
    method,
    path,
    host,
    conditions: rule.headers.filter((header) => header.mismatch === undefined),
    actions,
    isBroken: sources.some((source, i) => source && [method, path, host][i] === undefined) ||
      actions.some(({ name, value }) => !isWritable(name, value ?? "")),
  };
  compiledRules.set(rule, compiled);
  return compiled;
}

function matches(rule: CompiledRule, request: HttpRequest, headers: readonly string[]): boolean {
  if (rule.isBroken) return false;
  if (rule.method !== undefined && !rule.method.matches(request.method)) return false;
  if (rule.path !== undefined && !rule.path.matches(request.path)) return false;
  if (rule.host !== undefined && (request.host === undefined || !rule.host.matches(request.host))) return false;
  return rule.conditions.every((condition) => holds(condition, valueOf(headers, condition.name)));
}

/** An empty value asks for presence, as no value does. */
function holds(condition: HeaderMatch, value: string | undefined): boolean {
  return value !== undefined && (!condition.value || value === condition.value);
}

/** All values of a header, joined by ","; undefined: it is not there. */
function valueOf(headers: readonly string[], name: string): string | undefined {
  const wanted = name.toLowerCase();
  let found: string | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]!.toLowerCase() !== wanted) continue;
    found = found === undefined ? headers[i + 1]! : `${found},${headers[i + 1]}`;
  }
  return found;
}

/** The request's headers while rules act on them; the request's own list until the first change. */
class EditedHeaders {
  list: readonly string[];
  readonly mismatches: string[] = [];

  constructor(list: readonly string[]) {
    this.list = list;
  }

  correct(action: HeaderMatch): void {
    const value = valueOf(this.list, action.name);
    if (holds(action, value)) return;
    // to delete what is not there is no correction
    if (action.mismatch === "DELETE" && value === undefined) return;
    this.mismatches.push(`header ${action.name} is ${value === undefined ? "missing" : "another"}: ${action.mismatch}`);
    const name = action.name.toLowerCase();
    if (action.mismatch === "LOG" || isFramingHeader(name)) return;
    const kept = action.mismatch === "ADD" ? this.list : headersWithout(this.list, name);
    this.list = action.mismatch === "DELETE" ? kept : [...kept, action.name, action.value ?? ""];
  }
}
