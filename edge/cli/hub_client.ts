/**
 * Which hub an administrative command talks to, and with what credential: on the hub's own machine what its state directory holds,
 * elsewhere what `--hub`, `--hub-ca` and `EDGEMESH_ADMIN_CREDENTIAL(_FILE)` say.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import { AdminClient } from "../sync/admin_client.ts";

/** Key directory of a hub, and its files; `edge/hub/ca.ts` writes them. */
const HUB_DIR = "hub";
const CREDENTIAL_FILE = "admin.token";
const CA_FILE = "ca.pem";

/** @throws EdgeError when this machine runs no hub and none was named, or a file cannot be read */
export function hubClient(config: Config): AdminClient {
  const timeout = config.timeoutMs === undefined ? {} : { timeoutMs: config.timeoutMs };
  if (config.hubUrl === undefined) {
    const dir = join(config.stateDir, HUB_DIR);
    const credential = config.adminCredential ?? readHubFile(join(dir, CREDENTIAL_FILE)).trim();
    return new AdminClient({
      endpoint: localEndpoint(config.listen),
      caPem: readHubFile(join(dir, CA_FILE)),
      credential,
      ...timeout,
    });
  }
  if (config.hubCa === undefined || config.adminCredential === undefined) {
    throw new EdgeError(
      "EDGE_USAGE",
      `Cannot administer "${config.hubUrl}": --hub-ca and an admin credential are missing`,
      {
        fix:
          "Copy ca.pem from the hub's state directory, and put the content of its admin.token into EDGEMESH_ADMIN_CREDENTIAL_FILE.",
      },
    );
  }
  const endpoint = config.hubUrl.replace(/^https:\/\//, "").replace(/\/$/, "");
  return new AdminClient({ endpoint, caPem: readFile(config.hubCa), credential: config.adminCredential, ...timeout });
}

/** A hub that listens on all addresses is reached on loopback. */
function localEndpoint(listen: string): string {
  return listen.replace(/^(\[::\]|0\.0\.0\.0):/, "127.0.0.1:");
}

function readHubFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw denied(path, error);
    throw new EdgeError("EDGE_NOT_FOUND", `Cannot find a hub on this machine: no "${path}"`, {
      fix: "Run this where the hub runs, with its --state-dir, or name the hub with --hub.",
    });
  }
}

function readFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw denied(path, error);
  }
}

function denied(path: string, error: unknown): EdgeError {
  return new EdgeError("EDGE_AGENT_DENIED", `Cannot read "${path}": ${messageOf(error)}`);
}
