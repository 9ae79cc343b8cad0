/** `edgemesh policy trace`: what each end of a flow decides, and by which rule. */
import { parseAddress } from "../../src/ip/address.ts";
import { API_VERSION } from "../agent/documents.ts";
import { nearest } from "../config.ts";
import { EdgeError, EXIT_OK } from "../errors.ts";
import { readManifest } from "../manifest.ts";
import { readAgentWorld } from "../policy/agent_world.ts";
import { makeWorld, readScenarioObjects } from "../policy/make_world.ts";
import { readScenarios } from "../policy/read_scenario.ts";
import { PROTOCOL_NUMBERS, type Scenario } from "../policy/scenario.ts";
import { traceFlow, traceLines } from "../policy/trace.ts";
import type { PolicyWorld, WorldEnd } from "../policy/world.ts";
import { AgentClient } from "./agent_client.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { readTexts } from "./files.ts";
import { clean, printDocument } from "./output.ts";

/** Exit code 0 when the question could be answered, whatever the verdict. */
export async function policyTrace(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  const portText = required(context, "port");
  const [fromText, toText] = [required(context, "from"), required(context, "to")];
  const { protocol, port } = readPort(portText);
  const file = optionOf(context, "scenario");
  const mesh = file === undefined ? await agentMesh(context) : await scenarioMesh(context, file);
  const [from, to] = [findEnd(mesh, fromText), findEnd(mesh, toText)];
  const trace = traceFlow(mesh.world, { from, to, protocol, port, side: "both" });
  for (const warning of mesh.warnings) terminal.err(`edgemesh: ${clean(warning)}\n`);
  if (!await printDocument(terminal, config.output, { apiVersion: API_VERSION, kind: "PolicyTrace", ...trace })) {
    terminal.out(traceLines(trace).map((line) => `${clean(line)}\n`).join(""));
  }
  return EXIT_OK;
}

interface Mesh {
  readonly world: PolicyWorld;
  readonly names: readonly string[];
  readonly find: (name: string) => WorldEnd | undefined;
  readonly warnings: readonly string[];
}

async function agentMesh(context: CommandContext): Promise<Mesh> {
  const { config } = context.loaded;
  const { world, named, refused } = await readAgentWorld(new AgentClient(config.socket, config.timeoutMs));
  return {
    world,
    names: [...named.keys()],
    find: (name) => named.get(name),
    warnings: refused.map(({ name }) => `${name} cannot be enforced: members that it selects are closed`),
  };
}

async function scenarioMesh(context: CommandContext, file: string): Promise<Mesh> {
  const scenario = await findScenario(context, file);
  const objects = readScenarioObjects(scenario);
  const wrong = objects.refused[0];
  if (wrong !== undefined) {
    const { path, message } = wrong.errors[0]!;
    throw invalid(`Cannot trace "${scenario.id}": ${wrong.name}: ${path === "" ? "" : `${path}: `}${message}`);
  }
  const made = makeWorld(scenario, objects);
  if ("unsupported" in made) throw invalid(`Cannot trace "${scenario.id}": ${made.unsupported}`);
  const names = scenario.endpoints.map(({ ref }) => ref);
  return {
    world: made.world,
    names,
    find: (name) => made.find(name),
    warnings: [],
  };
}

async function findScenario(context: CommandContext, file: string): Promise<Scenario> {
  const wanted = optionOf(context, "id");
  const scenarios: Scenario[] = [];
  for (const { text, place } of await readTexts([file], context.terminal)) {
    const manifest = readManifest(text);
    if ("errors" in manifest) {
      const { message, position } = manifest.errors[0]!;
      throw invalid(`Cannot read ${place}:${position.line}: ${message}`);
    }
    for (const read of readScenarios(manifest.documents)) {
      if ("scenario" in read) {
        if (wanted === undefined || wanted === read.scenario.id) scenarios.push(read.scenario);
      } else if (wanted === undefined || wanted === read.bad.id) {
        const { position, path, message } = read.bad.errors[0]!;
        throw invalid(`Cannot read ${place}:${position.line}: ${path === "" ? "" : `${path}: `}${message}`);
      }
    }
  }
  if (scenarios.length === 1) return scenarios[0]!;
  if (scenarios.length > 1) {
    throw new EdgeError("EDGE_USAGE", `Cannot choose a scenario of "${file}": there are ${scenarios.length}`, {
      fix: "Name one with --id.",
    });
  }
  throw new EdgeError(
    "EDGE_NOT_FOUND",
    `Cannot find a scenario${wanted === undefined ? "" : ` "${wanted}"`} in "${file}"`,
  );
}

function invalid(message: string): EdgeError {
  return new EdgeError("EDGE_MANIFEST_INVALID", message);
}

function required(context: CommandContext, flag: string): string {
  const value = optionOf(context, flag);
  if (value === undefined) throw new EdgeError("EDGE_USAGE", `Cannot trace: --${flag} is missing`);
  return value;
}

/** A name of the mesh, or an address: of an endpoint, or of nobody. */
function findEnd(mesh: Mesh, text: string): WorldEnd {
  const named = mesh.find(text);
  if (named !== undefined) return named;
  const address = parseAddress(text);
  if (address !== undefined) return mesh.world.endOf(address);
  const near = nearest(text, mesh.names);
  throw new EdgeError(
    "EDGE_NOT_FOUND",
    `Cannot find "${text}": no such name${near === undefined ? "" : `; did you mean "${near}"?`}`,
  );
}

const ECHO_REQUEST: Readonly<Record<string, number>> = { ICMP: 8, ICMPv6: 128 };

/** `80/TCP`, `80`, `8/ICMP`, `ICMP`; the protocol's case does not matter. */
function readPort(text: string): { protocol: number; port: number } {
  const match = /^(?:(\d{1,5})(?:\/([A-Za-z0-9]+))?|([A-Za-z0-9]+))$/.exec(text);
  const word = match?.[3] ?? match?.[2] ?? "TCP";
  const name = Object.keys(PROTOCOL_NUMBERS).find((known) => known.toLowerCase() === word.toLowerCase());
  const port = match?.[1] === undefined ? ECHO_REQUEST[name ?? ""] : Number(match[1]);
  const most = name !== undefined && name in ECHO_REQUEST ? 255 : 65535;
  if (match === null || name === undefined || port === undefined || port > most) {
    throw new EdgeError("EDGE_USAGE", `Cannot read --port "${text}": it is none`, {
      fix: "Write PORT/TCP, PORT/UDP, PORT/SCTP, TYPE/ICMP or TYPE/ICMPv6.",
    });
  }
  return { protocol: PROTOCOL_NUMBERS[name as keyof typeof PROTOCOL_NUMBERS], port };
}
