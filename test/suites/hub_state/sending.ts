/** What members are sent: snapshots, deltas, and what is held back. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { StateFrame } from "../../../src/mesh/entries.ts";
import {
  admit,
  app,
  clock,
  Device,
  hub,
  hubFacts,
  join,
  makeToken,
  MINUTE,
  namespace,
  networkPolicy,
  Replica,
  restart,
  settings,
  startOver,
  store,
  tasks,
} from "./fixture.ts";

export function testSending(): void {
  describe("what members are sent", () => {
    const both = (name: string, to: string, from: string) =>
      networkPolicy(name, {
        podSelector: app(to),
        policyTypes: ["Ingress", "Egress"],
        ingress: [{ from: [{ podSelector: app(from) }] }],
      });

    it("starts with a snapshot of the settings, all members and their identities", async () => {
      await hub.putHubMember(hubFacts());
      await admit(1, { app: "web" });
      await admit(2, { app: "web" });
      hub.flush();
      const replica = new Replica().connect(hub, "m1");
      expect(replica.frames.map((f) => f.t)).toEqual(["snapshot"]);
      expect(replica.keys).toEqual([
        "identity/65792",
        "identity/65793",
        "member/edge1/hub",
        "member/edge1/m1",
        "member/edge1/m2",
        "settings",
      ]);
      expect(replica.entries.get("settings")).toEqual(settings);
      expect(replica.record("m2").addresses).toEqual(["10.9.0.3", "fd09::3"]);
    });

    it("goes on with deltas, one for all changes of a batch, the same object for everybody", async () => {
      await admit(1);
      await admit(2);
      const [a, b] = [new Replica().connect(hub, "m1"), new Replica().connect(hub, "m2")];
      hub.flush();
      const start = a.frames.length;
      await admit(3, { app: "new" });
      await admit(4, { app: "new" });
      expect(a.frames.length).toBe(start);
      expect(tasks.length).toBe(1);
      tasks[0]!();
      expect(a.frames.length).toBe(start + 1);
      expect(a.frames.at(-1)).toBe(b.frames.at(-1));
      expect(a.keys).toEqual(new Replica().connect(hub, "m1").keys);
      expect(tasks.length).toBe(0);
    });

    it("holds back members that it may not talk to, and policies that do not select it", async () => {
      await hub.putHubMember(hubFacts());
      await admit(1, { app: "web" });
      await admit(2, { app: "client" });
      await admit(3, { app: "other" });
      await admit(4, { app: "web" });
      const replicas = [1, 2, 3, 4].map((i) => new Replica().connect(hub, `m${i}`));
      await hub.apply([both("p", "web", "client")]);
      hub.flush();
      const peers = (r: Replica) =>
        r.keys.filter((k) => k.startsWith("member/")).map((k) => k.slice("member/edge1/".length));
      expect(replicas.map(peers)).toEqual([
        ["hub", "m1", "m2"],
        ["hub", "m1", "m2", "m3", "m4"],
        ["hub", "m2", "m3"],
        ["hub", "m2", "m4"],
      ]);
      const policies = (r: Replica) => r.keys.filter((k) => k.startsWith("policy/"));
      expect(replicas.map(policies)).toEqual([
        ["policy/NetworkPolicy/default/p"],
        [],
        [],
        ["policy/NetworkPolicy/default/p"],
      ]);
      expect(replicas[2]!.keys.filter((k) => k.startsWith("identity/"))).toEqual(
        [replicas[0]!.record("hub").identity, replicas[1]!.record("m2").identity, replicas[2]!.record("m3").identity]
          .sort().map((id) => `identity/${id}`),
      );
      const hubReplica = new Replica().connect(hub, "hub");
      expect(peers(hubReplica)).toEqual(["hub", "m1", "m2", "m3", "m4"]);
      await hub.noteConnection("m4", { endpoints: ["192.0.2.4:51871"], localAddress: "" });
      hub.flush();
      expect(replicas[0]!.frames.at(-1)).toMatchObject({
        puts: expect.not.arrayContaining([["member/edge1/m4", {}]]),
      });
      expect(replicas[3]!.record("m4").endpoints).toEqual(["192.0.2.4:51871"]);
      await hub.delete("NetworkPolicy", "default", "p");
      hub.flush();
      for (const replica of replicas) expect(peers(replica)).toEqual(["hub", "m1", "m2", "m3", "m4"]);
    });

    it("a changed policy goes to those that it selects, and to nobody else", async () => {
      await admit(1, { app: "web" });
      await admit(2, { app: "other" });
      await hub.apply([networkPolicy("p", { podSelector: app("web"), ingress: [{ ports: [{ port: 80 }] }] })]);
      hub.flush();
      const [web, other] = [new Replica().connect(hub, "m1"), new Replica().connect(hub, "m2")];
      const changed = networkPolicy("p", { podSelector: app("web"), ingress: [{ ports: [{ port: 81 }] }] });
      await hub.apply([changed]);
      hub.flush();
      expect(web.frames.at(-1)).toEqual({
        t: "delta",
        revision: hub.revision,
        puts: [["policy/NetworkPolicy/default/p", changed]],
        deletes: [],
      });
      expect(other.frames).toHaveLength(1);
    });

    it("resumes from a revision with a delta, after a restart of the hub too", async () => {
      await admit(1);
      await admit(2);
      hub.flush();
      const replica = new Replica().connect(hub, "m1");
      replica.subscription!();
      await admit(3);
      await hub.removeMember("m2");
      replica.connect(hub, "m1");
      expect(replica.frames.at(-1)).toMatchObject({ t: "delta", deletes: ["member/edge1/m2"] });
      expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
      clock.now += MINUTE;
      await hub.tick();
      await restart();
      replica.connect(hub, "m1");
      expect(replica.frames.at(-1)).toMatchObject({ t: "delta", puts: [], deletes: [] });
      await admit(4);
      hub.flush();
      expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
    });

    it("answers a point of another history, of the future, or from before a restart with a snapshot", async () => {
      await admit(1);
      hub.flush();
      const old = hub.revision;
      const first = (resume: { epoch: string; revision: number }) => {
        const frames: StateFrame[] = [];
        hub.subscribe("m1", resume, (frame) => void frames.push(frame))();
        return frames[0]!.t;
      };
      expect(first({ epoch: store.epoch, revision: old })).toBe("delta");
      expect(first({ epoch: "other", revision: old })).toBe("snapshot");
      expect(first({ epoch: store.epoch, revision: old + 1000 })).toBe("snapshot");
      expect(first({ epoch: store.epoch, revision: 0 })).toBe("snapshot");
      await admit(2);
      await restart();
      expect(first({ epoch: store.epoch, revision: old })).toBe("snapshot");
    });

    it("sends nothing while paused, and one frame for all of it afterwards", async () => {
      await admit(1);
      const replica = new Replica().connect(hub, "m1");
      replica.subscription!.pause();
      const count = replica.frames.length;
      for (let i = 2; i < 6; i++) {
        await admit(i);
        hub.flush();
      }
      expect(replica.frames).toHaveLength(count);
      replica.subscription!.resume();
      expect(replica.frames).toHaveLength(count + 1);
      expect(replica.frames.at(-1)!.t).toBe("delta");
      expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
    });

    it("tells who is revoked or removed that it is gone, and its peers at once", async () => {
      for (let i = 1; i <= 3; i++) await admit(i);
      const replicas = [1, 2, 3].map((i) => new Replica().connect(hub, `m${i}`));
      hub.flush();
      await hub.revokeMember("m1");
      await hub.removeMember("m2");
      expect(replicas.map((r) => r.gone)).toEqual(["revoked", "removed", undefined]);
      expect(replicas[2]!.keys.filter((k) => k.startsWith("member/"))).toEqual(["member/edge1/m3"]);
      const count = replicas[0]!.frames.length;
      await admit(4);
      hub.flush();
      expect(replicas[0]!.frames).toHaveLength(count);
    });

    it("is, after any changes and interruptions, what a fresh snapshot says", async () => {
      const apps = ["a", "b", "c"];
      const step = fc.oneof(
        fc.record({ do: fc.constant("join"), app: fc.constantFrom(...apps) }),
        fc.record({ do: fc.constantFrom("remove", "revoke", "note", "reconnect", "pause", "resume"), at: fc.nat(9) }),
        fc.record({
          do: fc.constant("policy"),
          name: fc.nat(2),
          to: fc.constantFrom(...apps),
          from: fc.constantFrom(...apps),
        }),
        fc.record({ do: fc.constant("unpolicy"), name: fc.nat(2) }),
        fc.record({ do: fc.constant("namespace"), team: fc.nat(2) }),
        fc.record({ do: fc.constantFrom("flush", "kill") }),
      );
      await fc.assert(
        // deno-lint-ignore no-explicit-any -- steps of different shapes
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps: any[]) => {
          await startOver();
          const replicas = new Map<string, Replica>();
          const paused = new Set<string>();
          const token = await makeToken({ uses: Infinity });
          let seed = 0;
          const connect = (name: string) => {
            const replica = replicas.get(name) ?? new Replica();
            replicas.set(name, replica.connect(hub, name));
            paused.delete(name);
          };
          const nameAt = (at: number) => [...replicas.keys()][at % Math.max(1, replicas.size)] ?? "";
          for (const s of steps) {
            const name = "at" in s ? nameAt(s.at) : "";
            if (s.do === "join") {
              const answer = await join(new Device(++seed, { labels: { app: s.app } }), token);
              connect(answer.name);
            } else if ((s.do === "remove" || s.do === "revoke") && name !== "") {
              await (s.do === "remove" ? hub.removeMember(name) : hub.revokeMember(name));
              expect(replicas.get(name)!.gone).toBe(s.do === "remove" ? "removed" : "revoked");
              replicas.delete(name);
            } else if (s.do === "note" && name !== "") {
              await hub.noteConnection(name, { endpoints: [`192.0.2.1:${++seed}`], localAddress: "" });
            } else if (s.do === "reconnect" && name !== "") connect(name);
            else if (s.do === "pause" && name !== "") {
              replicas.get(name)!.subscription!.pause();
              paused.add(name);
            } else if (s.do === "resume" && name !== "") {
              replicas.get(name)!.subscription!.resume();
              paused.delete(name);
            } else if (s.do === "policy") await hub.apply([both(`p${s.name}`, s.to, s.from)]);
            else if (s.do === "unpolicy") await hub.delete("NetworkPolicy", "default", `p${s.name}`);
            else if (s.do === "namespace") await hub.apply([namespace("default", { team: `t${s.team}` })]);
            else if (s.do === "flush") hub.flush();
            else if (s.do === "kill") {
              await restart();
              for (const known of replicas.keys()) connect(known);
            }
          }
          hub.flush();
          for (const [name, replica] of replicas) {
            if (paused.has(name)) replica.subscription!.resume();
            const fresh = new Replica().connect(hub, name);
            expect(Object.fromEntries(replica.entries)).toEqual(Object.fromEntries(fresh.entries));
            expect(replica.entries.has(`member/edge1/${name}`)).toBe(true);
          }
        }),
        { numRuns: 60 },
      );
    }, 120_000);

    it("numbers classes anew when most are gone, and members stay right", async () => {
      const token = await makeToken({ uses: Infinity });
      await join(new Device(1, { name: "m1", labels: { app: "web" } }), token);
      await hub.apply([both("p", "web", "client")]);
      hub.flush();
      const replica = new Replica().connect(hub, "m1");
      for (let i = 0; i < 90; i++) {
        await join(new Device(100 + i, { name: "x", labels: { app: "client", number: String(i) } }), token);
        hub.flush();
        expect(replica.record("x").labels["number"]).toBe(String(i));
        await hub.removeMember("x");
      }
      await join(new Device(2, { name: "m2", labels: { app: "client" } }), token);
      await join(new Device(3, { name: "m3", labels: { app: "other" } }), token);
      hub.flush();
      expect(replica.keys.filter((k) => k.startsWith("member/"))).toEqual(["member/edge1/m1", "member/edge1/m2"]);
    });
  });
}
