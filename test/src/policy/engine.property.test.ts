/**
 * The compiled table against the naive evaluator, and incremental updates against a table from scratch.
 * POLICY_RUNS scales the number of random worlds (default 400, each judged by 60 flows: 24 000 judgements).
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatPrefix, parseAddress } from "../../../src/ip/address.ts";
import { RESERVED_LABELS } from "../../../src/identity/reserved.ts";
import { auditedVerdict } from "../../../src/policy/decision.ts";
import { PolicyEngine } from "../../../src/policy/engine.ts";
import { keyOfPolicy, type Policy } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { PolicyTable } from "../../../src/policy/table.ts";
import {
  documentArb,
  type Flow,
  flowArb,
  INSIDE,
  labelsOf,
  type Member,
  memberArb,
  NODES,
  settingsArb,
  subjectArb,
} from "./generate.ts";
import { judge, judgeStrictly, type Other } from "./naive.ts";

const RUNS = Number(process.env["POLICY_RUNS"] ?? 400);
/** Seeds that once found a fault, or cover much; kept. */
const SEEDS = [1, 20261124, 777];

function read(document: unknown): Policy {
  const result = readPolicy(document);
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
      other: { labels, address, place: "nodes", ...named },
      identity: engine.identityOfAddress(parseAddress(address)!),
    };
  }
  if ("address" in flow.other) {
    const address = parseAddress(flow.other.address)!;
    const labels = { [`reserved:world-ipv${address.length === 4 ? 4 : 6}`]: "" };
    return { other: { labels, address: flow.other.address, ...named }, identity: engine.identityOfOutside(address) };
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
  for (const [identity, address] of Object.entries(NODES)) engine.putAddress(parseAddress(address)!, Number(identity));
}

/** The later of two documents of one name replaces the first. */
function byKey(documents: readonly Record<string, unknown>[]): Map<string, Record<string, unknown>> {
  return new Map(documents.map((document) => [keyOfPolicy(read(document)), document]));
}

describe("the compiled table", () => {
  it("agrees with the naive evaluator, and with its own explanation, on random policies and flows", () => {
    let judged = 0;
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
            expect(explained.audited ?? got).toBe(strict);
            expect(auditedVerdict(table.kind)).toBe(settings.policy.auditMode ? strict : 0);
            expect(explained.decidedBy?.index ?? -1).toBe(table.decidedBy);
          }
        }),
        { seed, numRuns: Math.ceil(RUNS / SEEDS.length) },
      );
    }
    expect(judged).toBeGreaterThan(RUNS * 30);
  });

  it("is the same after incremental updates as from scratch, rule by rule", () => {
    type Step =
      | { op: "policy"; document: Record<string, unknown> }
      | { op: "drop"; document: Record<string, unknown> }
      | { op: "identity"; at: number; member: Member }
      | { op: "forget"; at: number }
      | { op: "flush" };
    const stepArb: fc.Arbitrary<Step> = fc.oneof(
      { weight: 5, arbitrary: fc.record({ op: fc.constant("policy" as const), document: documentArb }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("drop" as const), document: documentArb }) },
      { weight: 4, arbitrary: fc.record({ op: fc.constant("identity" as const), at: fc.nat(7), member: memberArb }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("forget" as const), at: fc.nat(7) }) },
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
            const { index: _, ...decided } = engine.ruleOf(table.decidedBy) ?? { index: -1 };
            const { index: __, ...expected } = fresh.ruleOf(scratch.decidedBy) ?? { index: -1 };
            expect(decided).toEqual(expected);
          }
        }),
        { seed, numRuns: Math.ceil(RUNS / 2 / SEEDS.length) },
      );
    }
  });
});
