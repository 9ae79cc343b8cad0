import { mkdtempSync } from "node:fs";
import { request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { serve, serveOnNode, type Serving } from "../../../edge/agent/serve.ts";

const open: Serving[] = [];
afterEach(async () => {
  for (const serving of open.splice(0)) await serving.close();
});

/** Both ways on Bun; elsewhere they are the same. */
describe.each([["this runtime's server", serve], ["node:http", serveOnNode]] as const)("%s", (_, serveBy) => {
  const echo = async (asked: Request) =>
    new Response(`${asked.method} ${new URL(asked.url).pathname} ${asked.headers.get("host")} ${await asked.text()}`, {
      status: 201,
    });

  const ask = (at: object, body?: string) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const sent = request({
        ...at,
        path: "/a?b=1",
        method: body === undefined ? "GET" : "POST",
        headers: { host: "localhost" },
      }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part: string) => text += part).on("end", () =>
          resolve({ status: answer.statusCode!, text }));
      });
      sent.on("error", reject).end(body);
    });

  it("answers on a Unix socket and on loopback", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "edgemesh-serve-")), "s");
    open.push(await serveBy(echo, { path }));
    expect(await ask({ socketPath: path })).toEqual({ status: 201, text: "GET /a localhost " });
    expect(await ask({ socketPath: path }, "body")).toEqual({ status: 201, text: "POST /a localhost body" });
    const tcp = await serveBy(echo, { host: "127.0.0.1", port: 0 });
    open.push(tcp);
    expect(tcp.port).toBeGreaterThan(0);
    expect(await ask({ host: "127.0.0.1", port: tcp.port })).toMatchObject({ status: 201 });
  });

  it("ends when it is closed", async () => {
    const serving = await serveBy(echo, { host: "127.0.0.1", port: 0 });
    await serving.close();
    await expect(ask({ host: "127.0.0.1", port: serving.port })).rejects.toThrow();
  });
});

describe("serve", () => {
  it("says that a port is taken", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo;
    await expect(serve(() => new Response(""), { host: "127.0.0.1", port })).rejects.toMatchObject({
      code: "EDGE_PORT_BUSY",
    });
    other.close();
  });
});
