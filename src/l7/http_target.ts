/**
 * Reads what a request asks for (RFC 9112 §3.2) into host and path, and brings the path to one form, so that a rule sees what the
 * server will see: `/public/../secret` must not pass a rule for `/public/.*`. The steps are those that Cilium has Envoy do
 * (`http-normalize-path`), and what was normalised is forwarded:
 *
 *     %2F %5C      become "/" and the client is redirected to that path: whether they separate, only the server knows
 *     %41 ...      unreserved characters are decoded (RFC 3986 §6.2.2.2); a "%" that starts no escape becomes "%25"
 *     \            becomes "/"
 *     . and ..     are resolved (RFC 3986 §5.2.4), never above the root
 *     //           becomes "/"
 *
 * The query is left as it is. A fragment has no place in a request and is refused.
 */

/** Longest path with its query, characters. */
export const MAX_PATH = 16_384;

export type Target =
  | {
    /** starts with "/", or is "*" */
    readonly path: string;
    /** of an absolute target, in place of the Host header (RFC 9112 §3.2.2) */
    readonly authority?: string;
    /** the client must ask again for `path` */
    readonly isRedirect: boolean;
  }
  | { readonly refusal: string; readonly status: 400 | 414 };

/** @param target as it stands in the request line */
export function readTarget(method: string, target: string): Target {
  if (target.length > MAX_PATH) return { refusal: `the path is longer than ${MAX_PATH} characters`, status: 414 };
  if (/[^\x21-\x7e]/.test(target)) return { refusal: "the path has characters that must be escaped", status: 400 };
  if (target.includes("#")) return { refusal: "the path has a fragment", status: 400 };
  if (target === "*") {
    return method === "OPTIONS"
      ? { path: "*", isRedirect: false }
      : { refusal: 'only OPTIONS asks for "*"', status: 400 };
  }
  if (target.startsWith("/")) return normalise(target);
  const parts = /^http:\/\/([^/?]+)(.*)$/i.exec(target);
  if (parts === null) return { refusal: "the target is neither a path nor an http URL", status: 400 };
  const authority = parts[1]!;
  if (!isAuthority(authority)) return { refusal: "the URL's host cannot be read", status: 400 };
  const path = parts[2]!;
  return { ...normalise(path.startsWith("/") ? path : `/${path}`), authority };
}

/** A host with or without a port, and nothing else: no user, no list. Empty is one too (RFC 9112 §3.2). */
export function isAuthority(text: string): boolean {
  return /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(:[0-9]{0,5})?$/.test(text);
}

function normalise(target: string): { readonly path: string; readonly isRedirect: boolean } {
  const queryAt = target.indexOf("?");
  const raw = queryAt < 0 ? target : target.slice(0, queryAt);
  const query = queryAt < 0 ? "" : target.slice(queryAt);
  const separated = raw.replace(/%2f/gi, "/").replace(/%5c/gi, "\\");
  const decoded = separated.replace(/%([0-9A-Fa-f]{2})?/g, (escape: string, hex: string | undefined) => {
    if (hex === undefined) return "%25";
    const character = String.fromCharCode(parseInt(hex, 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : escape;
  });
  return { path: resolveDots(decoded.replaceAll("\\", "/")) + query, isRedirect: separated !== raw };
}

/** Resolves dots and merges slashes. Starts with "/"; a path that ends in a dot segment ends in "/". */
function resolveDots(path: string): string {
  const kept: string[] = [];
  const segments = path.split("/");
  for (const segment of segments) {
    if (segment === "..") kept.pop();
    else if (segment !== "." && segment !== "") kept.push(segment);
  }
  const last = segments.at(-1)!;
  const isFolder = last === "" || last === "." || last === "..";
  return `/${kept.join("/")}${isFolder && kept.length > 0 ? "/" : ""}`;
}
