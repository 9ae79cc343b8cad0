/**
 * Errors of set-up and control: one class, one table of codes. Each code has the exit code that the command line ends with and
 * the sentence that says what to do next. Packets never come here: they have verdicts (`src/verdict.ts`).
 *
 * Messages follow one shape: the action, the thing in quotes, a colon, the state; no final period. Never a key or a token.
 */

/** Exit codes of the command line (design, section 3). Scripts and systemd units rely on them. */
export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_NOT_JOINED = 3;
export const EXIT_NO_AGENT = 4;
export const EXIT_TOKEN_REFUSED = 5;
export const EXIT_PRIVILEGE = 6;
export const EXIT_TRY_AGAIN = 75;

interface CodeFacts {
  readonly exit: number;
  /** what to do next, a whole sentence */
  readonly fix: string;
}

/** Every code. `fix` may be replaced at the place that throws, where more is known. */
export const ERROR_CODES = {
  EDGE_USAGE: { exit: EXIT_USAGE, fix: 'See "edgemesh --help".' },
  EDGE_CONFIG_INVALID: { exit: EXIT_USAGE, fix: "Correct the settings that are named above." },
  EDGE_MESH_FILE_INVALID: { exit: EXIT_USAGE, fix: "Correct the mesh file at the places named above." },
  EDGE_MANIFEST_INVALID: { exit: EXIT_USAGE, fix: "Correct the document at the places named above." },
  EDGE_NOT_JOINED: { exit: EXIT_NOT_JOINED, fix: 'Ask the hub for a token, then run "edgemesh join <token>".' },
  EDGE_ALREADY_JOINED: {
    exit: EXIT_FAILED,
    fix: 'Run "edgemesh run", or "edgemesh leave" first to join another mesh.',
  },
  EDGE_AGENT_NOT_RUNNING: {
    exit: EXIT_NO_AGENT,
    fix: 'Start it with "edgemesh run", or name its socket with --socket.',
  },
  EDGE_AGENT_DENIED: { exit: EXIT_PRIVILEGE, fix: "Run the command as the user that runs the agent, or as root." },
  EDGE_AGENT_BUSY: {
    exit: EXIT_FAILED,
    fix: "Stop the other agent first, or give this one its own --state-dir, --socket and --tun.",
  },
  EDGE_TOKEN_DAMAGED: { exit: EXIT_TOKEN_REFUSED, fix: "Copy the token again, whole and on one line." },
  EDGE_TOKEN_EXPIRED: { exit: EXIT_TOKEN_REFUSED, fix: 'Ask for a new token: "edgemesh hub token create" on the hub.' },
  EDGE_TOKEN_USED: { exit: EXIT_TOKEN_REFUSED, fix: 'Ask for a new token: "edgemesh hub token create" on the hub.' },
  EDGE_TOKEN_REVOKED: { exit: EXIT_TOKEN_REFUSED, fix: "Ask the hub's operator why, or for a new token." },
  EDGE_TOKEN_UNKNOWN: {
    exit: EXIT_TOKEN_REFUSED,
    fix: "Check that the token is of this hub, and ask for a new one if it is.",
  },
  EDGE_TOKEN_REPLAYED: { exit: EXIT_TOKEN_REFUSED, fix: "Ask for a new token: this one has let a device in before." },
  EDGE_TOKEN_REFUSED: { exit: EXIT_TOKEN_REFUSED, fix: "Ask the hub's operator: the reason is in the hub's log." },
  EDGE_TUN_DENIED: {
    exit: EXIT_PRIVILEGE,
    fix: "Run as root or give the service CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN).",
  },
  EDGE_TUN_MISSING: {
    exit: EXIT_PRIVILEGE,
    fix: 'Load the module ("modprobe tun") or give the container the device /dev/net/tun.',
  },
  EDGE_TUN_BUSY: {
    exit: EXIT_FAILED,
    fix: "Choose another device name with --tun, or stop the program that holds it.",
  },
  EDGE_PORT_BUSY: { exit: EXIT_FAILED, fix: "Choose another port, or stop the program that holds it." },
  EDGE_FFI_UNAVAILABLE: {
    exit: EXIT_PRIVILEGE,
    fix: "Remove MemoryDenyWriteExecute= and LimitAS= from the unit: the runtime needs its JIT.",
  },
  EDGE_DATAPATH_FAILED: { exit: EXIT_FAILED, fix: 'Look at the log; "edgemesh bugreport" collects what helps.' },
  EDGE_DATAPATH_CRASHED: { exit: EXIT_FAILED, fix: 'Please report it with the output of "edgemesh bugreport".' },
  EDGE_DATAPATH_STOPPED: { exit: EXIT_FAILED, fix: 'The agent starts it again by itself; see "edgemesh status".' },
  EDGE_TUN_FAILED: { exit: EXIT_FAILED, fix: 'Look at "ip link" and at the kernel\'s log.' },
  EDGE_UDP_IN_USE: {
    exit: EXIT_FAILED,
    fix: "Choose another port with --wireguard-port, or stop the program that holds it.",
  },
  EDGE_UDP_DENIED: { exit: EXIT_PRIVILEGE, fix: "Run as root or give the service CAP_NET_ADMIN." },
  EDGE_UDP_FAILED: { exit: EXIT_FAILED, fix: "Look at the machine's network and at the kernel's log." },
  EDGE_NETLINK_DENIED: { exit: EXIT_PRIVILEGE, fix: "Run as root or give the service CAP_NET_ADMIN." },
  EDGE_NETLINK_CONFLICT: { exit: EXIT_FAILED, fix: "Remove the address or route that is in the way." },
  EDGE_NETLINK_FAILED: { exit: EXIT_FAILED, fix: 'Look at "ip address" and "ip route".' },
  EDGE_SODIUM: { exit: EXIT_PRIVILEGE, fix: "Reinstall edgemesh: its cryptographic library is missing or damaged." },
  EDGE_NETWORK_DENIED: { exit: EXIT_PRIVILEGE, fix: "Run as root or give the service CAP_NET_ADMIN." },
  EDGE_NETWORK_FAILED: {
    exit: EXIT_FAILED,
    fix: 'Look at the machine\'s addresses and routes ("ip address", "ip route").',
  },
  EDGE_CIDR_CONFLICT: {
    exit: EXIT_FAILED,
    fix: "Change the mesh's member CIDR on the hub or the local network: nothing was changed on this machine.",
  },
  EDGE_STATE_UNWRITABLE: { exit: EXIT_FAILED, fix: "Name a writable directory with --state-dir." },
  EDGE_STATE_INVALID: { exit: EXIT_FAILED, fix: "Restore the file from a backup, or join again." },
  EDGE_HUB_UNREACHABLE: {
    exit: EXIT_TRY_AGAIN,
    fix: "Check that the hub runs and that TCP to its address is open, then try again.",
  },
  EDGE_HUB_REFUSED: { exit: EXIT_FAILED, fix: "Look at the hub's log for the reason." },
  EDGE_HUB_UNTRUSTED: {
    exit: EXIT_FAILED,
    fix: "The server is not the hub that the token was made by: check the address, or ask for a new token.",
  },
  EDGE_JOIN_PENDING: {
    exit: EXIT_TRY_AGAIN,
    fix: 'Ask the hub\'s operator for "edgemesh hub member approve", then try again.',
  },
  EDGE_NOT_FOUND: { exit: EXIT_FAILED, fix: "List what there is and check the name." },
  EDGE_TIMEOUT: { exit: EXIT_TRY_AGAIN, fix: "Try again, or with a longer --timeout." },
  EDGE_PROTOCOL: { exit: EXIT_FAILED, fix: "Check that both sides run the same release." },
} as const satisfies Record<string, CodeFacts>;

const UNKNOWN_CODE: CodeFacts = { exit: EXIT_FAILED, fix: "Look at the log for more." };

/** A stable name of one kind of failure. */
export type EdgeErrorCode = keyof typeof ERROR_CODES;

/** A failure of set-up or control that a person or a script can act on. */
export class EdgeError extends Error {
  readonly code: EdgeErrorCode;
  /** what to do next, a whole sentence */
  readonly fix: string;
  readonly exitCode: number;

  /** @param message action, thing in quotes, colon, state: no final period, no secret */
  constructor(code: EdgeErrorCode, message: string, options: { fix?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "EdgeError";
    this.code = code;
    // a code that crossed a thread or the network may be one that this release does not know
    const facts: CodeFacts = Object.hasOwn(ERROR_CODES, code) ? ERROR_CODES[code] : UNKNOWN_CODE;
    this.fix = options.fix ?? facts.fix;
    this.exitCode = facts.exit;
  }
}

/** The same failure as an `EdgeError`; what carries no code of ours is `undefined`: a bug, or a matter of the runtime. */
export function asEdgeError(thrown: unknown): EdgeError | undefined {
  if (thrown instanceof EdgeError) return thrown;
  const code = errnoOf(thrown);
  if (!Object.hasOwn(ERROR_CODES, code)) return undefined;
  return new EdgeError(code as EdgeErrorCode, messageOf(thrown), { cause: thrown });
}

/** The text of anything that was thrown, without a stack. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** `ENOENT` and the like of a system error, else "". */
export function errnoOf(thrown: unknown): string {
  const code = (thrown as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}
