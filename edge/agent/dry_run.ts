/**
 * A dry run on this member: documents to entries, and recent flows to what a change would newly drop. The engines are the agent's;
 * this brings flows and explanations into the shape that hub and command line show. Loaded when somebody asks.
 */
import {
  type EndpointSlice,
  readEndpointSlice,
  readService,
  type Service,
  serviceEntryOf,
} from "../../src/hub/services.ts";
import type { EntryValue } from "../../src/mesh/entries.ts";
import type { Explanation } from "../../src/policy/explain.ts";
import { INGRESS, keyOfPolicy } from "../../src/policy/model.ts";
import {
  type Judged,
  type Judging,
  newlyDropped,
  type RecentFlow,
  strictVerdict,
} from "../../src/policy/newly_dropped.ts";
import { readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import { type PolicyFeatures, readPolicy } from "../../src/policy/read_policy.ts";
import { nameOfVerdict } from "../../src/verdict.ts";
import { nameOfProtocol } from "../../src/wire/numbers.ts";
import { type DryRunFlow, type DryRunResult, type DryRunVerdict, MAX_DRY_RUN_FLOWS } from "../sync/dry_run.ts";

/** A recent flow with what people call its ends. */
export interface NamedFlow extends RecentFlow {
  /** addresses as text */
  readonly source: string;
  readonly destination: string;
  /** "<cluster>/<name>" of the member on the other side; null: none */
  readonly peer: string | null;
}

/**
 * Judges recent flows by both engines.
 * @param before the engine in force
 * @param after  one that was given the same and the change; its updates were taken
 */
export function dryRunResult(flows: readonly NamedFlow[], before: Judging, after: Judging): DryRunResult {
  const { dropped, toProxy } = newlyDropped(flows, before, after);
  const groups = new Map<string, { judged: Judged<NamedFlow>; count: number }>();
  for (const judged of dropped) {
    const { direction, source, destination, protocol, port } = judged.flow;
    const key = `${direction} ${source} ${destination} ${protocol} ${port}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { judged, count: 1 });
    else group.count++;
  }
  const shown = [...groups.values()].sort((a, b) => b.count - a.count).slice(0, MAX_DRY_RUN_FLOWS);
  return {
    flows: shown.map(({ judged, count }) => flowOf(judged, count)),
    total: groups.size,
    lookedAt: flows.length,
    toProxy: toProxy.length,
  };
}

function flowOf({ flow, before, after }: Judged<NamedFlow>, count: number): DryRunFlow {
  return {
    direction: flow.direction === INGRESS ? "ingress" : "egress",
    source: flow.source,
    destination: flow.destination,
    peer: flow.peer,
    protocol: nameOfProtocol(flow.protocol),
    port: flow.port,
    count,
    before: verdictOf(before),
    after: verdictOf(after),
    isAudited: after.audited !== undefined,
  };
}

function verdictOf(explanation: Explanation): DryRunVerdict {
  const { decidedBy } = explanation;
  return {
    verdict: nameOfVerdict(strictVerdict(explanation)),
    rule: decidedBy === undefined ? null : `${decidedBy.policy} ${decidedBy.path}`,
  };
}

export type DocumentEntries =
  | { readonly puts: readonly (readonly [key: string, value: EntryValue])[] }
  /** what is wrong, each with the object and the field */
  | { readonly faults: readonly string[] };

/** The entries that a hub would make of documents: policies, CIDR groups, services with their slices. One fault refuses all. */
export function entriesOfDocuments(documents: readonly unknown[], features: PolicyFeatures = {}): DocumentEntries {
  const puts = new Map<string, EntryValue>();
  const faults: string[] = [];
  const services = new Map<string, Service>();
  const slices: EndpointSlice[] = [];
  for (const document of documents) {
    const kind = (document as { kind?: unknown } | null)?.kind;
    if (kind === "Service") {
      const result = readService(document);
      if ("errors" in result) faults.push(...faultsOf(document, result.errors));
      else services.set(`${result.service.namespace}/${result.service.name}`, result.service);
    } else if (kind === "EndpointSlice") {
      const result = readEndpointSlice(document);
      if ("errors" in result) faults.push(...faultsOf(document, result.errors));
      else slices.push(result.slice);
    } else if (kind === "CiliumCIDRGroup") {
      const result = readCidrGroup(document);
      if ("errors" in result) faults.push(...faultsOf(document, result.errors));
      else puts.set(`cidrgroup/${result.group.name}`, document as EntryValue);
    } else {
      const result = readPolicy(document, features);
      if ("errors" in result) faults.push(...faultsOf(document, result.errors));
      else puts.set(`policy/${keyOfPolicy(result.policy)}`, document as EntryValue);
    }
  }
  for (const { namespace, name, service } of slices) {
    if (services.has(`${namespace}/${service}`)) continue;
    faults.push(`EndpointSlice ${name}: its Service ${namespace}/${service} is not among the documents`);
  }
  if (faults.length > 0) return { faults };
  for (const [name, service] of services) {
    const own = slices.filter((slice) => `${slice.namespace}/${slice.service}` === name);
    puts.set(`service/${name}`, serviceEntryOf(service, own));
  }
  return { puts: [...puts] };
}

function faultsOf(document: unknown, errors: readonly { path: string; message: string }[]): string[] {
  const { kind, metadata } = (document ?? {}) as { kind?: unknown; metadata?: { name?: unknown } };
  const object = `${typeof kind === "string" ? kind : "?"} ${typeof metadata?.name === "string" ? metadata.name : "?"}`;
  return errors.map(({ path, message }) => `${object}: ${path === "" ? "" : `${path}: `}${message}`);
}
