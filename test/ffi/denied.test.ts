/**
 * What the messages say where a privilege or a device is missing. A child process is started without it, so these tests need
 * root, and `setpriv` and `unshare` of util-linux.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { noFfi, runtimeName } from "./harness.ts";

const child = fileURLToPath(new URL("./denied_child.ts", import.meta.url));
const tools = ["/usr/bin/setpriv", "/usr/bin/unshare"];
const missing = tools.filter((tool) => !existsSync(tool));
const reason = noFfi ||
  (process.getuid?.() !== 0
    ? " (skipped: needs root)"
    : missing.length > 0
    ? ` (skipped: no ${missing.join(", ")})`
    : "");

/** In a user namespace nobody may make device nodes, root of it included. */
const isRealRoot = noFfi === "" && /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));
const noNodes = isRealRoot ? "" : " (skipped: device nodes cannot be made in a user namespace)";

type Answer = Record<"tun" | "netlink" | "mark", { code?: string; message: string }>;

function run(command: readonly string[]): Answer {
  const runtime = runtimeName === "Deno" ? [process.execPath, "run", "-A", child] : [process.execPath, "run", child];
  const [first, ...rest] = [...command, ...runtime];
  return JSON.parse(execFileSync(first!, rest, { encoding: "utf8" })) as Answer;
}

describe.skipIf(reason)(`missing privileges on ${runtimeName}${reason}`, () => {
  it("without CAP_NET_ADMIN the device, the link and the mark are denied, and the capability is named", () => {
    const answer = run(["unshare", "-n", "setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    for (const [what, code] of [["tun", "EDGE_TUN"], ["netlink", "EDGE_NETLINK"], ["mark", "EDGE_UDP"]] as const) {
      expect(answer[what].code).toBe(`${code}_DENIED`);
      expect(answer[what].message).toMatch(/CAP_NET_ADMIN.*EPERM/);
    }
    expect(answer.tun.message).toMatch(/^Cannot make TUN device "edgemesh-t3": /);
  });

  it("without a device node the message says so, and what to do in a container", () => {
    const shell = 'mount -t tmpfs none /dev/net && exec "$@"';
    const answer = run(["unshare", "-nm", "sh", "-c", shell, "sh"]);
    expect(answer.tun.code).toBe("EDGE_TUN_MISSING");
    expect(answer.tun.message).toMatch(/\/dev\/net\/tun does not exist \(ENOENT\).*--device/);
    expect(answer.netlink.message).toBe("it worked");
  });

  it.skipIf(noNodes)(`a node without a driver is told from a node that may not be opened${noNodes}`, () => {
    const shell = 'mount -t tmpfs none /dev/net && mknod /dev/net/tun c "$MAJOR" 0 && exec "$@"';
    const noDriver = run(["env", "MAJOR=240", "unshare", "-nm", "sh", "-c", shell, "sh"]);
    expect(noDriver.tun.code).toBe("EDGE_TUN_MISSING");
    expect(noDriver.tun.message).toMatch(/load the module "tun" \(ENXIO\)/);
    const nodev = run([
      "env",
      "MAJOR=10",
      "unshare",
      "-nm",
      "sh",
      "-c",
      shell.replace("tmpfs", "tmpfs -o nodev"),
      "sh",
    ]);
    expect(nodev.tun.code).toBe("EDGE_TUN_DENIED");
    expect(nodev.tun.message).toMatch(/may not be opened: permission denied \(EACCES\)/);
  });
});
