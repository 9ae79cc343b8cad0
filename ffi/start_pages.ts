/**
 * Gives back the pages of program files that only starting needed: parsing, linking, the first compilation. They are clean copies of
 * files, so what is needed again is simply read again, most often from the page cache; but until somebody lets go of them they count
 * as resident (design D13), and a memory cgroup holds on to them.
 */
import { readFileSync } from "node:fs";
import { MADV_DONTNEED } from "./constants.ts";
import { libc } from "./libc.ts";

/**
 * Lets go of every file mapping of this process that cannot be written and holds no page of its own: program code and constants.
 * A mapping that was written to before it was protected (relocations) has such pages, and is left alone: they exist nowhere else.
 * @returns octets of the mappings that were let go; 0 where /proc does not say what they are
 */
export function releaseStartPages(): number {
  let bytes = 0;
  for (const { from, end } of cleanFileMappings(readSmaps())) {
    if (libc().madvise(from, end - from, MADV_DONTNEED) >= 0) bytes += end - from;
  }
  return bytes;
}

function readSmaps(): string {
  try {
    return readFileSync("/proc/self/smaps", "utf8");
  } catch {
    return ""; // a sandbox may hide it
  }
}

/**
 * The mappings of a smaps text that are files, read-only, private and without a page of their own. Goes line by line and keeps next
 * to nothing: what it leaves behind would itself count.
 */
export function cleanFileMappings(smaps: string): { readonly from: number; readonly end: number }[] {
  const found: { from: number; end: number }[] = [];
  let head = "";
  for (let at = 0; at < smaps.length;) {
    const lineEnd = smaps.indexOf("\n", at) < 0 ? smaps.length : smaps.indexOf("\n", at);
    // fields start with a capital letter, a mapping with its address
    if (smaps.charCodeAt(at) > 0x5a || smaps.charCodeAt(at) < 0x41) head = smaps.slice(at, lineEnd);
    else if (smaps.startsWith("Anonymous:", at) && smaps.slice(at, lineEnd).endsWith(" 0 kB") && isFileCode(head)) {
      const dash = head.indexOf("-");
      found.push({ from: parseInt(head.slice(0, dash), 16), end: parseInt(head.slice(dash + 1), 16) });
    }
    at = lineEnd + 1;
  }
  return found;
}

/** "from-end r-xp offset device inode /path", or r--p */
function isFileCode(head: string): boolean {
  const permissionsAt = head.indexOf(" ") + 1;
  const permissions = head.slice(permissionsAt, permissionsAt + 4);
  return (permissions === "r-xp" || permissions === "r--p") && head.includes(" /");
}
