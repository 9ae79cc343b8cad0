import { beforeEach, describe, expect, it } from "vitest";
import type { FlowsDocument } from "../../../edge/agent/documents.ts";
import { makeApp } from "../../../edge/agent/http.ts";
import type { Agent } from "../../../edge/agent/agent.ts";
import { FlowLog } from "../../../edge/agent/flow_log.ts";
import type { DropRecord, FlowRecord } from "../../../src/datapath/control.ts";
import { DROP_POLICY_DENIED, DROP_PROXY_REFUSED, FORWARD } from "../../../src/verdict.ts";

const NOW_MS = Date.UTC(2026, 0, 2);
let flows: FlowLog;
let drops: DropRecord[];
let live: FlowRecord[];

beforeEach(() => {
  flows = new FlowLog();
  drops = [];
  live = [];
});

/** As much of an agent as is asked. */
function makeAgent(): Agent {
  const member = (address: string, identity: number) => ({ addresses: [address], identity });
  const members = new Map([["edge1/m2", member("10.9.0.2", 65_794)], ["edge1/m3", member("10.9.0.3", 65_795)]]);
  return {
    flows,
    mesh: { members, self: members.get("edge1/m2") },
    link: { query: () => Promise.resolve({ drops }), flows: () => Promise.resolve(live) },
    options: { mesh: { selfName: "edge1/m2" } },
  } as unknown as Agent;
}

async function ask(
  query: string,
): Promise<{ status: number; document: FlowsDocument & { message: string; code: string } }> {
  const app = makeApp(makeAgent(), "socket", { leave: () => Promise.resolve(undefined) });
  const response = await app.request(`http://x/v1/flows${query}`);
  return { status: response.status, document: await response.json() as never };
}

function addRequest(path: string, verdict = FORWARD): void {
  const from = { address: "10.9.0.3", port: 4000 };
  const to = { address: "10.9.0.2", port: 80 };
  flows.addL7({
    unixMs: NOW_MS,
    flow: { from, to, protocol: 6, direction: 0, identity: 65_795 },
    kind: "http",
    verdict,
    http: { method: "GET", path, host: "h", status: 200 },
  });
}

describe("GET /v1/flows", () => {
  it("names both ends, and puts drops where they belong in time", async () => {
    addRequest("/a");
    drops = [{
      unixMs: NOW_MS - 5,
      direction: "egress",
      verdict: DROP_POLICY_DENIED,
      source: "10.9.0.2",
      destination: "10.9.0.3",
      protocol: 17,
      sourcePort: 1,
      destinationPort: 2,
      identity: 65_795,
    }];
    const { status, document } = await ask("");
    expect(status).toBe(200);
    expect(document).toMatchObject({
      apiVersion: "edgemesh/v1",
      kind: "Flows",
      member: "edge1/m2",
      newest: 2,
      lost: 0,
    });
    expect(document.flows).toMatchObject([
      {
        number: 2,
        type: "L3_L4",
        source: { address: "10.9.0.2", name: "edge1/m2", identity: 65_794 },
        destination: { name: "edge1/m3", identity: 65_795 },
        protocol: "UDP",
        drop: "POLICY_DENIED",
        http: null,
      },
      {
        number: 1,
        type: "L7",
        direction: "ingress",
        source: { address: "10.9.0.3", port: 4000, name: "edge1/m3", identity: 65_795 },
        destination: { address: "10.9.0.2", port: 80, name: "edge1/m2", identity: 65_794 },
        drop: null,
        http: { path: "/a" },
      },
    ]);
    expect((await ask("")).document.newest).toBe(2);
  });

  it("lists flows that are alive, each once", async () => {
    live = [{
      direction: "ingress",
      source: "10.9.0.3",
      destination: "10.9.0.2",
      protocol: 6,
      sourcePort: 4000,
      destinationPort: 22,
      identity: 65_795,
      state: "established",
      packets: 5,
      bytes: 500,
      replyPackets: 5,
      replyBytes: 500,
      lastSeenUnixMs: NOW_MS,
      isRedirected: false,
    }];
    const { document } = await ask("?verdict=FORWARDED");
    expect(document.flows).toMatchObject([{ number: 1, type: "L3_L4", source: { name: "edge1/m3" }, drop: null }]);
    expect((await ask(`?since=${document.newest}`)).document.flows).toEqual([]);
  });

  it("filters before it counts", async () => {
    for (let i = 0; i < 10; i++) addRequest(`/${i}`, i % 2 === 0 ? FORWARD : DROP_PROXY_REFUSED);
    const pathsOf = async (query: string) => (await ask(query)).document.flows.map((flow) => flow.http!.path);
    expect(await pathsOf("?verdict=DROPPED&last=2")).toEqual(["/7", "/9"]);
    expect(await pathsOf("?since=8")).toEqual(["/8", "/9"]);
    expect(await pathsOf("?last=0")).toEqual([]);
    expect(await pathsOf("?http-path=^/[45]$&http-path=9")).toEqual(["/4", "/5", "/9"]);
  });

  it.each(["?verdict=x", "?since=-1", "?last=many", "?http-path=(", "?nothing=1"])("refuses %s", async (query) => {
    const { status, document } = await ask(query);
    expect([status, document.code]).toEqual([400, "EDGE_USAGE"]);
    expect(document.message).toMatch(/^Cannot /);
  });
});
