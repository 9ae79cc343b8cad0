import { describe, expect, it } from "vitest";
import { Proxies, type ProxyKind, type RunningProxy } from "../../../edge/agent/proxies.ts";

/** Proxies that start when told, each on a port of its own. */
class Fake {
  readonly told: string[] = [];
  readonly faults: string[] = [];
  readonly running = new Set<number>();
  readonly pending: { resolve: () => void; reject: (error: Error) => void }[] = [];
  isHeld = false;
  #port = 100;
  readonly proxies = new Proxies({
    start: { http: (addresses) => this.#start("http", addresses), dns: (addresses) => this.#start("dns", addresses) },
    tell: ({ http, dns }) => this.told.push(`${http}/${dns}`),
    fault: (kind, reason) => reason === undefined ? undefined : this.faults.push(`${kind}: ${reason}`),
  });

  async #start(_kind: ProxyKind, addresses: readonly string[]): Promise<RunningProxy> {
    if (this.isHeld) await new Promise<void>((resolve, reject) => this.pending.push({ resolve, reject }));
    if (addresses.includes("gone")) throw new Error("EADDRNOTAVAIL");
    const port = ++this.#port;
    this.running.add(port);
    return {
      port,
      stop: () => {
        this.running.delete(port);
        return Promise.resolve();
      },
    };
  }
}

const NOTHING = { http: false, dns: false };

describe("Proxies", () => {
  it("start when a policy needs them, are told to the datapath, and stop when none does", async () => {
    const fake = new Fake();
    await fake.proxies.align(NOTHING, ["10.9.0.1"]);
    expect(fake.told).toEqual([]);
    await fake.proxies.align({ http: true, dns: false }, ["10.9.0.1"]);
    expect(fake.told).toEqual(["101/0"]);
    await fake.proxies.align({ http: true, dns: true }, ["10.9.0.1"]);
    expect(fake.proxies.command).toEqual({ op: "proxy", http: 101, dns: 102 });
    await fake.proxies.align({ http: false, dns: true }, ["10.9.0.1"]);
    expect(fake.told.at(-1)).toBe("0/102");
    expect([...fake.running]).toEqual([102]);
    await fake.proxies.stop();
    expect(fake.running.size).toBe(0);
  });

  it("listen anew when the addresses change", async () => {
    const fake = new Fake();
    await fake.proxies.align({ http: true, dns: false }, ["10.9.0.1"]);
    await fake.proxies.align({ http: true, dns: false }, ["10.9.0.2"]);
    expect(fake.told).toEqual(["101/0", "0/0", "102/0"]);
    expect([...fake.running]).toEqual([102]);
  });

  it("say why one does not run, and try again", async () => {
    const fake = new Fake();
    await fake.proxies.align({ http: true, dns: false }, ["gone"]);
    expect(fake.faults).toEqual(["http: EADDRNOTAVAIL"]);
    expect(fake.proxies.command.http).toBe(0);
    await fake.proxies.align({ http: true, dns: false }, ["10.9.0.1"]);
    expect(fake.proxies.command.http).toBe(101);
  });

  it("end a proxy whose need went while it was starting", async () => {
    const fake = new Fake();
    fake.isHeld = true;
    const first = fake.proxies.align({ http: true, dns: false }, ["10.9.0.1"]);
    await fake.proxies.align(NOTHING, ["10.9.0.1"]);
    fake.pending[0]!.resolve();
    await first;
    expect(fake.running.size).toBe(0);
    expect(fake.proxies.command.http).toBe(0);
  });
});
