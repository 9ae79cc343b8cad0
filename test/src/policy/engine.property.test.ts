/**
 * The compiled table against the naive evaluator, and incremental updates against a table from scratch.
 * POLICY_RUNS scales the number of random worlds (default 400, each judged by 60 flows: 24 000 judgements).
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatPrefix, parseAddress } from "../../../src/ip/address.ts";
import { RESERVED_LABELS } from "../../../src/identity/reserved.ts";
import { auditedVerdict, KIND_DNS, KIND_HTTP } from "../../../src/policy/decision.ts";
import { type JudgedBy, PolicyEngine } from "../../../src/policy/engine.ts";
import { keyOfPolicy, type Policy } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { PolicyTable } from "../../../src/policy/table.ts";
import { REDIRECT } from "../../../src/verdict.ts";
import {
  documentArb,
  type Flow,
  flowArb,
  groupOf,
  GROUPS,
  INSIDE,
  labelsOf,
  LEARNED,
  type Member,
  memberArb,
  NODE_LABELS,
  NODES,
  OUTSIDE,
  serviceOf,
  SERVICES,
  settingsArb,
  subjectArb,
} from "./generate.ts";
import { judge, judgeStrictly, type Other } from "./naive.ts";

const RUNS = Number(process.env["POLICY_RUNS"] ?? 400);
const TIMEOUT_MS = 20_000 + 20 * RUNS;
/** Seeds that once found a fault, or cover much; kept. */
const SEEDS = [1, 20261124, 777];

function read(document: unknown): Policy {
  const result = readPolicy(document, { nodeSelectorLabels: true });
  if ("errors" in result) throw new Error(JSON.stringify(result.errors) + JSON.stringify(document));
  return result.policy;
}

const identityOf = (member: number) => 65536 + 256 + member;

/** Who the flow's other side is, for the naive judge, and its identity, for the table. */
function otherSide(
  flow: Flow,
  members: readonly Member[],
  engine: PolicyEngine,
): { other: Other; identity: number } | undefined {
  const named = { namedPorts: [] };
  if ("unknown" in flow.other) {
    return { other: { labels: {}, isUnknown: true, ...named }, identity: flow.other.unknown };
  }
  if ("reserved" in flow.other) {
    const identity = flow.other.reserved;
    const labels = RESERVED_LABELS.get(identity)!;
    const address = NODES[identity];
    if (address === undefined) return { other: { labels, isWorld: identity === 2, ...named }, identity };
    return {
      other: { labels, address, place: "nodes", nodeLabels: NODE_LABELS[identity]!, ...named },
      identity: engine.identityOfAddress(parseAddress(address)!),
    };
  }
  if ("address" in flow.other) {
    const address = parseAddress(flow.other.address)!;
    const labels = { [`reserved:world-ipv${address.length === 4 ? 4 : 6}`]: "" };
    return { other: { labels, address: flow.other.address, ...named }, identity: engine.identityOfAddress(address) };
  }
  const at = flow.other.member;
  const member = members[at];
  const address = INSIDE[at]!;
  return member && {
    other: { labels: labelsOf(member), namedPorts: member.namedPorts, address, place: "pods" },
    identity: engine.identityOfAddress(parseAddress(address)!),
  };
}

function putMember(engine: PolicyEngine, at: number, member: Member): void {
  engine.putIdentity(identityOf(at), labelsOf(member), member.namedPorts);
  engine.putAddress(parseAddress(INSIDE[at]!)!, identityOf(at));
}

function putNodes(engine: PolicyEngine): void {
  for (const [identity, text] of Object.entries(NODES)) {
    engine.putNode(parseAddress(text)!, Number(identity), NODE_LABELS[Number(identity)]!);
  }
}

const addressesOf = (texts: readonly string[]) => texts.map((text) => parseAddress(text)!);

/** Objects that policies name, and names that were learned. */
function putSources(engine: PolicyEngine): void {
  for (const group of GROUPS) engine.putCidrGroup(groupOf(group));
  for (const service of SERVICES) engine.putService(`${service.namespace}/${service.name}`, serviceOf(service));
  for (const [name, addresses] of Object.entries(LEARNED)) engine.putNames(name, addressesOf(addresses));
}

/** Paths and patterns of L7 rules, as the naive judge writes them. */
function requestsOf(judged: readonly JudgedBy[]): string[] {
  return [
    ...new Set(
      judged.flatMap(({ l7 }) =>
        l7.kind === "http"
          ? l7.rules.map(({ path }) => path ?? "*")
          : l7.rules.map(({ pattern }) => pattern.replace(/\.$/, ""))
      ),
    ),
  ].sort();
}

/** The later of two documents of one name replaces the first. */
function byKey(documents: readonly Record<string, unknown>[]): Map<string, Record<string, unknown>> {
  return new Map(documents.map((document) => [keyOfPolicy(read(document)), document]));
}

describe("the compiled table", () => {
  it("agrees with the naive evaluator, and with its own explanation, on random policies and flows", () => {
    let judged = 0;
    let proxied = 0;
    const world = fc.record({
      settings: settingsArb,
      subject: subjectArb,
      members: fc.array(memberArb, { minLength: 1, maxLength: 8 }),
      documents: fc.array(documentArb, { maxLength: 5 }),
      flows: fc.array(flowArb, { minLength: 60, maxLength: 60 }),
    });
    for (const seed of SEEDS) {
      fc.assert(
        fc.property(world, ({ settings, subject, members, documents, flows }) => {
          const engine = new PolicyEngine();
          const table = new PolicyTable();
          engine.setSettings(settings);
          engine.setSubject(subject);
          putNodes(engine);
          putSources(engine);
          members.forEach((m, i) => putMember(engine, i, m));
          const docs = byKey(documents);
          for (const [key, document] of docs) engine.putPolicy(key, read(document));
          table.apply(engine.takeUpdate()!);
          for (const flow of flows) {
            const side = otherSide(flow, members, engine);
            if (side === undefined) continue;
            judged++;
            const got = table.lookup(flow.direction, side.identity, flow.protocol, flow.port);
            expect(got, JSON.stringify(flow)).toBe(judge([...docs.values()], subject, settings, side.other, flow));
            const explained = engine.explain(flow.direction, side.identity, flow.protocol, flow.port);
            expect(explained.verdict).toBe(got);
            const strict = judgeStrictly([...docs.values()], subject, settings, side.other, flow);
            expect(explained.audited ?? got).toBe(strict.verdict);
            const isAudited = settings.policy.auditMode && strict.verdict !== REDIRECT;
            expect(auditedVerdict(table.kind)).toBe(isAudited ? strict.verdict : 0);
            const l7 = engine.l7RulesFor(flow.direction, side.identity, flow.protocol, flow.port);
            expect(l7).toEqual(explained.l7);
            if (got === REDIRECT) proxied++;
            expect(requestsOf(l7)).toEqual(
              table.kind === KIND_HTTP ? strict.http : table.kind === KIND_DNS ? strict.dns : [],
            );
            expect(explained.decidedBy?.index ?? -1).toBe(table.decidedBy);
          }
        }),
        { seed, numRuns: Math.ceil(RUNS / SEEDS.length) },
      );
    }
    expect(judged).toBeGreaterThan(RUNS * 30);
    expect(proxied).toBeGreaterThan(RUNS / 20);
  }, TIMEOUT_MS);

  it("is the same after incremental updates as from scratch, rule by rule", () => {
    type Step =
      | { op: "policy"; document: Record<string, unknown> }
      | { op: "drop"; document: Record<string, unknown> }
      | { op: "identity"; at: number; member: Member }
      | { op: "forget"; at: number }
      | { op: "group"; at: number; isThere: boolean }
      | { op: "service"; at: number; isThere: boolean }
      | { op: "name"; name: string; addresses: string[] }
      | { op: "flush" };
    const stepArb: fc.Arbitrary<Step> = fc.oneof(
      { weight: 5, arbitrary: fc.record({ op: fc.constant("policy" as const), document: documentArb }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("drop" as const), document: documentArb }) },
      { weight: 4, arbitrary: fc.record({ op: fc.constant("identity" as const), at: fc.nat(7), member: memberArb }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("forget" as const), at: fc.nat(7) }) },
      {
        weight: 2,
        arbitrary: fc.record({
          op: fc.constantFrom("group" as const, "service" as const),
          at: fc.nat(2),
          isThere: fc.boolean(),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          op: fc.constant("name" as const),
          name: fc.constantFrom(...Object.keys(LEARNED)),
          addresses: fc.subarray([...OUTSIDE, INSIDE[0]!, INSIDE[4]!]),
        }),
      },
      { weight: 3, arbitrary: fc.record({ op: fc.constant("flush" as const) }) },
    );
    const story = fc.record({
      settings: settingsArb,
      later: settingsArb,
      subject: subjectArb,
      steps: fc.array(stepArb, { minLength: 5, maxLength: 40 }),
      flows: fc.array(flowArb, { minLength: 40, maxLength: 40 }),
    });
    for (const seed of SEEDS) {
      fc.assert(
        fc.property(story, ({ settings, later, subject, steps, flows }) => {
          const engine = new PolicyEngine();
          const table = new PolicyTable();
          const ipcache = new Map<string, number>();
          const members: Member[] = [];
          const docs = new Map<string, Record<string, unknown>>();
          const groups = new Set<number>();
          const services = new Set<number>();
          const names = new Map<string, string[]>();
          const flush = () => {
            const update = engine.takeUpdate();
            if (update !== undefined) table.apply(structuredClone(update));
            const prefixes = engine.takePrefixes();
            for (const prefix of prefixes.remove) expect(ipcache.delete(formatPrefix(prefix))).toBe(true);
            for (const { prefix, identity } of prefixes.put) ipcache.set(formatPrefix(prefix), identity);
          };
          engine.setSettings(settings);
          engine.setSubject(subject);
          putNodes(engine);
          for (const [i, step] of steps.entries()) {
            if (i === Math.floor(steps.length / 2)) engine.setSettings(later);
            if (step.op === "flush") flush();
            else if (step.op === "policy") {
              const policy = read(step.document);
              docs.set(keyOfPolicy(policy), step.document);
              engine.putPolicy(keyOfPolicy(policy), policy);
            } else if (step.op === "drop") {
              docs.delete(keyOfPolicy(read(step.document)));
              engine.removePolicy(keyOfPolicy(read(step.document)));
            } else if (step.op === "identity") {
              members[step.at] = step.member;
              putMember(engine, step.at, step.member);
            } else if (step.op === "group") {
              if (step.isThere) engine.putCidrGroup(groupOf(GROUPS[step.at]!));
              else engine.removeCidrGroup(GROUPS[step.at]!.name);
              groups[step.isThere ? "add" : "delete"](step.at);
            } else if (step.op === "service") {
              const service = SERVICES[step.at]!;
              if (step.isThere) engine.putService(`${service.namespace}/${service.name}`, serviceOf(service));
              else engine.removeService(`${service.namespace}/${service.name}`);
              services[step.isThere ? "add" : "delete"](step.at);
            } else if (step.op === "name") {
              engine.putNames(step.name, addressesOf(step.addresses));
              names.set(step.name, step.addresses);
            } else {
              delete members[step.at];
              engine.removeAddress(parseAddress(INSIDE[step.at]!)!);
              engine.removeIdentity(identityOf(step.at));
            }
          }
          flush();
          const fresh = new PolicyEngine();
          const scratch = new PolicyTable();
          fresh.setSubject(subject);
          fresh.setSettings(later);
          for (const [key, document] of docs) fresh.putPolicy(key, read(document));
          members.forEach((m, i) => m && putMember(fresh, i, m));
          putNodes(fresh);
          for (const [name, addresses] of names) fresh.putNames(name, addressesOf(addresses));
          for (const at of groups) fresh.putCidrGroup(groupOf(GROUPS[at]!));
          for (const at of services) {
            fresh.putService(`${SERVICES[at]!.namespace}/${SERVICES[at]!.name}`, serviceOf(SERVICES[at]!));
          }
          scratch.apply(fresh.takeUpdate()!);
          expect([...ipcache.keys()].sort()).toEqual(
            fresh.takePrefixes().put.map((p) => formatPrefix(p.prefix)).sort(),
          );
          for (const direction of [0, 1] as const) {
            expect(table.isEnforced(direction)).toBe(scratch.isEnforced(direction));
          }
          const counts = (t: PolicyTable) =>
            [t.sizes().ingress, t.sizes().egress].map((
              { identities, classes, segments },
            ) => [identities, classes, segments]);
          expect(counts(table)).toEqual(counts(scratch));
          for (const flow of flows) {
            const side = otherSide(flow, members, engine);
            const again = otherSide(flow, members, fresh);
            if (side === undefined || again === undefined) continue;
            const got = table.lookup(flow.direction, side.identity, flow.protocol, flow.port);
            expect(got).toBe(scratch.lookup(flow.direction, again.identity, flow.protocol, flow.port));
            const l7 = (one: PolicyEngine, identity: number) =>
              requestsOf(one.l7RulesFor(flow.direction, identity, flow.protocol, flow.port));
            expect(l7(engine, side.identity)).toEqual(l7(fresh, again.identity));
            const { index: _, ...decided } = engine.ruleOf(table.decidedBy) ?? { index: -1 };
            const { index: __, ...expected } = fresh.ruleOf(scratch.decidedBy) ?? { index: -1 };
            expect(decided).toEqual(expected);
          }
        }),
        { seed, numRuns: Math.ceil(RUNS / 2 / SEEDS.length) },
      );
    }
  }, TIMEOUT_MS);
});
