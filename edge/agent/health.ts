/**
 * What is wrong with this member, as items with stable codes: shown by `status`, `/readyz?verbose`, metrics and the log. An item
 * shows only after it has lasted for its settling time, so that a short break of the hub does not page anybody.
 */

interface CodeFacts {
  readonly severity: "info" | "warning" | "error";
  /** traffic suffers while it lasts */
  readonly impactsConnectivity: boolean;
  readonly settleMs: number;
  /** what to do, a whole sentence */
  readonly fix: string;
}

/** Every code; names are stable. */
const HEALTH_CODES = {
  "datapath-down": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: "The agent starts it again by itself; if that goes on, look at the log.",
  },
  "datapath-stuck": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: 'Restart the agent and report it with the output of "edgemesh bugreport".',
  },
  "hub-unreachable": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 10_000,
    fix: "Check the way to the hub: TCP to its address must be open. Traffic goes on with what is known.",
  },
  "hub-refused": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: 'Ask the hub\'s operator; to join again, run "edgemesh leave" and then "edgemesh join" with a new token.',
  },
  "state-stale": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 10_000,
    fix: "Nothing to do: peers and policies from disk are in force until the hub answers.",
  },
  "not-in-mesh": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 5000,
    fix: 'The mesh has no record of this member: check "edgemesh hub member list" on the hub.',
  },
  "policy-not-ready": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 5000,
    fix: "New connections are refused until policies arrive from the hub: check the way to it.",
  },
  "policy-refused": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: 'Change the policies that "edgemesh policy get" marks as refused: they cannot be enforced as written.',
  },
  "http-proxy-down": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 2000,
    fix: "Flows with HTTP rules are dropped until it runs; it is started again by itself every second.",
  },
  "dns-proxy-down": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 2000,
    fix: "Queries with DNS rules are dropped until it runs; it is started again every second. Check who has its port.",
  },
  "policy-rolled-back": {
    severity: "error",
    impactsConnectivity: false,
    settleMs: 0,
    fix:
      "Let the named policies leave the way to the hub open, and apply them again; until then those before are in force.",
  },
  "proxy-unguarded": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix:
      "Local programs of other users can reach servers past HTTP and DNS rules: give the kernel policy routing by user.",
  },
  "entries-refused": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix: 'Look at "edgemesh status -o json" for keys and reasons; hub and member may be of different releases.',
  },
  "cidr-conflict": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: "Change the mesh's member CIDR on the hub or the local network; this machine's routes were left as they are.",
  },
  "network-failed": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix: 'The agent tries again every minute; look at "ip address" and "ip route".',
  },
  "clock-behind": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix: "Set the machine's clock (NTP). The agent goes by the time that the hub signed meanwhile.",
  },
  "state-readonly": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix: "Make the state directory writable, or name another with --state-dir: after a reboot the hub will be needed.",
  },
  "state-recovered": {
    severity: "info",
    impactsConnectivity: false,
    settleMs: 0,
    fix: "Nothing to do; damaged files stand beside the others with the ending .bad.",
  },
  "key-expiring": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix: "Let the member reach its hub: records are renewed there.",
  },
  "unencrypted": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix:
      'Start the hub with "--encryption wireguard", unless everybody who can reach the network below may read and forge traffic.',
  },
  "no-underlay-address": {
    severity: "error",
    impactsConnectivity: true,
    settleMs: 0,
    fix:
      "Without encryption members need addresses that others reach directly: no NAT between them. With encryption they do not.",
  },
  "key-log-on": {
    severity: "warning",
    impactsConnectivity: false,
    settleMs: 0,
    fix: "Leave out --key-log-file: whoever reads that file reads all traffic.",
  },
} as const satisfies Record<string, CodeFacts>;

/** A stable name of something wrong. */
export type HealthCode = keyof typeof HEALTH_CODES;

/** One thing wrong, as it is shown. */
export interface HealthItem {
  readonly code: HealthCode;
  readonly severity: "info" | "warning" | "error";
  readonly impactsConnectivity: boolean;
  /** what is the matter, a whole sentence */
  readonly text: string;
  readonly fix: string;
  /** RFC 3339, by this machine's clock */
  readonly since: string;
}

interface Held {
  readonly sinceMs: number;
  readonly sinceUnixMs: number;
  readonly text: string;
}

const ORDER = { error: 0, warning: 1, info: 2 };

/** The items of one agent. */
export class Health {
  readonly #held = new Map<HealthCode, Held>();
  readonly #nowMs: () => number;
  readonly #unixMs: () => number;

  /** @param nowMs monotonic; @param unixMs for `since` */
  constructor(nowMs: () => number, unixMs: () => number) {
    this.#nowMs = nowMs;
    this.#unixMs = unixMs;
  }

  /** Says that something is wrong; said again, only the text changes. @returns whether it is new */
  raise(code: HealthCode, text: string): boolean {
    const before = this.#held.get(code);
    const { sinceMs, sinceUnixMs } = before ?? { sinceMs: this.#nowMs(), sinceUnixMs: this.#unixMs() };
    this.#held.set(code, { sinceMs, sinceUnixMs, text });
    return before === undefined;
  }

  /** @returns whether it was wrong before */
  clear(code: HealthCode): boolean {
    return this.#held.delete(code);
  }

  /** `raise` where there is a text, else `clear`. @returns whether that changed something */
  set(code: HealthCode, text: string | undefined): boolean {
    return text === undefined ? this.clear(code) : this.raise(code, text);
  }

  /** What has lasted for its settling time, worst first. */
  items(): readonly HealthItem[] {
    const nowMs = this.#nowMs();
    const shown: HealthItem[] = [];
    for (const [code, held] of this.#held) {
      const { severity, impactsConnectivity, settleMs, fix } = HEALTH_CODES[code];
      if (nowMs - held.sinceMs < settleMs) continue;
      const since = new Date(held.sinceUnixMs).toISOString();
      shown.push({ code, severity, impactsConnectivity, text: held.text, fix, since });
    }
    return shown.sort((a, b) => ORDER[a.severity] - ORDER[b.severity] || (a.code < b.code ? -1 : 1));
  }
}
