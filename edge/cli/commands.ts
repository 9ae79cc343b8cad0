/**
 * The command table: names, arguments, options, examples, and the file that does the work, imported when it is called. Help,
 * completion and parsing are made from it (`program.ts`, `completion.ts`); what stays running is dispatched without commander.
 */
import { FLOW_FILTERS } from "../agent/flow_filter.ts";
import type { CommandSpec, OptionSpec } from "./context.ts";

const NAMESPACE: OptionSpec = { flag: "namespace", short: "n", value: "NAME", help: "namespace (default: default)" };
const FILES: OptionSpec = {
  flag: "filename",
  short: "f",
  value: "FILE",
  help: "YAML or JSON file, folder, or - for standard input (repeatable)",
  isList: true,
};

const FLOW_OPTIONS: readonly OptionSpec[] = Object.entries(FLOW_FILTERS).map(([flag, { value, help }]) => ({
  flag,
  ...(flag === "type" ? { short: "t" } : {}),
  value,
  help: `only flows with this: ${help} (repeatable)`,
  isList: true,
}));

/** Every command, in the order of `--help`. */
export const COMMANDS: readonly CommandSpec[] = [
  {
    path: ["join"],
    summary: "enrol this machine with a token, then run",
    args: [{ name: "token", help: "the token, - for standard input, or @FILE", isOptional: true }],
    scopes: ["agent", "join"],
    examples: [
      "join @/etc/edgemesh/token",
      "join - --enrol-only < token.txt",
      "join em1_... --name pi-7 --label site=lyon",
    ],
    load: async () => (await import("./join.ts")).join,
  },
  {
    path: ["run"],
    summary: "run an enrolled member, or one of a mesh file",
    scopes: ["agent", "run"],
    examples: ["run", "run --mesh mesh.yaml --log-level debug"],
    load: async () => (await import("../agent/run.ts")).runMember,
  },
  {
    path: ["leave"],
    summary: "leave the mesh and forget the membership",
    scopes: ["client"],
    examples: ["leave"],
    load: async () => (await import("./leave.ts")).leave,
  },
  {
    path: ["status"],
    summary: "say how this member is",
    scopes: ["client"],
    options: [{ flag: "wait", help: "wait until it is connected and policed, or --timeout (5m) is over" }],
    examples: ["status", "status --wait --timeout 60s", "status -o json"],
    load: async () => (await import("./status.ts")).status,
  },
  {
    path: ["peers"],
    summary: "list the other members",
    scopes: ["client"],
    examples: ["peers", "peers -o wide"],
    load: async () => (await import("./peers.ts")).peers,
  },
  {
    path: ["ping"],
    summary: "send echo requests through the mesh",
    args: [{ name: "target", help: "member name or mesh address" }],
    scopes: ["client"],
    options: [
      { flag: "count", short: "c", value: "N", help: "how many (default: 4)" },
      { flag: "interval", value: "TIME", help: "pause between them (default: 250ms)" },
    ],
    examples: ["ping box-b", "ping -c 1 10.219.0.3"],
    load: async () => (await import("./ping.ts")).ping,
  },
  {
    path: ["identity", "list"],
    summary: "list security identities and their labels",
    scopes: ["client"],
    examples: ["identity list"],
    load: async () => (await import("./identity.ts")).identityList,
  },
  {
    path: ["policy", "get"],
    summary: "list the policies that this member knows, and whether they are enforced",
    scopes: ["client"],
    examples: ["policy get", "policy get -o wide", "policy get -o yaml"],
    load: async () => (await import("./policy.ts")).policyGet,
  },
  {
    path: ["policy", "validate"],
    summary: "check policy documents: what is wrong, and where",
    args: [{ name: "file", help: "YAML or JSON files, folders, or - for standard input", isList: true }],
    scopes: ["client"],
    examples: ["policy validate policies/", "kubectl get cnp -o yaml | edgemesh policy validate -"],
    load: async () => (await import("./policy_validate.ts")).policyValidate,
  },
  {
    path: ["policy", "test"],
    summary: "run policy scenarios offline: files in, verdicts out",
    args: [{ name: "scenario", help: "YAML or JSON files, folders, or - for standard input", isList: true }],
    scopes: ["client"],
    options: [{ flag: "strict", help: "a scenario that this release cannot run is a failure too" }],
    examples: ["policy test scenarios/", "policy test web.yaml --strict -o json"],
    load: async () => (await import("./policy_test.ts")).policyTest,
  },
  {
    path: ["policy", "trace"],
    summary: "say what each end of a flow decides, and by which rule",
    scopes: ["client"],
    options: [
      { flag: "from", value: "WHO", help: "the source: a name, or an address" },
      { flag: "to", value: "WHO", help: "the destination: a name, or an address" },
      { flag: "port", value: "PORT/PROTO", help: "80/TCP, 53/UDP, ICMP or 128/ICMPv6 (default protocol: TCP)" },
      { flag: "scenario", value: "FILE", help: "ask the mesh of a scenario instead of the running agent" },
      { flag: "id", value: "ID", help: "which scenario of the file, when there are several" },
    ],
    examples: [
      "policy trace --from box-a --to box-b --port 5432/TCP",
      "policy trace --scenario web.yaml --from shop/web --to 192.0.2.7 --port 443/TCP",
    ],
    load: async () => (await import("./policy_trace.ts")).policyTrace,
  },
  {
    path: ["policy", "dry-run"],
    summary: "say which recent flows of this member a change would newly drop",
    scopes: ["client"],
    options: [FILES],
    examples: ["policy dry-run -f web.yaml", "policy dry-run -f policies/ -o json"],
    load: async () => (await import("./policy_dry_run.ts")).policyDryRun,
  },
  {
    path: ["wg", "show"],
    summary: 'show the WireGuard side as "wg show" does',
    args: [{ name: "what", help: "dump: lines for programs", isOptional: true }],
    scopes: ["client"],
    examples: ["wg show", "wg show dump"],
    load: async () => (await import("./wg.ts")).wgShow,
  },
  {
    path: ["monitor"],
    summary: "watch dropped packets as they happen",
    scopes: ["client"],
    options: [{ flag: "drops", help: "watch drops (what it does in any case)" }],
    examples: ["monitor --drops", "monitor --drops -o json"],
    load: async () => (await import("./monitor.ts")).monitor,
  },
  {
    path: ["observe"],
    summary: "show flows, drops, and requests that a proxy judged, with the filters of hubble observe",
    scopes: ["client"],
    options: [
      { flag: "last", value: "N", help: "how many of the newest (default: 20, with --follow: 0)" },
      { flag: "all", help: "all that the agent still has" },
      { flag: "follow", short: "f", help: "go on as they happen" },
      ...FLOW_OPTIONS,
    ],
    examples: [
      "observe -f --verdict DROPPED",
      "observe --protocol http --http-status 5+ --last 100",
      "observe --all -o json",
    ],
    load: async () => (await import("./observe.ts")).observe,
  },
  {
    path: ["apply"],
    summary: "store policies, CIDR groups, services and namespaces on the hub",
    scopes: ["client", "hubClient"],
    options: [
      FILES,
      {
        flag: "dry-run",
        help: "say what would change and which recent flows of members it would drop, and change nothing",
      },
    ],
    examples: ["apply -f policies/", "apply -f web.yaml --dry-run", "kubectl get netpol -o yaml | edgemesh apply -f -"],
    load: async () => (await import("./objects.ts")).apply,
  },
  {
    path: ["get"],
    summary: "show policies and namespaces that the hub has stored",
    args: [
      { name: "kind", help: "NetworkPolicy, CiliumNetworkPolicy, Namespace, ...", isOptional: true },
      { name: "name", help: "one of that kind", isOptional: true },
    ],
    scopes: ["client", "hubClient"],
    options: [{ ...NAMESPACE, help: "only of this namespace" }],
    examples: ["get", "get NetworkPolicy -n prod -o yaml"],
    load: async () => (await import("./objects.ts")).get,
  },
  {
    path: ["delete"],
    summary: "delete policies, CIDR groups, services and namespaces from the hub",
    args: [
      { name: "kind", help: "kind of the object", isOptional: true },
      { name: "name", help: "its name", isOptional: true },
    ],
    scopes: ["client", "hubClient"],
    options: [
      NAMESPACE,
      FILES,
      { flag: "dry-run", help: "say which recent flows of members that would drop, and delete nothing" },
    ],
    examples: ["delete NetworkPolicy web -n prod", "delete cnp web -n prod --dry-run", "delete -f policies/"],
    load: async () => (await import("./objects.ts")).remove,
  },
  {
    path: ["hub", "run"],
    summary: "run a hub",
    scopes: ["agent", "hub"],
    examples: ["hub run --cluster-name edge1 --advertise hub.example.net:7443"],
    load: async () => (await import("../hub/run.ts")).runHub,
  },
  {
    path: ["hub", "token", "create"],
    summary: "make a token that admits members",
    scopes: ["client", "hubClient"],
    options: [
      { flag: "uses", value: "N", help: "how many machines may join with it, or unlimited (default: 1)" },
      { flag: "ttl", value: "TIME", help: "how long it is good for, or never (default: 24h)" },
      { flag: "label", value: "K=V", help: "label of every member that joins with it (repeatable)", isList: true },
      { flag: "namespace", value: "NAME", help: "namespace of its members" },
      { flag: "name", value: "NAME", help: "name of its member, for a token of one use" },
      { flag: "approve", value: "auto|manual", help: 'manual: members wait for "member approve" (default: auto)' },
      { flag: "endpoint", value: "HOST:PORT", help: "where its members reach the hub (repeatable)", isList: true },
    ],
    examples: ["hub token create", "hub token create --uses 20 --ttl 7d --label site=lyon --approve manual"],
    load: async () => (await import("./hub_token.ts")).tokenCreate,
  },
  {
    path: ["hub", "token", "list"],
    summary: "list tokens; their secrets are not kept",
    scopes: ["client", "hubClient"],
    examples: ["hub token list"],
    load: async () => (await import("./hub_token.ts")).tokenList,
  },
  {
    path: ["hub", "token", "revoke"],
    summary: "make a token useless",
    args: [{ name: "id", help: "id of the token" }],
    scopes: ["client", "hubClient"],
    examples: ["hub token revoke 3f9a1c77d0e2b486"],
    load: async () => (await import("./hub_token.ts")).tokenRevoke,
  },
  {
    path: ["hub", "member", "list"],
    summary: "list all members, pending and revoked ones too",
    scopes: ["client", "hubClient"],
    examples: ["hub member list", "hub member list -o wide"],
    load: async () => (await import("./hub_member.ts")).memberList,
  },
  {
    path: ["hub", "member", "approve"],
    summary: "let a pending member in",
    args: [{ name: "name", help: "name of the member" }],
    scopes: ["client", "hubClient"],
    examples: ["hub member approve pi-7"],
    load: async () => (await import("./hub_member.ts")).memberApprove,
  },
  {
    path: ["hub", "member", "revoke"],
    summary: "cut a member off for good: its peers drop it at once",
    args: [{ name: "name", help: "name of the member" }],
    scopes: ["client", "hubClient"],
    examples: ["hub member revoke pi-7"],
    load: async () => (await import("./hub_member.ts")).memberRevoke,
  },
  {
    path: ["bugreport"],
    summary: "collect what helps to find a fault, without secrets",
    scopes: ["client"],
    examples: ["bugreport > report.json"],
    load: async () => (await import("./bugreport.ts")).bugreport,
  },
  {
    path: ["version"],
    summary: "print the version",
    scopes: ["client"],
    options: [{ flag: "verbose", help: "with what this machine offers" }],
    examples: ["version", "version --verbose"],
    load: async () => (await import("./version.ts")).version,
  },
  {
    path: ["completion"],
    summary: "print a completion script",
    args: [{ name: "shell", help: "bash, zsh or fish" }],
    scopes: [],
    examples: ["completion bash > /etc/bash_completion.d/edgemesh", "completion fish | source"],
    load: async () => (await import("./completion.ts")).completionOf(COMMANDS, GROUPS),
  },
];

/** What the groups of commands are about. */
export const GROUPS: Readonly<Record<string, string>> = {
  "identity": "security identities",
  "policy": "policies as this member enforces them",
  "wg": "WireGuard",
  "hub": "run and administer a hub",
  "hub token": "tokens that admit members",
  "hub member": "members of the mesh",
};

/** Commands that run until stopped: dispatched without commander, which would stay in memory with them. */
export const LONG_RUNNING: readonly string[] = ["run", "join", "hub run"];
