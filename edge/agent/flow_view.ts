/** Makes the document of `GET /v1/flows` from the flow log and the mesh state: names and identities of both ends, filtered. */
import { nameOfProtocol } from "../../src/wire/numbers.ts";
import type { FlowRecord } from "../../src/datapath/control.ts";
import { IDENTITY_UNKNOWN } from "../../src/identity/reserved.ts";
import { integer } from "../config_values.ts";
import type { Agent } from "./agent.ts";
import { API_VERSION, type FlowDocument, type FlowsDocument } from "./documents.ts";
import { type CompileRegex, makeFlowFilter, REGEX_FILTERS } from "./flow_filter.ts";
import { FLOW_CAPACITY, type FlowEntry, type FlowPlace } from "./flow_log.ts";
import { snapshotOf } from "./views.ts";

/**
 * @param query `since`: only what came after that number; `last`: only the newest so many; and filters
 * @throws RangeError with a whole sentence for a filter that cannot be read
 */
export async function flowsOf(agent: Agent, query: ReadonlyMap<string, readonly string[]>): Promise<FlowsDocument> {
  const filters = new Map([...query].filter(([name]) => name !== "since" && name !== "last"));
  const since = readCount(query, "since") ?? 0;
  const last = readCount(query, "last");
  const isWanted = makeFlowFilter(filters, await compilerFor(filters));
  const [{ drops }, live] = await Promise.all([snapshotOf(agent), liveFlowsOf(agent)]);
  agent.flows.addDrops(drops);
  agent.flows.addFlows(live);
  const { newest, lost, entries } = agent.flows.list(since);
  const names = namesByAddress(agent);
  const flows = entries.map((entry) => documentOf(entry, names, agent.mesh.self?.identity)).filter(isWanted);
  // drops and flows are taken over when somebody asks, later than requests of the same time
  flows.sort((a, b) => a.at < b.at ? -1 : a.at > b.at ? 1 : a.number - b.number);
  return {
    apiVersion: API_VERSION,
    kind: "Flows",
    member: agent.options.mesh.selfName,
    newest,
    lost,
    flows: last === undefined ? flows : last === 0 ? [] : flows.slice(-last),
  };
}

/** The newest flows; none while no datapath runs, or it does not answer. */
async function liveFlowsOf(agent: Agent): Promise<readonly FlowRecord[]> {
  try {
    return await agent.link?.flows(FLOW_CAPACITY) ?? [];
  } catch {
    return []; // health says that it hangs
  }
}

/** RE2 is loaded for those who use it. */
async function compilerFor(filters: ReadonlyMap<string, unknown>): Promise<CompileRegex> {
  if (!REGEX_FILTERS.some((name) => filters.has(name))) return () => undefined;
  return (await import("../../src/l7/regex.ts")).compileRegex;
}

function readCount(query: ReadonlyMap<string, readonly string[]>, name: string): number | undefined {
  const text = query.get(name)?.at(-1);
  if (text === undefined) return undefined;
  try {
    return integer(0, Number.MAX_SAFE_INTEGER)(text);
  } catch (error) {
    throw new RangeError(`Cannot list flows with ${name} "${text.slice(0, 100)}": it ${(error as Error).message}`);
  }
}

function namesByAddress(agent: Agent): ReadonlyMap<string, string> {
  return new Map([...agent.mesh.members].flatMap(([name, { addresses }]) => addresses.map((each) => [each, name])));
}

function documentOf(entry: FlowEntry, names: ReadonlyMap<string, string>, own = IDENTITY_UNKNOWN): FlowDocument {
  const { number, type, verdict, direction, source, destination, identity } = entry;
  const end = (place: FlowPlace | undefined, isOwn: boolean): FlowDocument["source"] =>
    place === undefined ? null : { ...place, name: names.get(place.address) ?? null, identity: isOwn ? own : identity };
  return {
    number,
    at: new Date(entry.unixMs).toISOString(),
    type,
    verdict,
    direction,
    source: end(source, direction === "egress"),
    destination: end(destination, direction === "ingress"),
    protocol: nameOfProtocol(entry.protocol),
    drop: entry.drop ?? null,
    reason: entry.reason ?? null,
    rule: entry.rule ?? null,
    http: entry.http ?? null,
    dns: entry.dns ?? null,
  };
}
