/**
 * The story that `scripts/demo` tells, step by step. Every step shows a command and what it printed, and checks what it claims;
 * the end counts the checks. Started inside namespaces of its own (`scripts/lab/inside`), with the compiled program.
 */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Lab, pause, until } from "./lab/lab.ts";
import { Agent, commandOf } from "./lab/program.ts";

const isColored = process.env["EDGEMESH_DEMO_COLOR"] === "yes";
const paint = (code: string) => (text: string): string => isColored ? `\x1b[${code}m${text}\x1b[0m` : text;
const [bold, dim, green, red, cyan] = [paint("1"), paint("2"), paint("32"), paint("31"), paint("36")];

const TRAFFIC = ["node", join(import.meta.dirname, "lab/traffic.mjs")];
const keepDir = process.env["EDGEMESH_DEMO_KEEP"];
const WIDTH = 112;

const POLICY = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: default }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
    - from: [{ podSelector: { matchLabels: { app: client } } }]
      ports: [{ port: 8080 }]
`;

let passed = 0;
const failures: string[] = [];
let step = 0;

function heading(text: string): void {
  console.log(`\n${bold(`${++step}. ${text}`)}`);
}

function typed(node: string, command: string): void {
  const shown = command.length > WIDTH - 8 ? `${command.slice(0, WIDTH - 9)}…` : command;
  console.log(`   ${cyan(`${node}$`)} ${shown}`);
}

function printed(text: string, most = 16): void {
  const lines = text.trimEnd().split("\n");
  for (const line of lines.slice(0, most)) {
    console.log(`     ${dim(line.length > WIDTH ? `${line.slice(0, WIDTH - 1)}…` : line)}`);
  }
  if (lines.length > most) console.log(`     ${dim(`(${lines.length - most} more lines)`)}`);
}

/** States one thing that must be true; the demo goes on, and fails at its end, when it is not. */
function check(what: string, isTrue: boolean): void {
  console.log(`   ${isTrue ? green("✓") : red("✗")} ${what}`);
  if (isTrue) passed++;
  else failures.push(what);
}

/** Types a command on a node, prints what it printed, and gives that back. */
async function types(agent: Agent, args: readonly string[], most?: number): Promise<string> {
  typed(agent.node.name, `edgemesh ${args.map((arg) => /^[\w@./:=,-]+$/.test(arg) ? arg : `'${arg}'`).join(" ")}`);
  const done = await agent.cli(args);
  printed(`${done.stdout}${done.code === 0 ? "" : done.stderr}`, most);
  if (done.code !== 0) check(`"edgemesh ${args[0]}" succeeds`, false);
  return done.stdout;
}

async function isReady(agent: Agent): Promise<void> {
  const running = agent.process!;
  await until(
    `${agent.node.name} answers`,
    async () => {
      if (running.exitCode !== undefined) {
        throw new Error(
          `edgemesh on ${agent.node.name} ended with ${running.exitCode}:\n${running.log()}`,
        );
      }
      return (await agent.cli(["status", "-o", "json"])).code === 0;
    },
    20_000,
    () => running.log(),
  );
  await agent.ask(["status", "--wait", "--timeout", "30s"]);
}

async function meshAddress(agent: Agent, family: 4 | 6): Promise<string> {
  const { member } = await agent.json(["status"]);
  return member.addresses.find((address: string) => address.includes(":") === (family === 6)).split("/")[0];
}

async function tell(lab: Lab): Promise<void> {
  const [hub, a, b] = [new Agent(lab, "hub", "binary"), new Agent(lab, "a", "binary"), new Agent(lab, "b", "binary")];

  heading("Three machines and a router between them");
  printed([
    `hub ${hub.node.ip4.padEnd(10)} ──┐`,
    `a   ${a.node.ip4.padEnd(10)} ──┼── router      each a network namespace; ${
      (await a.ask(["version"])).trim().split("\n")[0]
    }`,
    `b   ${b.node.ip4.padEnd(10)} ──┘`,
  ].join("\n"));

  heading("A hub");
  const run = ["hub", "run", "--cluster-name", "demo", "--advertise", `${hub.node.ip4}:7443`];
  typed("hub", `edgemesh ${run.join(" ")} &`);
  hub.start(run);
  await isReady(hub);
  const tokens: string[] = [];
  for (const app of ["client", "web"]) {
    const create = ["hub", "token", "create", "--label", `app=${app}`];
    typed("hub", `edgemesh ${create.join(" ")}`);
    const { token } = await hub.json(create);
    tokens.push(token);
    printed(token);
  }
  check("the hub is ready and has made two tokens, each for one machine", tokens[0] !== tokens[1]);

  heading("Two members join, each with its token and nothing else");
  for (const [agent, token] of [[a, tokens[0]!], [b, tokens[1]!]] as const) {
    typed(agent.node.name, `edgemesh join ${token.slice(0, 20)}… &`);
    agent.start(["join", token, "--name", agent.node.name]);
  }
  await Promise.all([isReady(a), isReady(b)]);
  await types(a, ["status"]);
  const [a4, b4, b6] = [await meshAddress(a, 4), await meshAddress(b, 4), await meshAddress(b, 6)];
  check(`a is ${a4} in the mesh, b is ${b4} and ${b6}`, a4 !== b4);
  const again = await new Agent(lab, "b", "binary").cli([
    "join",
    tokens[0]!,
    "--enrol-only",
    "--state-dir",
    join(b.node.dir, "other"),
  ]);
  printed(again.stderr, 2);
  check("a token that was used is refused to another machine (exit 5)", again.code === 5);

  heading("They reach each other");
  const ping = await types(a, ["ping", "b"]);
  check("a pings b through the mesh", /ms/.test(ping));
  await until("IPv6", async () => (await lab.run("a", ["ping", "-c1", "-W1", b6])).code === 0);
  check("over IPv6 too", true);
  const peers = await types(a, ["peers"]);
  check(
    "and has a WireGuard session with b",
    /\bb\b/.test(peers) &&
      (await a.json(["peers"])).peers.some((peer: { name: string; state: string }) =>
        peer.name === "b" && peer.state === "active"
      ),
  );

  heading("A policy on the hub, enforced on b");
  for (const port of [8080, 8081]) {
    await lab.start("b", `serve-${port}`, [...TRAFFIC, "serve", String(port), "b"]).saw(/^ready$/m);
  }
  const monitor = b.start(["monitor", "--drops"]);
  writeFileSync(join(hub.node.dir, "policy.yaml"), POLICY);
  printed(POLICY);
  await types(hub, ["apply", "-f", join(hub.node.dir, "policy.yaml")]);
  const get = async (port: number): Promise<{ code: number; stdout: string }> => {
    typed("a", `curl -m 2 http://${b4}:${port}/`);
    const done = await lab.run("a", ["curl", "-sS", "-m", "2", `http://${b4}:${port}/`]);
    printed(done.stdout || done.stderr);
    return done;
  };
  await until(
    "the policy holds",
    async () => (await lab.run("a", ["curl", "-s", "-m", "1", `http://${b4}:8081/`])).code !== 0,
  );
  const allowed = await get(8080);
  check("the allowed port answers", allowed.stdout.includes("hello from b"));
  const denied = await get(8081);
  check("the other is closed", denied.code === 28);
  await monitor.saw(/POLICY_DENIED/).catch(() => undefined);
  typed("b", "edgemesh monitor --drops");
  printed(monitor.log().split("\n").filter((line) => line.includes("8081")).slice(-2).join("\n") || monitor.log());
  check("and the drop has its reason: POLICY_DENIED", /POLICY_DENIED/.test(monitor.log()));
  await monitor.stop();

  heading("Is it well?");
  for (const path of ["/livez", "/readyz?verbose"]) {
    typed("b", `curl http://127.0.0.1:9780${path}`);
    const { status, body } = await b.http(path);
    printed(body);
    check(`${path.split("?")[0]} says ${status}`, status === 200);
  }

  heading("What crosses the wire");
  const capture = lab.start("a", "tcpdump", ["tcpdump", "-Z", "root", "-n", "-l", "-X", "-i", "eth0", "udp"]);
  const canCapture = await capture.saw(/listening on/).then(() => true, () => false);
  await lab.run("a", ["curl", "-s", "-m", "2", `http://${b4}:8080/`]);
  if (canCapture) {
    await until("packets are captured", () => (capture.log().match(/51871/g) ?? []).length >= 6);
    await capture.stop();
    typed("router", "tcpdump -n udp");
    printed(
      capture.log().split("\n").filter((line) => /IP6? .*51871/.test(line)).slice(0, 4).map((line) => line.trim()).join(
        "\n",
      ),
    );
    check(
      "only WireGuard between the machines; the request cannot be read",
      capture.log().includes("51871") && !/hello|GET/.test(capture.log()),
    );
  } else {
    const { traffic } = await a.json(["status"]);
    printed(
      `no tcpdump here; a's own counters: ${traffic.toUnderlayDatagrams} datagrams out, ${traffic.fromUnderlayDatagrams} in`,
    );
    check("datagrams went out", traffic.toUnderlayDatagrams > 0);
  }

  heading("The hub goes away");
  typed("hub", "kill -9 %1");
  await hub.process!.kill();
  check(
    "a still reaches b",
    (await lab.run("a", ["curl", "-s", "-m", "2", `http://${b4}:8080/`])).stdout.includes("hello from b"),
  );
  typed("hub", `edgemesh ${run.join(" ")} &`);
  hub.start(run);
  await isReady(hub);
  check("and the hub comes back with its members", (await hub.ask(["hub", "member", "list"])).includes("a"));
}

const lab = await Lab.create(["hub", "a", "b"]);
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => void lab.close().then(() => process.exit(130)));
}
try {
  await tell(lab);
} catch (error) {
  check(error instanceof Error ? error.message : String(error), false);
}

const took = Math.round(Date.now() / 1000 - Number(process.env["EDGEMESH_DEMO_STARTED"] ?? NaN));
console.log(
  `\n${failures.length === 0 ? green(bold("All of it was true")) : red(bold("Not all of it was true"))}: ${passed} of ${
    passed + failures.length
  } checks, ${took} s`,
);
for (const failure of failures) console.log(`   ${red("✗")} ${failure}`);
if (keepDir && failures.length === 0) {
  mkdirSync(join(lab.dir, "bin"));
  symlinkSync(commandOf("binary")[0]!, join(lab.dir, "bin/edgemesh"));
  writeFileSync(join(keepDir, "lab"), lab.dir);
  console.log(`
It goes on running. Look around:
   scripts/demo enter a                          a shell on a; edgemesh, ip, ping, curl work there
   scripts/demo enter b edgemesh monitor --drops
   scripts/demo enter hub edgemesh hub member list
   scripts/demo enter a curl -s http://127.0.0.1:9780/metrics
Logs are in ${lab.dir}. End it with
   scripts/demo stop`);
  writeFileSync(join(keepDir, "status"), "0\n");
  await pause(2 ** 31 - 1);
}
if (failures.length > 0) {
  for (const name of ["hub-1", "a-1", "b-1"]) {
    console.log(
      dim(
        `\nlast lines of ${name}:\n${
          (await lab.shell(`tail -n 15 ${lab.dir}/${name}.log 2>/dev/null || true`)).trimEnd()
        }`,
      ),
    );
  }
}
await lab.close();
process.exit(failures.length === 0 ? 0 : 1);
