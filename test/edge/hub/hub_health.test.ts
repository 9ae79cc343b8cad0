import { describe, expect, it } from "vitest";
import { makeHealthApp } from "../../../edge/hub/hub_health.ts";
import type { AdminStatus } from "../../../edge/sync/admin_messages.ts";

const app = makeHealthApp(() => ({ revision: 12, member: "off: --tun none" }) as AdminStatus);

async function get(path: string, headers: Record<string, string>): Promise<{ status: number; text: string }> {
  const answer = await app.request(path, { headers });
  return { status: answer.status, text: await answer.text() };
}

describe("health of a hub without an agent", () => {
  it.each(["/livez", "/readyz", "/healthz"])("answers %s, and says on request why there is no agent", async (path) => {
    const host = "127.0.0.1:9780";
    expect(await get(path, { host })).toEqual({ status: 200, text: "ok" });
    const { text } = await get(`${path}?verbose`, { host });
    expect(text).toBe(`[+]hub ok: revision 12\n[+]member off: --tun none\n${path.slice(1)} check passed\n`);
  });

  it("refuses another host, a page, and a path that it does not know", async () => {
    expect((await get("/livez", { host: "evil.example" })).status).toBe(403);
    expect((await get("/livez", { host: "localhost", origin: "http://evil.example" })).status).toBe(403);
    expect((await get("/livez", {})).status).toBe(403);
    expect((await get("/v1/status", { host: "[::1]:9780" })).status).toBe(404);
  });
});
