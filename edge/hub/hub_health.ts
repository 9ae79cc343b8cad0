/**
 * Local health of a hub that has no agent of its own (no TUN device, no privilege): `/livez`, `/readyz`, `/healthz` on loopback. With an
 * agent, `edge/agent/http.ts` serves these and more.
 */
import { Hono } from "hono";
import { serve, type Serving } from "../agent/serve.ts";
import type { AdminStatus } from "../sync/admin_messages.ts";

/** The routes. */
export function makeHealthApp(status: () => AdminStatus): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    // A page must not reach this by a name of its own that points at loopback.
    const isOurs = /^(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?$/.test(c.req.header("host") ?? "");
    if (!isOurs || c.req.header("origin") !== undefined) return c.json({ code: "EDGE_AGENT_DENIED" }, 403);
    c.header("cache-control", "no-store");
    await next();
  });
  for (const path of ["/livez", "/readyz", "/healthz"]) {
    app.get(path, (c) => {
      if (c.req.query("verbose") === undefined) return c.text("ok");
      const { revision, member } = status();
      return c.text(`[+]hub ok: revision ${revision}\n[+]member ${member}\n${path.slice(1)} check passed\n`);
    });
  }
  app.notFound((c) => c.json({ code: "EDGE_NOT_FOUND" }, 404));
  return app;
}

/**
 * Serves it.
 * @throws EdgeError EDGE_PORT_BUSY or EDGE_NETWORK_FAILED
 */
export function serveHealth(
  listen: { readonly host: string; readonly port: number },
  status: () => AdminStatus,
): Promise<Serving> {
  const app = makeHealthApp(status);
  return serve((request) => app.fetch(request), listen);
}
