/** Reads one endpoint of a scenario. What its `ref` says already need not be said again. */
import { reservedOfName } from "../../src/identity/reserved.ts";
import { field, type Fields, joinPath, type Problems, quote } from "../../src/policy/fields.ts";
import type { NamedPort } from "../../src/policy/model.ts";
import { addressesOf, itemsAt, labelsOf, textAt } from "./read_values.ts";
import type { ScenarioEndpoint } from "./scenario.ts";

const ENDPOINT_FIELDS = [
  "ref",
  "name",
  "namespace",
  "cluster",
  "labels",
  "ips",
  "namedPorts",
  "serviceAccount",
  "reserved",
];

export function readEndpoint(
  item: unknown,
  path: string,
  localCluster: string,
  problems: Problems,
): ScenarioEndpoint | undefined {
  const fields = problems.object(item, path, ENDPOINT_FIELDS);
  if (fields === undefined) return undefined;
  const ref = textAt(fields, path, "ref", problems);
  if (ref === undefined || ref === "") return problems.add(joinPath(path, "ref"), "MISSING", "Endpoint without a ref");
  const parts = partsOfRef(ref);
  const given = readReserved(fields, path, problems);
  const reserved = given.length > 0 ? given : parts.reserved;
  const namespace = textAt(fields, path, "namespace", problems) ?? parts.namespace;
  if (reserved.length === 0 && namespace === "") {
    problems.add(joinPath(path, "namespace"), "MISSING", `Endpoint ${quote(ref)} is in no namespace`);
  }
  return {
    ref,
    name: textAt(fields, path, "name", problems) ?? parts.name,
    namespace,
    cluster: textAt(fields, path, "cluster", problems) ?? parts.cluster ?? localCluster,
    labels: labelsOf(field(fields, "labels"), joinPath(path, "labels"), problems),
    addresses: addressesOf(fields, path, "ips", problems),
    namedPorts: itemsAt(fields, path, "namedPorts", problems, (port, at) => readNamedPort(port, at, problems)),
    serviceAccount: textAt(fields, path, "serviceAccount", problems),
    reserved,
  };
}

/** `ns/name`, `cluster:ns/name`, `reserved:<kind>`, `node:<name>` */
function partsOfRef(ref: string): { cluster?: string; namespace: string; name: string; reserved: readonly string[] } {
  const colon = ref.indexOf(":");
  const head = colon < 0 ? "" : ref.slice(0, colon);
  const rest = ref.slice(colon + 1);
  if (head === "reserved") {
    return { namespace: "", name: rest, reserved: reservedOfName(rest) === undefined ? [] : [rest] };
  }
  if (head === "node") return { namespace: "", name: rest, reserved: ["remote-node"] };
  const slash = rest.indexOf("/");
  const place = slash < 0
    ? { namespace: "", name: rest }
    : { namespace: rest.slice(0, slash), name: rest.slice(slash + 1) };
  return { ...place, reserved: [], ...(head !== "" && { cluster: head }) };
}

/** With or without "reserved:" in front. */
function readReserved(fields: Fields, path: string, problems: Problems): string[] {
  return itemsAt(fields, path, "reserved", problems, (item, at) => {
    const text = problems.text(item, at);
    const name = text?.replace(/^reserved:/, "").replace(/=$/, "");
    if (name === undefined || name === "unknown" || reservedOfName(name) === undefined) {
      return text === undefined ? undefined : problems.add(at, "BAD_VALUE", `${quote(text)} is no reserved label`);
    }
    return name;
  });
}

function readNamedPort(item: unknown, path: string, problems: Problems): NamedPort | undefined {
  const fields = problems.object(item, path, ["name", "port", "protocol"]);
  if (fields === undefined) return undefined;
  const name = problems.text(field(fields, "name"), joinPath(path, "name"));
  const port = problems.integer(field(fields, "port"), joinPath(path, "port"), 1, 65535);
  const protocol = problems.word(field(fields, "protocol") ?? "TCP", joinPath(path, "protocol"), [
    "TCP",
    "UDP",
    "SCTP",
  ]);
  if (name === undefined || port === undefined || protocol === undefined) return undefined;
  return { name: name.toLowerCase(), port, protocol };
}
